"""Prediction: how fast an answer will come, from profiles; and the shares that make it fastest.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.models.graph import Graph
from bandweave.planning.profile.bill import Bill, bill_the_link
from bandweave.planning.profile.engine_cost import Links, predict_step
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.programs.split import Split, make_split
from bandweave.programs.work import PAGE, Step

_PARTS = 64  # shares are sought in 64ths of a node's
_STEPS = (16, 8, 4, 2, 1)  # parts that move at a time
_MOST_TRIALS = 32
_WORTH = 0.01  # unequal shares must gain so much over equal ones


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked: ``streams`` answers at once of ``new_tokens`` tokens to prompts of
    ``prompt_tokens``, of which ``reused_tokens`` are in the cache; ``max_rows`` rows of a step;
    ``logits``: every choice looks at all logits (sampling, digests)."""

    prompt_tokens: int
    new_tokens: int
    weight_format: str = "q4"
    kv_format: str = "f16"
    streams: int = 1
    max_rows: int = 256
    reused_tokens: int = 0
    logits: bool = False

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.new_tokens < 1 or self.streams < 1 or self.max_rows < 1:
            raise ValueError(
                f"{self.streams} answers of {self.new_tokens} tokens to {self.prompt_tokens} in "
                f"steps of {self.max_rows} rows are no load; each must be at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """``decode``: the bill of one step of decoding, at the middle of the answer; ``prefill``: the
    bills of the prompt's steps. With several stages such a step has one of several groups of the
    streams; ``period``: seconds from one token of a stream to its next."""

    load: Load
    decode: Bill
    period: float
    prefill: tuple[Bill, ...]
    read_bytes_per_s: float | None  # a plain read by all threads, where all are of one machine

    @property
    def decode_seconds_per_token(self) -> float:
        """Of one stream: the time from one of its tokens to its next."""
        return self.period

    @property
    def decode_tokens_per_s(self) -> float:
        """Of all streams together."""
        return self.load.streams / self.period

    @property
    def prefill_seconds(self) -> float:
        """Of one prompt alone."""
        return sum(bill.wall for bill in self.prefill)

    @property
    def prefill_tokens_per_s(self) -> float:
        return (self.load.prompt_tokens - self.load.reused_tokens) / self.prefill_seconds


def predict(
    graph: Graph, split: Split, nodes: Sequence[EngineNode], links: Links, load: Load
) -> Prediction:
    """What an answer will take. ``ValueError`` where the profiles lack the format."""

    def bill(step: Step) -> Bill:
        return predict_step(
            graph, split, nodes, links, step,
            weight_format=load.weight_format, kv_format=load.kv_format,
        )  # fmt: skip

    def linked(found: Bill) -> Bill:
        return replace(found, seconds=bill_the_link(found.seconds, split.stages))

    read = None
    if len({node.host for node in nodes}) == 1:
        read = nodes[0].machine.read_bytes_per_s(sum(node.threads for node in nodes))
    groups = min(len(split.stages), load.streams)
    decode = bill(decode_step(replace(load, streams=math.ceil(load.streams / groups))))
    return Prediction(
        load=load,
        decode=linked(decode),
        period=max(decode.wall, groups * max(decode.busy)),
        prefill=tuple(linked(bill(step)) for step in prompt_steps(load)),
        read_bytes_per_s=read,
    )


def decode_step(load: Load) -> Step:
    middle = load.prompt_tokens + load.new_tokens / 2
    return Step(
        rows=load.streams,
        keys=middle,
        logit_rows=load.streams,
        slots=load.streams,
        pages=math.ceil(middle / PAGE),
        logits=load.logits,
    )


def prompt_steps(load: Load) -> list[Step]:
    """The steps that read one prompt; the last row of the last asks for logits."""
    steps, start = [], min(load.reused_tokens, load.prompt_tokens - 1)
    while start < load.prompt_tokens:
        stop = min(start + load.max_rows, load.prompt_tokens)
        steps.append(
            Step(
                rows=stop - start,
                keys=start + (stop - start + 1) / 2,
                logit_rows=1 if stop == load.prompt_tokens else 0,
                pages=math.ceil(stop / PAGE),
                logits=load.logits,
            )
        )
        start = stop
    return steps


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Shares that were chosen, and what decoding gains over equal ones (1: nothing)."""

    shares: tuple[Fraction, ...]
    gain: float


def choose_shares(
    graph: Graph,
    nodes: Sequence[EngineNode],
    links: Links,
    load: Load,
    *,
    stages: int = 1,
) -> Choice:
    """The shares with the least predicted time a token: from what the nodes' memories give, parts
    move from the busiest node to the idlest, or from the slowest to the fastest, for as long as
    that helps. Equal shares where others gain next to nothing, and between machines of one kind
    where they gain no more than the probes' own spread. Takes some milliseconds."""
    step = decode_step(load)

    def bill(parts: Sequence[int]) -> Bill | None:
        try:
            split = make_split(graph.spec, parts, stages=stages)
        except ValueError:  # a node would own nothing
            return None
        return predict_step(
            graph, split, nodes, links, step,
            weight_format=load.weight_format, kv_format=load.kv_format,
        )  # fmt: skip

    count = len(nodes)
    equal = bill((1,) * count)
    if equal is None:
        raise ValueError(f"the model cannot be split over {count} nodes in equal shares")
    best, at_best = (_PARTS,) * count, equal
    start = _in_proportion([_speed(node, load) for node in nodes])
    trials = [start]
    for _ in range(_MOST_TRIALS if count > 1 else 0):
        if not trials:
            break
        found = bill(parts := trials.pop(0))
        if found is not None and found.wall < at_best.wall * (1 - 1e-6):
            best, at_best = parts, found
            trials = _moves(parts, found)
        elif parts == start:
            trials = _moves(best, at_best)
    if not at_best.wall * (1 + _worth(nodes, load)) < equal.wall:
        return Choice(shares=(Fraction(1),) * count, gain=1.0)
    common = math.gcd(*best)
    return Choice(
        shares=tuple(Fraction(part // common) for part in best), gain=equal.wall / at_best.wall
    )


def _worth(nodes: Sequence[EngineNode], load: Load) -> float:
    """What unequal shares must gain. Machines of one kind are as fast as each other: what their
    profiles say beyond their spread is noise of the day on which they were probed."""
    kinds = {(node.machine.processor, node.machine.isa, node.threads) for node in nodes}
    if len(kinds) > 1:
        return _WORTH
    return max(_WORTH, *(_spread(node, load) for node in nodes))


def _spread(node: EngineNode, load: Load) -> float:
    """Of the rounds of the products in this format: the one in the middle."""
    spreads = [one.spread for one in node.machine.products if one.format == load.weight_format]
    return sorted(spreads)[len(spreads) // 2] if spreads else 0.0


def _moves(parts: tuple[int, ...], bill: Bill) -> list[tuple[int, ...]]:
    """What to try next: large moves first."""
    busy = bill.busy
    each = [seconds / part for seconds, part in zip(busy, parts, strict=True)]
    found = []
    for step in _STEPS:
        for load in (busy, each):
            giver, taker = load.index(max(load)), load.index(min(load))
            if giver != taker and parts[giver] > step:
                moved = list(parts)
                moved[giver] -= step
                moved[taker] += step
                found.append(tuple(moved))
    return found


def _speed(node: EngineNode, load: Load) -> float:
    """Bytes of weights a second, while decoding."""
    rate = node.machine.seconds_per_byte(
        load.weight_format, on_grid=False, rows=load.streams, threads=node.threads
    )
    return 1 / rate


def _in_proportion(speeds: Sequence[float]) -> tuple[int, ...]:
    whole = sum(speeds)
    return tuple(max(1, round(_PARTS * len(speeds) * speed / whole)) for speed in speeds)
