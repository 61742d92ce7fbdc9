"""Questions with answers that can be checked. Knows sums and English, no tokens and no files.

`ask` makes one random question of a kind, `check` judges a reply to it. Everything is a pure
function of the random generator that is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import arithmetic
from arithmetic import Sum
from facts import FACTS, OUT_OF_REACH, OUT_OF_REACH_QUESTIONS

ARTICLE = re.compile(r"\ba (?=8|(?:11|18)\b|1[18]B)")
LAST_NUMBER = re.compile(r"= (\d+(?:\.\d+)?)[^=]*$")


@dataclass(frozen=True)
class Question:
    """A question, the answer to learn, and what a checker looks for in a reply.

    `expected` is the final number, or the whole answer where there is no number.
    `sums` are the sums the answer works out; one that is held out holds out the question.
    """

    kind: str
    text: str
    answer: str
    expected: str
    sums: tuple[Sum, ...] = ()

    @property
    def held_out(self) -> bool:
        return any(one.held_out for one in self.sums)


def check(question: Question, reply: str) -> bool:
    """The number after the last `=` is the expected one; without sums, the text is exact."""
    return check_expected(question.expected, bool(question.sums), reply)


def check_expected(expected: str, numeric: bool, reply: str) -> bool:
    if not numeric:
        return reply.strip() == expected
    found = LAST_NUMBER.search(reply.strip())
    return found is not None and found.group(1) == expected


def plain(kind: str, text: str, answer: str, *sums: Sum) -> Question:
    """A question whose expected answer is the result of its last sum."""
    # The phrasings say "a" before any number; eight, eleven and eighteen want "an".
    return Question(kind, ARTICLE.sub("an ", text), answer, sums[-1].result, sums)


def number(random: Random, digits: tuple[int, ...] = (1, 2, 2, 3, 3, 3)) -> int:
    """A number whose count of digits is drawn from `digits`."""
    count = random.choice(digits)
    return random.randint(10 ** (count - 1) if count > 1 else 0, 10**count - 1)


def add(random: Random) -> Question:
    left, right = number(random), number(random)
    text = random.choice((
        "What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b}", "{a} + {b} = ?", "{a}+{b}",
        "How much is {a} + {b}?", "How much is {a} plus {b}?", "Add {a} and {b}.",
        "Compute {a} + {b}.", "Calculate {a} + {b}.", "What is the sum of {a} and {b}?",
        "I have {a} files and get {b} more. How many do I have?",
        "One node holds {a} slices and another {b}. How many slices is that?",
    )).format(a=left, b=right)
    one = arithmetic.addition(left, right)
    return plain("addition", text, f"{one.text}.", one)


def subtract(random: Random) -> Question:
    right, left = sorted((number(random), number(random)))
    if random.random() < 0.15:
        left, right = left + right, left
    text = random.choice((
        "What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b}", "{a} - {b} = ?", "{a}-{b}",
        "How much is {a} - {b}?", "How much is {a} minus {b}?", "Subtract {b} from {a}.",
        "Compute {a} - {b}.", "Calculate {a} - {b}.", "Take {b} away from {a}.",
        "I have {a} files and delete {b}. How many are left?",
        "A machine has {a} GB and {b} GB are in use. How many GB are free?",
    )).format(a=left, b=right)
    one = arithmetic.subtraction(left, right)
    return plain("subtraction", text, f"{one.text}.", one)


def multiply(random: Random) -> Question:
    if random.random() < 0.35:
        left, right = random.randint(2, 12), random.randint(2, 12)
    else:
        left, right = random.randint(11, 99), random.randint(2, 10)
        if random.random() < 0.4:
            left, right = right, left
    text = random.choice((
        "What is {a} x {b}?", "What is {a} times {b}?", "{a} x {b}", "{a} * {b}", "{a}*{b}",
        "{a} x {b} = ?", "How much is {a} x {b}?", "How much is {a} times {b}?",
        "Multiply {a} by {b}.", "Compute {a} x {b}.", "Calculate {a} * {b}.",
        "What is the product of {a} and {b}?", "What is {a} * {b}?",
    )).format(a=left, b=right)
    one = arithmetic.multiplication(left, right)
    return plain("multiplication", text, f"{one.text}.", one)


def quotient_pair(random: Random) -> tuple[int, int]:
    """A dividend and a divisor that `arithmetic.division` can write out."""
    draw = random.random()
    divisor = random.randint(2, 9)
    if draw < 0.25:
        return divisor * random.randint(2, 10), divisor
    if draw < 0.85:
        return divisor * random.randint(11, 99), divisor
    if draw < 0.93:
        return divisor * random.randint(1, 9) * 10 * random.choice((1, 10)), divisor * 10
    return divisor * random.randint(1, 9) * 100, divisor


def divide(random: Random) -> Question:
    left, right = quotient_pair(random)
    text = random.choice((
        "What is {a} / {b}?", "What is {a} divided by {b}?", "{a} / {b}", "{a}/{b}",
        "{a} / {b} = ?", "How much is {a} / {b}?", "How much is {a} divided by {b}?",
        "Divide {a} by {b}.", "Compute {a} / {b}.", "Calculate {a} / {b}.",
    )).format(a=left, b=right)
    one = arithmetic.division(left, right)
    return plain("division", text, f"{one.text}.", one)


# One entry: large unit, small unit, how many small ones make a large one.
UNITS: tuple[tuple[str, str, int], ...] = (
    ("km", "m", 1000), ("kilometres", "metres", 1000), ("kg", "g", 1000),
    ("kilograms", "grams", 1000), ("GB", "MB", 1000), ("gigabytes", "megabytes", 1000),
    ("TB", "GB", 1000), ("seconds", "milliseconds", 1000), ("m", "cm", 100),
    ("metres", "centimetres", 100), ("hours", "minutes", 60), ("minutes", "seconds", 60),
    ("days", "hours", 24), ("weeks", "days", 7), ("bytes", "bits", 8), ("GB/s", "Gbit/s", 8),
    ("gigabytes", "gigabits", 8),
)


def convert(random: Random) -> Question:
    large, small, factor = random.choice(UNITS)
    limit = {1000: 999, 100: 99, 60: 16, 24: 9, 7: 60, 8: 99}[factor]
    amount = random.randint(2, limit if random.random() < 0.5 else min(limit, 20))
    # Dividing by 24 is no two-step sum, so days are only ever turned into hours.
    if factor == 24 or random.random() < 0.5:
        given, unit, wanted = amount, large, small
        one = arithmetic.multiplication(amount, factor)
    else:
        given, unit, wanted = amount * factor, small, large
        if not arithmetic.can_divide(given, factor):
            given = factor * random.randint(2, 9)
        one = arithmetic.division(given, factor)
    text = random.choice((
        "How many {w} are {n} {u}?", "How many {w} are in {n} {u}?", "Convert {n} {u} to {w}.",
        "What is {n} {u} in {w}?", "{n} {u} in {w}", "How many {w} is {n} {u}?",
        "Express {n} {u} in {w}.", "{n} {u} to {w}",
    )).format(n=given, u=unit, w=wanted)
    return plain("units", text, f"{given} {unit}: {one.text} {wanted}.", one)


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
    return random.choice((100, 110, 120, 130, 140, 160, 180))


def model_size(random: Random) -> Question:
    billions, bits = billions_of_parameters(random), random.choice((4, 4, 8, 16))
    text = random.choice((
        "How many gigabytes do {p} billion parameters take in {b} bits?",
        "How many GB do {p} billion parameters take in {b} bits?",
        "How big is a model with {p} billion parameters in {b} bits?",
        "How large is a {p} billion parameter model at {b} bits?",
        "How much memory does a {p}B model need in {b} bits?",
        "How big is a {p}B model in {b} bits?", "How many GB is a {p}B model at {b} bits?",
        "Size of {p} billion parameters in {b} bits?", "{p}B in {b} bits",
        "A model has {p} billion parameters of {b} bits. How big is it?",
        "I want to load {p} billion parameters in {b} bits. How much memory is that?",
    )).format(p=billions, b=bits)
    answer, one = size_answer(billions, bits)
    return plain("model size", text, answer, one)


def speed_answer(gigabytes: int, bandwidth: int) -> tuple[str, Sum]:
    one = arithmetic.division(bandwidth, gigabytes)
    return f"Each token reads {gigabytes} GB: {one.text} tokens per second at most.", one


def decode_speed(random: Random) -> Question:
    bandwidth, gigabytes = quotient_pair(random)
    text = random.choice((
        "A model reads {g} GB per token and the memory gives {w} GB/s. How many tokens per second "
        "at most?",
        "The memory gives {w} GB/s and a model reads {g} GB per token. How fast is it?",
        "How many tokens per second can a {g} GB model make with {w} GB/s?",
        "How fast is a {g} GB model at {w} GB/s?", "How fast does a {g} GB model run at {w} GB/s?",
        "A model of {g} GB runs on a machine with {w} GB/s. How many tokens per second?",
        "With {w} GB/s, how many tokens per second does a {g} GB model make?",
        "My machine has {w} GB/s. How fast is a {g} GB model?",
        "What speed does a {g} GB model reach with {w} GB/s?", "Speed of {g} GB at {w} GB/s?",
    )).format(g=gigabytes, w=bandwidth)
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
        text = random.choice((
            "One machine has {a} GB/s and another {b} GB/s. What bandwidth together?",
            "What bandwidth do {a} GB/s and {b} GB/s give together?",
            "I link a machine with {a} GB/s to one with {b} GB/s. What bandwidth is that?",
            "A node with {a} GB/s and a node with {b} GB/s: what bandwidth together?",
        )).format(a=left, b=right)
        return plain("joint bandwidth", text, f"Together: {one.text} GB/s.", one)
    count, each, one = linked_machines(random)
    text = random.choice((
        "{N} machines with {w} GB/s each: what bandwidth together?",
        "{N} nodes with {w} GB/s each. What bandwidth do they have together?",
        "What bandwidth do {n} machines with {w} GB/s each give?",
        "I link {n} machines of {w} GB/s. What bandwidth is that?",
        "How much bandwidth do {n} nodes of {w} GB/s have?",
        "Each of my {n} machines has {w} GB/s. What do they give together?",
    ))
    word = count_word(random, count)
    text = text.format(n=word, N=word.capitalize(), w=each)
    return plain("joint bandwidth", text, f"Together: {one.text} GB/s.", one)


def share_answer(gigabytes: int, nodes: int) -> tuple[str, Sum]:
    one = arithmetic.division(gigabytes, nodes)
    return f"Each node holds {one.text} GB.", one


def node_share(random: Random) -> Question:
    nodes = random.choice((2, 2, 3, 4, 5, 6, 7, 8))
    gigabytes = nodes * random.randint(1, 10 if random.random() < 0.3 else 99)
    text = random.choice((
        "How much of a {g} GB model does each of {n} nodes hold?",
        "A {g} GB model is spread over {n} nodes. How much does each hold?",
        "A {g} GB model runs on {n} machines. How much does each node hold?",
        "I split {g} GB over {n} nodes. How much is on each?",
        "How many GB does each node hold of a {g} GB model over {n} nodes?",
        "Split a {g} GB model over {n} machines.", "{g} GB over {n} nodes",
    )).format(g=gigabytes, n=count_word(random, nodes))
    answer, one = share_answer(gigabytes, nodes)
    return plain("node share", text, answer, one)


def cluster_speed(random: Random) -> Question:
    """Two sums in a row: the joint bandwidth, and what it gives in tokens per second."""
    while True:
        count, each, joint = linked_machines(random)
        choices = [size for size in (2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50)
                   if count * each % size == 0 and arithmetic.can_divide(count * each, size)
                   and count * each < 1000]
        if choices:
            break
    gigabytes = random.choice(choices)
    text = random.choice((
        "{N} machines with {w} GB/s each run a {g} GB model. How many tokens per second?",
        "How fast is a {g} GB model on {n} machines with {w} GB/s each?",
        "A {g} GB model runs on {n} nodes of {w} GB/s. How many tokens per second at most?",
        "I have {n} machines with {w} GB/s each. How fast is a {g} GB model?",
    ))
    word = count_word(random, count)
    text = text.format(n=word, N=word.capitalize(), w=each, g=gigabytes)
    speed = arithmetic.division(count * each, gigabytes)
    answer = f"Together: {joint.text} GB/s. Speed: {speed.text} tokens per second at most."
    return plain("cluster speed", text, answer, joint, speed)


def fact(random: Random) -> Question:
    if random.random() < 0.15:
        return Question("facts", random.choice(OUT_OF_REACH_QUESTIONS), OUT_OF_REACH, OUT_OF_REACH)
    phrasings, answer = random.choice(FACTS)
    return Question("facts", random.choice(phrasings), answer, answer)


KINDS: dict[str, Callable[[Random], Question]] = {
    "addition": add, "subtraction": subtract, "multiplication": multiply, "division": divide,
    "units": convert, "model size": model_size, "decode speed": decode_speed,
    "joint bandwidth": joint_bandwidth, "node share": node_share,
    "cluster speed": cluster_speed, "facts": fact,
}


def ask(random: Random, kind: str, held_out: bool = False) -> Question:
    """A random question of a kind, from the held-out or the training part.

    Facts have no numbers to hold out: they are there to be learnt by heart.
    """
    while True:
        question = KINDS[kind](random)
        if kind == "facts" or question.held_out == held_out:
            return question
