"""Conversations made of questions. Knows turns and small changes of spelling, no tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import arithmetic
import clusters
import question
import questions
from question import Question

FOLLOW_UP = "follow-up"


@dataclass(frozen=True)
class Lesson:
    """What a part of the training is made of: how much of each kind, and how answers read."""

    first_pool: int
    mix: Mapping[str, float]
    short: bool

    def draw(self, random: Random) -> tuple[Question, ...]:
        """One question of this lesson, with whatever has to come before it."""
        while True:
            kind = random.choices(list(self.mix), list(self.mix.values()))[0]
            asked = turns(random, kind)
            if not self.short or all(one.exact for turn in asked for one in turn.sums):
                return asked

    def answer(self, asked: Question) -> str:
        answer = asked.answer
        if self.short:
            for one in asked.sums:
                answer = answer.replace(one.text, one.short or one.text)
        return answer


# The harder to learn, the more. What is known by then makes room for what is not.
LESSONS = (
    Lesson(
        0,
        {
            "addition": 20,
            "subtraction": 20,
            "multiplication": 9,
            "division": 9,
            "units": 9,
            "model size": 7,
            "decode speed": 6,
            "joint bandwidth": 6,
            "node share": 5,
            "cluster speed": 4,
            FOLLOW_UP: 7,
            "facts": 8,
        },
        short=True,
    ),
    Lesson(
        65,
        {
            "addition": 18,
            "subtraction": 24,
            "multiplication": 5,
            "division": 14,
            "units": 6,
            "model size": 8,
            "decode speed": 6,
            "joint bandwidth": 6,
            "node share": 6,
            "cluster speed": 5,
            FOLLOW_UP: 8,
            "facts": 4,
        },
        short=True,
    ),
    Lesson(
        90,
        {
            "addition": 22,
            "subtraction": 28,
            "multiplication": 6,
            "division": 14,
            "units": 6,
            "model size": 6,
            "decode speed": 5,
            "joint bandwidth": 5,
            "node share": 5,
            "cluster speed": 4,
            FOLLOW_UP: 8,
            "facts": 4,
        },
        short=False,
    ),
    Lesson(
        100,
        {
            "addition": 14,
            "subtraction": 13,
            "multiplication": 5,
            "division": 24,
            "units": 6,
            "model size": 12,
            "decode speed": 8,
            "joint bandwidth": 5,
            "node share": 6,
            "cluster speed": 5,
            FOLLOW_UP: 11,
            "facts": 3,
        },
        short=False,
    ),
)
# All at once, for a network that has less time: what is hard has more room from the start.
MIXED_LESSONS = (
    Lesson(
        0,
        {
            "addition": 16,
            "subtraction": 18,
            "multiplication": 7,
            "division": 15,
            "units": 8,
            "model size": 8,
            "decode speed": 7,
            "joint bandwidth": 6,
            "node share": 6,
            "cluster speed": 6,
            FOLLOW_UP: 9,
            "facts": 6,
        },
        short=False,
    ),
)
KINDS = tuple(LESSONS[0].mix)


def lesson_for(lessons: Sequence[Lesson], pool: int) -> Lesson:
    return [lesson for lesson in lessons if lesson.first_pool <= pool][-1]


def respell(random: Random, text: str) -> str:
    """The text as a hurried reader may type it: lower case, no full stop, wrong article."""
    if random.random() < 0.15:
        text = text[0].lower() + text[1:] if random.random() < 0.6 else text.lower()
    if random.random() < 0.12:
        text = text.rstrip("?.!").rstrip(" =")
    if random.random() < 0.2:
        text = text.replace(" an ", " a ")
    if " x " in text and random.random() < 0.1:
        text = text.replace(" x ", " × ")
    return text


def sum_follow_up(random: Random) -> tuple[Question, Question]:
    first = questions.ask(random, random.choice(("addition", "subtraction", "multiplication")))
    start = int(first.expected)
    if random.random() < 0.5:
        more = question.number(random, (1, 2, 2, 3))
        one = arithmetic.addition(start, more)
        text = random.choice(
            ("Add {b} to that.", "And plus {b}?", "Plus {b}?", "And {b} more?", "Now add {b}.")
        )
    else:
        more = random.randint(0, min(start, 99))
        one = arithmetic.subtraction(start, more)
        text = random.choice(
            (
                "Subtract {b} from that.",
                "And minus {b}?",
                "Minus {b}?",
                "And {b} less?",
                "Now subtract {b}.",
            )
        )
    text = text.format(b=more)
    return first, question.plain(FOLLOW_UP, text, f"{one.text}.", one)


def size_follow_up(random: Random) -> tuple[Question, Question]:
    first = questions.ask(random, "model size")
    # The answer begins with the count of parameters.
    billions = int(first.answer.split()[0])
    bits = random.choice((4, 8, 16))
    text = random.choice(
        (
            "And in {b} bits?",
            "And at {b} bits?",
            "What about {b} bits?",
            "How big is it in {b} bits?",
        )
    ).format(b=bits)
    answer, one = clusters.size_answer(billions, bits)
    return first, question.plain(FOLLOW_UP, text, answer, one)


def speed_follow_up(random: Random) -> tuple[Question, Question]:
    first = questions.ask(random, "decode speed")
    gigabytes = first.sums[-1].key[2]
    bandwidth = gigabytes * random.randint(1, 9 if gigabytes >= 10 else 99)
    text = random.choice(
        (
            "And with {w} GB/s?",
            "And at {w} GB/s?",
            "What about {w} GB/s?",
            "How fast is it with {w} GB/s?",
        )
    ).format(w=bandwidth)
    answer, one = clusters.speed_answer(gigabytes, bandwidth)
    return first, question.plain(FOLLOW_UP, text, answer, one)


def share_follow_up(random: Random) -> tuple[Question, Question]:
    while True:
        first = questions.ask(random, "node share")
        gigabytes = first.sums[-1].key[1]
        choices = [
            count
            for count in clusters.COUNTS
            if gigabytes % count == 0 and arithmetic.can_divide(gigabytes, count)
        ]
        if choices:
            break
    nodes = random.choice(choices)
    text = random.choice(
        (
            "And over {n} nodes?",
            "And with {n} machines?",
            "What about {n} nodes?",
            "And on {n} nodes?",
        )
    ).format(n=clusters.count_word(random, nodes))
    answer, one = clusters.share_answer(gigabytes, nodes)
    return first, question.plain(FOLLOW_UP, text, answer, one)


def follow_up(random: Random, held_out: bool = False) -> tuple[Question, Question]:
    """Two turns of which the second needs the first; the first never is held out."""
    while True:
        make = random.choice(
            (sum_follow_up, sum_follow_up, size_follow_up, speed_follow_up, share_follow_up)
        )
        first, second = make(random)
        if second.held_out == held_out:
            return first, second


def turns(random: Random, kind: str, held_out: bool = False) -> tuple[Question, ...]:
    """One question with whatever has to come before it."""
    if kind == FOLLOW_UP:
        return follow_up(random, held_out)
    return (questions.ask(random, kind, held_out),)


def conversation(random: Random, length: int, lesson: Lesson) -> list[tuple[str, str]]:
    """At least `length` turns of (question, answer) for training."""
    chat: list[tuple[str, str]] = []
    while len(chat) < length:
        chat.extend((respell(random, one.text), lesson.answer(one)) for one in lesson.draw(random))
    return chat


def chat_length(random: Random) -> int:
    """Most chats are short; some are long, so that a history does not confuse the model."""
    draw = random.random()
    if draw < 0.85:
        return 1
    return random.randint(2, 4) if draw < 0.97 else random.randint(5, 12)
