"""One question with an answer that can be checked. Knows the check, no kinds of question."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from arithmetic import Sum

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
