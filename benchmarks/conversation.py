"""Conversations of twenty turns over one server, by turns: what the prefix cache saves.

Two clients with long system prompts of their own ask alternately. The first token of a turn is
compared with that of a prompt which has the turn's new tokens alone. Knows what is compared; knows
no sockets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks import load, servers
from benchmarks.load import Ask
from benchmarks.models import Scale, Store
from benchmarks.result import Figure, Point, Result, Series
from benchmarks.rounds import say
from benchmarks.statistics import estimate

_TURNS, _SYSTEM, _NEW = 20, 3000, 48
_CLIENTS = 2
_KEPT, _CHANGED = "answers sent back", "answers changed"
_ANSWERS = {_KEPT: 1, _CHANGED: 16}  # the last token of an answer is never in the cache
_MOST = 1.2
_FRESH_SEED = 1_000_000
_NOTE = (
    f"{_CLIENTS} conversations take turns; each begins with {_SYSTEM} tokens of its own, and each "
    f"turn adds {_NEW}. Most clients send an answer back as it came, so that what the cache holds "
    "of it counts; some leave thoughts out or count spaces anew, and the next prompt parts ways "
    "with the cache where the answer began. What stays above 1 where answers are sent back is the "
    "attention to all that went before, which a prompt of the new tokens alone does not have."
)

Firsts = dict[str, list[list[float]]]  # seconds to the first token: by kind, turn


def run(store: Store, scale: Scale) -> Result:
    quick = scale.prefill_tokens < 512
    system = 300 if quick else _SYSTEM
    context = system + _TURNS * _NEW + 64
    vocab_size = store.vocab_size(scale.model)
    server = servers.bandweave(
        store.folder(scale.model), streams=_CLIENTS, context=context, threads=2
    )
    with servers.running(server) as port:

        def first(tokens: int, answer: int, seed: int, reuse: bool) -> float:
            ask = Ask(prompt_tokens=tokens, new_tokens=answer, seed=seed, reuse=reuse)
            return load.load(port, [ask], vocab_size)[0].first

        first(_NEW, 4, _FRESH_SEED, False)
        turns, alone = _rounds(first, system, 1 if quick else max(2, scale.rounds // 4))
    return Result(
        experiment="conversation",
        title=f"Conversations, {scale.model.name}",
        figures=_figures(turns, alone),
        series=(
            Series(
                title="Time to the first token by turn",
                axis="turn",
                unit="s",
                points=tuple(
                    Point(name=kind, x=turn + 1, estimate=estimate(found))
                    for kind, by_turn in turns.items()
                    for turn, found in enumerate(by_turn)
                    if turn  # the first reads all of the prompt
                ),
            ),
        ),
        notes=(_NOTE,),
        rounds=({"turns": turns, "alone": alone},),
    )


def _rounds(
    first: Callable[[int, int, int, bool], float], system: int, rounds: int
) -> tuple[Firsts, list[float]]:
    """Also the times of prompts of the new tokens alone, which are asked in between."""
    turns: Firsts = {kind: [[] for _ in range(_TURNS)] for kind in _ANSWERS}
    alone: list[float] = []
    seed = 0
    for number in range(rounds):
        for kind, answer in _ANSWERS.items():
            say(f"conversations, {kind}: round {number + 1} of {rounds}")
            seed += _CLIENTS
            for turn in range(_TURNS):
                for client in range(_CLIENTS):
                    tokens = system + turn * _NEW
                    turns[kind][turn].append(first(tokens, answer, seed + client, True))
                    alone.append(first(_NEW, 1, _FRESH_SEED + len(alone), False))
    return turns, alone


def _figures(turns: Firsts, alone: list[float]) -> list[Figure]:
    fresh = float(np.median(alone))
    later = {kind: [value for found in by_turn[1:] for value in found]
             for kind, by_turn in turns.items()}  # fmt: skip
    kept = float(np.median(later[_KEPT]))
    return [
        Figure(title=f"turns 2 to 20, {_KEPT}, over the new tokens alone",
               estimate=estimate([value / fresh for value in later[_KEPT]]), at_most=_MOST),
        Figure(title=f"turns 2 to 20, {_CHANGED}, over {_KEPT}",
               estimate=estimate([value / kept for value in later[_CHANGED]]), at_most=_MOST),
        Figure(title="turn 1, first token", unit="s", estimate=estimate(turns[_KEPT][0])),
        Figure(title="turns 2 to 20, first token", unit="s", estimate=estimate(later[_KEPT])),
        Figure(title="the new tokens alone, first token", unit="s", estimate=estimate(alone)),
    ]  # fmt: skip
