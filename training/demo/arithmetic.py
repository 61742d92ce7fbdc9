"""Worked sums. Knows how a result is written out and which sums are held out, no English.

Every sum is written as a chain that ends in `= result`. Sums that do not fit a basic table
are cut into steps that do, for a small network learns several easy steps more surely than
one hard one, and a reader can follow them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

HELD_OUT_PERCENT = 10


@dataclass(frozen=True)
class Sum:
    """One sum: its key (operation and operands), the chain as written, and the result.

    `short` is a briefer way to write the chain, which the first part of the training uses.
    """

    key: tuple[str, int, int]
    text: str
    result: str
    steps: int
    short: str = ""
    exact: bool = True

    @property
    def held_out(self) -> bool:
        """Whether training must never ask this sum.

        Basic tables are never held out: they cannot be worked out from anything simpler.
        """
        if self.steps < 2:
            return False
        digest = hashlib.sha256(repr(self.key).encode()).digest()
        return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def parts(number: int) -> list[int]:
    """The number as a sum of digits times powers of ten, without the zeros: 405 -> [400, 5]."""
    digits = str(number)
    return [
        int(digit) * 10 ** (len(digits) - 1 - place)
        for place, digit in enumerate(digits)
        if digit != "0"
    ]


def is_power_of_ten(number: int) -> bool:
    return str(number).strip("0") == "1"


def steps_of(left: int, sign: str, right: int) -> list[str]:
    """Adding or taking away digit by digit: 57 + 25 gives 57 + 25, 77 + 5, 82."""
    written = [f"{left} {sign} {right}"]
    if sign == "-" and left == right:
        return [*written, "0"]
    for piece in parts(right):
        left += piece if sign == "+" else -piece
        right -= piece
        written.append(f"{left} {sign} {right}" if right else str(left))
    return written if len(written) > 1 else [*written, str(left)]


def addition(left: int, right: int) -> Sum:
    steps = steps_of(left, "+", right)
    # The key is sorted so that 25 + 17 in training cannot give away 17 + 25.
    key = ("+", min(left, right), max(left, right))
    return Sum(
        key,
        " = ".join(steps),
        steps[-1],
        2 if left + right > 20 else 1,
        f"{steps[0]} = {steps[-1]}",
    )


def subtraction(left: int, right: int) -> Sum:
    if right > left:
        raise ValueError("the demo model knows no negative numbers")
    steps = steps_of(left, "-", right)
    return Sum(
        ("-", left, right),
        " = ".join(steps),
        steps[-1],
        2 if left > 20 else 1,
        f"{steps[0]} = {steps[-1]}",
    )


def can_multiply(left: int, right: int) -> bool:
    """Whether the product takes at most two steps."""
    if is_power_of_ten(left) or is_power_of_ten(right):
        return True
    short, long = sorted((left, right), key=lambda number: len(parts(number)))
    if len(parts(short)) == 1:
        return len(parts(long)) <= 2
    return left <= 12 and right <= 12


def multiplication(left: int, right: int) -> Sum:
    if not can_multiply(left, right):
        raise ValueError(f"{left} x {right} takes more than two steps")
    key = ("x", min(left, right), max(left, right))
    result = left * right
    text = f"{left} x {right} = "
    if is_power_of_ten(left) or is_power_of_ten(right):
        return Sum(key, f"{text}{result}", str(result), 2 if min(left, right) > 10 else 1)
    # Of 47 x 6 the 47 is cut; of 12 x 11, where both could be, the second.
    cut, whole = (right, left) if len(parts(right)) == 2 else (left, right)
    pieces = parts(cut)
    if len(pieces) == 1:
        return Sum(key, f"{text}{result}", str(result), 1)
    total = addition(pieces[0] * whole, pieces[1] * whole)
    return Sum(key, text + total.text, str(result), 2, text + total.short)


def can_divide(left: int, right: int) -> bool:
    """Whether the quotient is a whole number (or ends in .5) found in at most two steps."""
    if is_power_of_ten(right) and left % right == 0:
        return True
    if right == 2 and left % 2 == 1:
        return left < 200
    if right == 0 or left % right or len(parts(right)) != 1:
        return False
    quotient = left // right
    if right >= 10:
        return len(parts(quotient)) == 1
    return quotient < 100 or len(parts(quotient)) == 1


def half(number: int) -> str:
    return str(number // 2) if number % 2 == 0 else f"{number // 2}.5"


def division(left: int, right: int) -> Sum:
    """A quotient; where the division leaves something, a whole one and the remainder.

    From ten on the multiple of ten comes first and what it leaves is worked out before it is
    used: the network knows subtraction, while it would learn what is left by heart.
    """
    key = ("/", left, right)
    result = half(left) if right == 2 else str(left // right)
    exact = right == 2 or left % right == 0
    ending = result if exact else f"{result} remainder {left % right}"
    text = f"{left} / {right} = "
    if is_power_of_ten(right) or left < 10 * right:
        steps = 2 if left // right > 10 or not exact else 1
        return Sum(key, text + ending, result, steps, text + ending, exact)
    tens = left // (10 * right) * 10
    rest = left - tens * right
    first = f"{subtraction(left, tens * right).text}, so "
    if rest == 0:
        steps = 1 if len(parts(tens)) == 1 else 2
        return Sum(key, first + text + ending, result, steps, text + ending)
    rest_result = half(rest) if right == 2 else str(rest // right)
    text += f"{tens * right} / {right} + {rest} / {right} = {tens} + {rest_result} = {ending}"
    steps = 1 if left // right == 10 and exact else 2
    return Sum(key, first + text, result, steps, text, exact)
