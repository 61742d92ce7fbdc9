"""Questions of plain arithmetic and of units. Knows sums and English, no machines.

Each function makes one random question and is pure but for the generator it is handed.
"""

from __future__ import annotations

from random import Random

import arithmetic
from question import Question, number, plain


def add(random: Random) -> Question:
    left, right = number(random), number(random)
    text = random.choice(
        (
            "What is {a} + {b}?",
            "What is {a} plus {b}?",
            "{a} + {b}",
            "{a} + {b} = ?",
            "{a}+{b}",
            "How much is {a} + {b}?",
            "How much is {a} plus {b}?",
            "Add {a} and {b}.",
            "Compute {a} + {b}.",
            "Calculate {a} + {b}.",
            "What is the sum of {a} and {b}?",
            "I have {a} files and get {b} more. How many do I have?",
            "One node holds {a} slices and another {b}. How many slices is that?",
        )
    ).format(a=left, b=right)
    one = arithmetic.addition(left, right)
    return plain("addition", text, f"{one.text}.", one)


def subtract(random: Random) -> Question:
    right, left = sorted((number(random), number(random)))
    if random.random() < 0.15:
        left, right = left + right, left
    text = random.choice(
        (
            "What is {a} - {b}?",
            "What is {a} minus {b}?",
            "{a} - {b}",
            "{a} - {b} = ?",
            "{a}-{b}",
            "How much is {a} - {b}?",
            "How much is {a} minus {b}?",
            "Subtract {b} from {a}.",
            "Compute {a} - {b}.",
            "Calculate {a} - {b}.",
            "Take {b} away from {a}.",
            "I have {a} files and delete {b}. How many are left?",
            "A machine has {a} GB and {b} GB are in use. How many GB are free?",
        )
    ).format(a=left, b=right)
    one = arithmetic.subtraction(left, right)
    return plain("subtraction", text, f"{one.text}.", one)


def multiply(random: Random) -> Question:
    if random.random() < 0.35:
        left, right = random.randint(2, 12), random.randint(2, 12)
    else:
        left, right = random.randint(11, 99), random.randint(2, 10)
        if random.random() < 0.4:
            left, right = right, left
    text = random.choice(
        (
            "What is {a} x {b}?",
            "What is {a} times {b}?",
            "{a} x {b}",
            "{a} * {b}",
            "{a}*{b}",
            "{a} x {b} = ?",
            "How much is {a} x {b}?",
            "How much is {a} times {b}?",
            "Multiply {a} by {b}.",
            "Compute {a} x {b}.",
            "Calculate {a} * {b}.",
            "What is the product of {a} and {b}?",
            "What is {a} * {b}?",
        )
    ).format(a=left, b=right)
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


def remainder_pair(random: Random) -> tuple[int, int]:
    """Any dividend up to a quotient of 99: no remainder, or some."""
    divisor = random.randint(3, 9)
    return random.randint(divisor, 100 * divisor - 1), divisor


def divide(random: Random) -> Question:
    left, right = (quotient_pair if random.random() < 0.5 else remainder_pair)(random)
    text = random.choice(
        (
            "What is {a} / {b}?",
            "What is {a} divided by {b}?",
            "{a} / {b}",
            "{a}/{b}",
            "{a} / {b} = ?",
            "How much is {a} / {b}?",
            "How much is {a} divided by {b}?",
            "Divide {a} by {b}.",
            "Compute {a} / {b}.",
            "Calculate {a} / {b}.",
        )
    ).format(a=left, b=right)
    one = arithmetic.division(left, right)
    return plain("division", text, f"{one.text}.", one)


# One entry: large unit, small unit, how many small ones make a large one.
UNITS: tuple[tuple[str, str, int], ...] = (
    ("km", "m", 1000),
    ("kilometres", "metres", 1000),
    ("kg", "g", 1000),
    ("kilograms", "grams", 1000),
    ("GB", "MB", 1000),
    ("gigabytes", "megabytes", 1000),
    ("TB", "GB", 1000),
    ("seconds", "milliseconds", 1000),
    ("m", "cm", 100),
    ("metres", "centimetres", 100),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("bytes", "bits", 8),
    ("GB/s", "Gbit/s", 8),
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
    text = random.choice(
        (
            "How many {w} are {n} {u}?",
            "How many {w} are in {n} {u}?",
            "Convert {n} {u} to {w}.",
            "What is {n} {u} in {w}?",
            "{n} {u} in {w}",
            "How many {w} is {n} {u}?",
            "Express {n} {u} in {w}.",
            "{n} {u} to {w}",
        )
    ).format(n=given, u=unit, w=wanted)
    return plain("units", text, f"{given} {unit}: {one.text} {wanted}.", one)
