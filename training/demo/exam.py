"""What a finished model is asked: every fact, and held-out questions of each kind.

Knows no model.
"""

from __future__ import annotations

from random import Random

import chats
from facts import FACTS
from question import Question
from refusals import OUT_OF_REACH, OUT_OF_REACH_QUESTIONS


def every_fact() -> list[tuple[Question, ...]]:
    """Each phrasing of each fact once; facts are learnt by heart, none is held out."""
    known = [(text, answer) for phrasings, answer in FACTS for text in phrasings]
    known += [(text, OUT_OF_REACH) for text in OUT_OF_REACH_QUESTIONS]
    return [(Question("facts", text, answer, answer),) for text, answer in known]


def held_out_chats(kind: str, count: int, seed: int) -> list[tuple[Question, ...]]:
    """Different held-out questions of a kind."""
    if kind == "facts":
        return every_fact()
    random = Random(f"{seed} evaluation {kind}")
    found: dict[str, tuple[Question, ...]] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        turns = chats.turns(random, kind, held_out=True)
        found[" ".join(one.text for one in turns)] = turns
    return list(found.values())
