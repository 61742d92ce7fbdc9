"""Questions on models and linked machines. Knows this project's subject, no other.

Each function makes one random question and is pure but for the generator it is handed; the
`..._answer` functions word an answer for numbers that are given.
"""

from __future__ import annotations

from random import Random

import arithmetic
from arithmetic import Sum
from calculations import quotient_pair, remainder_pair
from question import Question, number, plain

BYTES_PER_PARAMETER = {4: "half a byte each", 8: "one byte each", 16: "2 bytes each"}


def size_answer(billions: int, bits: int) -> tuple[str, Sum]:
    if bits == 4:
        one = arithmetic.division(billions, 2)
    else:
        one = arithmetic.multiplication(billions, bits // 8)
    return f"{billions} billion parameters at {BYTES_PER_PARAMETER[bits]}: {one.text} GB.", one


def billions_of_parameters(random: Random) -> int:
    draw = random.random()
    if draw < 0.3:
        return random.choice((1, 2, 3, 4, 7, 8, 9, 12, 13, 14, 20, 24, 27, 30, 32, 34, 70, 72))
    if draw < 0.9:
        return random.randint(1, 99)
    return 10 * random.randint(10, 19)


def model_size(random: Random) -> Question:
    billions, bits = billions_of_parameters(random), random.choice((4, 4, 8, 16))
    text = random.choice(
        (
            "How many gigabytes do {p} billion parameters take in {b} bits?",
            "How many GB do {p} billion parameters take in {b} bits?",
            "How big is a model with {p} billion parameters in {b} bits?",
            "How large is a {p} billion parameter model at {b} bits?",
            "How much memory does a {p}B model need in {b} bits?",
            "How big is a {p}B model in {b} bits?",
            "How many GB is a {p}B model at {b} bits?",
            "Size of {p} billion parameters in {b} bits?",
            "{p}B in {b} bits",
            "A model has {p} billion parameters of {b} bits. How big is it?",
            "I want to load {p} billion parameters in {b} bits. How much memory is that?",
        )
    ).format(p=billions, b=bits)
    answer, one = size_answer(billions, bits)
    return plain("model size", text, answer, one)


def speed_answer(gigabytes: int, bandwidth: int) -> tuple[str, Sum]:
    one = arithmetic.division(bandwidth, gigabytes)
    found = one.text if one.exact else f"{one.text}, so {one.result}"
    return f"Each token reads {gigabytes} GB: {found} tokens per second at most.", one


def decode_speed(random: Random) -> Question:
    bandwidth, gigabytes = (quotient_pair if random.random() < 0.6 else remainder_pair)(random)
    text = random.choice(
        (
            "A model reads {g} GB per token and the memory gives {w} GB/s. How many tokens per "
            "second at most?",
            "The memory gives {w} GB/s and a model reads {g} GB per token. How fast is it?",
            "How many tokens per second can a {g} GB model make with {w} GB/s?",
            "How fast is a {g} GB model at {w} GB/s?",
            "How fast does a {g} GB model run at {w} GB/s?",
            "A model of {g} GB runs on a machine with {w} GB/s. How many tokens per second?",
            "With {w} GB/s, how many tokens per second does a {g} GB model make?",
            "My machine has {w} GB/s. How fast is a {g} GB model?",
            "What speed does a {g} GB model reach with {w} GB/s?",
            "Speed of {g} GB at {w} GB/s?",
        )
    ).format(g=gigabytes, w=bandwidth)
    answer, one = speed_answer(gigabytes, bandwidth)
    return plain("decode speed", text, answer, one)


COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def count_word(random: Random, count: int) -> str:
    return COUNTS[count] if random.random() < 0.6 else str(count)


def two_digit_bandwidth(random: Random) -> int:
    """A bandwidth with at most two digits that are not 0, up to 990."""
    value = random.randint(10, 99)
    return value * 10 if random.random() < 0.5 else value


def linked_machines(random: Random) -> tuple[int, int, Sum]:
    """A count of equal machines, the bandwidth of each, and the sum of all."""
    count = random.choice((2, 2, 2, 3, 4, 5, 6, 8))
    if count == 2:
        # Adding works for any bandwidth, a two-step product only for some.
        each = number(random, (2, 3)) if random.random() < 0.5 else two_digit_bandwidth(random)
        return count, each, arithmetic.addition(each, each)
    each = two_digit_bandwidth(random)
    return count, each, arithmetic.multiplication(count, each)


def joint_bandwidth(random: Random) -> Question:
    if random.random() < 0.35:
        left, right = number(random, (2, 3, 3)), number(random, (2, 3, 3))
        one = arithmetic.addition(left, right)
        text = random.choice(
            (
                "One machine has {a} GB/s and another {b} GB/s. What bandwidth together?",
                "What bandwidth do {a} GB/s and {b} GB/s give together?",
                "I link a machine with {a} GB/s to one with {b} GB/s. What bandwidth is that?",
                "A node with {a} GB/s and a node with {b} GB/s: what bandwidth together?",
            )
        ).format(a=left, b=right)
        return plain("joint bandwidth", text, f"Together: {one.text} GB/s.", one)
    count, each, one = linked_machines(random)
    text = random.choice(
        (
            "{N} machines with {w} GB/s each: what bandwidth together?",
            "{N} nodes with {w} GB/s each. What bandwidth do they have together?",
            "What bandwidth do {n} machines with {w} GB/s each give?",
            "I link {n} machines of {w} GB/s. What bandwidth is that?",
            "How much bandwidth do {n} nodes of {w} GB/s have?",
            "Each of my {n} machines has {w} GB/s. What do they give together?",
        )
    )
    word = count_word(random, count)
    text = text.format(n=word, N=word.capitalize(), w=each)
    return plain("joint bandwidth", text, f"Together: {one.text} GB/s.", one)


def share_answer(gigabytes: int, nodes: int) -> tuple[str, Sum]:
    one = arithmetic.division(gigabytes, nodes)
    return f"Each node: {one.text} GB.", one


def node_share(random: Random) -> Question:
    nodes = random.choice((2, 2, 3, 4, 5, 6, 7, 8))
    gigabytes = nodes * random.randint(1, 10 if random.random() < 0.3 else 99)
    text = random.choice(
        (
            "How much of a {g} GB model does each of {n} nodes hold?",
            "A {g} GB model is spread over {n} nodes. How much does each hold?",
            "A {g} GB model runs on {n} machines. How much does each node hold?",
            "I split {g} GB over {n} nodes. How much is on each?",
            "How many GB does each node hold of a {g} GB model over {n} nodes?",
            "Split a {g} GB model over {n} machines.",
            "{g} GB over {n} nodes",
        )
    ).format(g=gigabytes, n=count_word(random, nodes))
    answer, one = share_answer(gigabytes, nodes)
    return plain("node share", text, answer, one)


def cluster_speed(random: Random) -> Question:
    """Two sums in a row: the joint bandwidth, and what it gives in tokens per second."""
    while True:
        count, each, joint = linked_machines(random)
        choices = [
            size
            for size in (2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50)
            if count * each % size == 0
            and arithmetic.can_divide(count * each, size)
            and count * each < 1000
        ]
        if choices:
            break
    gigabytes = random.choice(choices)
    text = random.choice(
        (
            "{N} machines with {w} GB/s each run a {g} GB model. How many tokens per second?",
            "How fast is a {g} GB model on {n} machines with {w} GB/s each?",
            "A {g} GB model runs on {n} nodes of {w} GB/s. How many tokens per second at most?",
            "I have {n} machines with {w} GB/s each. How fast is a {g} GB model?",
        )
    )
    word = count_word(random, count)
    text = text.format(n=word, N=word.capitalize(), w=each, g=gigabytes)
    speed = arithmetic.division(count * each, gigabytes)
    answer = f"Together: {joint.text} GB/s. Speed: {speed.text} tokens per second at most."
    return plain("cluster speed", text, answer, joint, speed)
