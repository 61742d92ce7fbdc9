"""Held-out questions written to JSON. Knows the file format, no network and no tokens.

    python samples.py --demo ../../src/bandweave/assets/demo/questions.json --all heldout.json

Tests can check an engine with these files alone, without PyTorch and without this folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from random import Random

import arithmetic
import chats
import clusters
from jsonfile import write_json
from question import LAST_NUMBER, Question, check, plain

NUMBER_RULE = (
    "Decode greedily. The number after the last '=' of the reply must equal `expected`; as a "
    "regular expression, group 1 of " + LAST_NUMBER.pattern + " on the stripped reply."
)


def chosen() -> list[Question]:
    """The questions a reader is shown first: held out, and pleasant to read."""
    speed_answer, speed = clusters.speed_answer(8, 384)
    share_answer, share = clusters.share_answer(128, 8)
    size_answer, size = clusters.size_answer(32, 4)
    total = arithmetic.addition(157, 355)
    left = arithmetic.subtraction(512, 128)
    times = arithmetic.multiplication(48, 8)
    minutes = arithmetic.multiplication(14, 60)
    joint = arithmetic.addition(819, 819)
    pair, fast = arithmetic.addition(264, 264), arithmetic.division(528, 6)
    return [
        plain("addition", "What is 157 + 355?", f"{total.text}.", total),
        plain("subtraction", "Subtract 128 from 512.", f"{left.text}.", left),
        plain("multiplication", "How much is 48 times 8?", f"{times.text}.", times),
        plain(
            "units",
            "How many minutes are in 14 hours?",
            f"14 hours: {minutes.text} minutes.",
            minutes,
        ),
        plain(
            "model size",
            "How many gigabytes do 32 billion parameters take in 4 bits?",
            size_answer,
            size,
        ),
        plain(
            "decode speed",
            "A model reads 8 GB per token and the memory gives 384 GB/s. "
            "How many tokens per second at most?",
            speed_answer,
            speed,
        ),
        plain(
            "joint bandwidth",
            "Two machines with 819 GB/s each: what bandwidth together?",
            f"Together: {joint.text} GB/s.",
            joint,
        ),
        plain(
            "node share",
            "A 128 GB model is spread over 8 nodes. How much does each hold?",
            share_answer,
            share,
        ),
        plain(
            "cluster speed",
            "How fast is a 6 GB model on two machines with 264 GB/s each?",
            f"Together: {pair.text} GB/s. Speed: {fast.text} tokens per second at most.",
            pair,
            fast,
        ),
    ]


def entry(turns: Sequence[Question]) -> dict[str, object]:
    """One question as messages that end with the user, and what has to come back."""
    messages: list[dict[str, str]] = []
    for earlier in turns[:-1]:
        messages.append({"role": "user", "content": earlier.text})
        messages.append({"role": "assistant", "content": earlier.answer})
    last = turns[-1]
    messages.append({"role": "user", "content": last.text})
    return {
        "kind": last.kind,
        "messages": messages,
        "expected": last.expected,
        "answer": last.answer,
    }


def many(count: int, seed: int) -> list[Sequence[Question]]:
    """Different held-out questions, the kinds in turn."""
    random = Random(f"{seed} samples")
    kinds = [kind for kind in chats.KINDS if kind != "facts"]
    found: dict[str, Sequence[Question]] = {}
    while len(found) < count:
        turns = chats.turns(random, kinds[len(found) % len(kinds)], held_out=True)
        found[" ".join(one.text for one in turns)] = turns
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write held-out questions as JSON.")
    parser.add_argument("--demo", type=Path, required=True, help="file for the shown questions")
    parser.add_argument("--all", type=Path, required=True, help="file for the long list")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    shown = chosen()
    for one in shown:
        if not one.held_out or not check(one, one.answer):
            raise SystemExit(f"not held out, or not consistent: {one.text}")
    write_json(options.demo, {"check": NUMBER_RULE, "questions": [entry([one]) for one in shown]})
    write_json(
        options.all,
        {
            "check": NUMBER_RULE,
            "questions": [entry(turns) for turns in many(options.count, options.seed)],
        },
    )


if __name__ == "__main__":
    main()
