"""How a peer is asked: one JSON object a line on standard input, one back on standard output.

Knows the messages; knows no engine. Only the standard library: it runs beside every engine.

A peer first says what it is (``{"ready": {...}}``). Then every request (``Work``) gets a sample:

=======================  =======================================================================
decode_tokens_per_s      of all streams together, from the first token to the last
prefill_tokens_per_s     of all streams together, from the start to the logits of the first token
bill                     where a token's time went, from engines that know it
=======================  =======================================================================
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one sample does: ``streams`` prompts of random tokens, each answered greedily.

    ``keep``: a prompt whose keys and values are still there is not computed again; its prefill
    speed then says nothing.
    """

    prompt_tokens: int
    new_tokens: int
    streams: int = 1
    keep: bool = False
    seed: int = 0

    @property
    def context(self) -> int:
        """Tokens of one stream when it has ended."""
        return self.prompt_tokens + self.new_tokens

    def prompts(self, vocab_size: int) -> list[list[int]]:
        """The token ids; a shorter prompt of the same seed is the start of a longer one."""
        prompts = []
        for stream in range(self.streams):
            generator = random.Random(self.seed * 1000 + stream)
            prompts.append([generator.randrange(vocab_size) for _ in range(self.prompt_tokens)])
        return prompts

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def pin(cpus: str) -> None:
    """Keeps the whole process on some processors, ``"0"`` or ``"0,1"``; empty: on all."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})


def serve(make: Callable[[], tuple[dict[str, Any], Callable[[Work], dict[str, Any]]]]) -> None:
    """Loads with ``make``, which returns a description and what measures; answers until the end.

    Standard output is kept for the messages: whatever else a library prints goes to standard
    error.
    """
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    description, measure = make()
    say({"ready": description})
    for line in sys.stdin:
        say(measure(Work(**json.loads(line))))
