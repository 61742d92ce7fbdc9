"""All kinds of question. Knows which kinds there are and what is held out, no tokens and files.

`ask` makes one random question of a kind; everything is a pure function of the random
generator that is handed in. How a reply is judged stands in `question`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import calculations
import clusters
from facts import FACTS
from question import Question
from refusals import OUT_OF_REACH, OUT_OF_REACH_QUESTIONS


def fact(random: Random) -> Question:
    if random.random() < 0.15:
        return Question("facts", random.choice(OUT_OF_REACH_QUESTIONS), OUT_OF_REACH, OUT_OF_REACH)
    phrasings, answer = random.choice(FACTS)
    return Question("facts", random.choice(phrasings), answer, answer)


KINDS: Mapping[str, Callable[[Random], Question]] = {
    "addition": calculations.add,
    "subtraction": calculations.subtract,
    "multiplication": calculations.multiply,
    "division": calculations.divide,
    "units": calculations.convert,
    "model size": clusters.model_size,
    "decode speed": clusters.decode_speed,
    "joint bandwidth": clusters.joint_bandwidth,
    "node share": clusters.node_share,
    "cluster speed": clusters.cluster_speed,
    "facts": fact,
}


def ask(random: Random, kind: str, held_out: bool = False) -> Question:
    """A random question of a kind, from the held-out or the training part.

    Facts have no numbers to hold out: they are there to be learnt by heart.
    """
    while True:
        question = KINDS[kind](random)
        if kind == "facts" or question.held_out == held_out:
            return question
