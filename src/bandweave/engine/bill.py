"""Bill: what a token of decoding cost on every node, from the nodes' own accounts.

Pure functions over two looks at them. Knows no model and no command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.engine.engine import NodeStatistics
from bandweave.generation.request import Timing
from bandweave.messages import EngineState
from bandweave.planning.profile.bill import ITEMS, bill_the_link
from bandweave.programs.split import Split

_COUNTERS = {
    "activations": "activation_bytes",
    "logits": "logit_bytes",
    "control": "control_bytes",
    "weights": "weight_wire_bytes",
    "kv": "kv_wire_bytes",
}
_LOGIT_BYTES, _CANDIDATE_BYTES = 4, 8


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What one token of decoding cost. ``seconds``: by node, by item and ``"wall"``, from one token
    to the next, with an item ``"drafting"`` only where tokens were drafted; ``wire_bytes``: by
    kind, over all nodes, as a run without a digest moves them; ``digest_bytes``: what came on top
    for that; ``weight_bytes``: read, by node; ``exchanges`` with other nodes and
    ``barriers`` of threads, by node; ``sealing``: seconds of the other items that encryption of the
    links took, by node."""

    names: tuple[str, ...]
    seconds: tuple[dict[str, float], ...]
    wire_bytes: dict[str, float]
    digest_bytes: float
    weight_bytes: tuple[float, ...]
    peak_rss_bytes: tuple[int, ...]
    exchanges: tuple[float, ...]
    barriers: tuple[float, ...]
    sealing: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        nodes = [
            {"name": name, **seconds, **({"sealing": sealing} if sealing else {})}
            for name, seconds, sealing in zip(self.names, self.seconds, self.sealing, strict=True)
        ]
        return {**self.seconds[0], "nodes": nodes}


def make_bill(
    split: Split,
    before: Sequence[NodeStatistics],
    after: Sequence[NodeStatistics],
    timings: Sequence[Timing],
    *,
    logits_for_digest: bool = False,
) -> Bill:
    """The bill of the answers between two looks at the nodes' accounts. ``logits_for_digest``:
    nothing but the digest asked for logits, which else would not have crossed.

    The wall time of a token is node 0's, from one token to the next. Every item is measured on its
    own: by the nodes' executors inside a step and, on other nodes than 0, from one step to the
    next; by node 0's generator around it. On node 0 they add up to the wall time. Another node is
    done with the prompt, and with the last token, a little before node 0 is: its wait is cut, or
    goes on, to where node 0's decoding begins and ends. What all nodes wait for is the wire
    (``bill_the_link``). Answers that were computed together are billed as one stream each: per step
    that they shared.
    """
    tokens = max(1, sum(timing.decode_tokens for timing in timings))
    total = {
        name: sum(getattr(timing, name) for timing in timings) / tokens
        for name in ("decode", "computing", "sampling", "drafting", "between")
    }
    # A step gives one token of each stream, or several where drafts were right.
    steps_a_token = sum(timing.decode_steps for timing in timings) / tokens
    seconds = []
    wire: dict[str, float] = dict.fromkeys(_COUNTERS, 0.0)
    weight_bytes, exchanges, barriers, sealing = [], [], [], []
    for node, (old, new) in enumerate(zip(before, after, strict=True)):
        spent = {key: value - old.decode[key] for key, value in new.decode.items()}
        share = steps_a_token / max(1.0, spent["steps"])  # from all steps to a token
        items = {item: spent.get(item, 0.0) * share for item in ITEMS}
        if node == 0:
            items["sampling"] = total["sampling"]
            call = max(0.0, total["computing"] - spent["wall"] * share)
            items["other"] += total["between"] + call
            if total["drafting"]:
                items["drafting"] = total["drafting"]
        else:
            edges = total["decode"] - sum(items.values())
            items["exchange_wait"] = max(0.0, items["exchange_wait"] + edges)
        seconds.append({**items, "wall": total["decode"]})
        weight_bytes.append(spent["weight_bytes"] * share)
        exchanges.append(spent["exchanges"] * share)
        barriers.append(spent["barriers"] * share)
        sealing.append(spent.get("sealing", 0.0) * share)
        for kind, counter in _COUNTERS.items():
            wire[kind] += spent[counter] * share
    digest = 0.0
    if logits_for_digest:
        rows = sum(timing.decode_steps + timing.drafted_tokens for timing in timings) / tokens
        digest = min(wire["logits"], rows * _logits_beyond_candidates(split))
        wire["logits"] -= digest
    return Bill(
        names=tuple(one.name for one in after),
        seconds=bill_the_link(seconds, split.stages),
        wire_bytes=wire,
        digest_bytes=digest,
        weight_bytes=tuple(weight_bytes),
        peak_rss_bytes=tuple(one.peak_rss_bytes for one in after),
        exchanges=tuple(exchanges),
        barriers=tuple(barriers),
        sealing=tuple(sealing),
    )


def same_nodes(before: Sequence[NodeStatistics], after: Sequence[NodeStatistics]) -> bool:
    """Whether two looks are at the same nodes, which have counted on: none has failed between
    them, and none has joined."""
    return [one.name for one in before] == [one.name for one in after] and all(
        new.decode["steps"] >= old.decode["steps"] for old, new in zip(before, after, strict=True)
    )


def _logits_beyond_candidates(split: Split) -> int:
    """Bytes that a row's logits take beyond its best tokens, on their way to node 0."""
    sizes = [len(share.vocabulary) for share in split.shares[1:] if len(share.vocabulary)]
    return sum(_LOGIT_BYTES * size - _CANDIDATE_BYTES for size in sizes)


@dataclass(frozen=True, kw_only=True)
class StepBill:
    """What a step of decoding cost between two looks at an engine that goes on. ``seconds``: by
    node, by item and ``"wall"``, from the step's start on node 0 to the choice of its tokens;
    ``rows``: answers that a step carried on, on average; ``steps``: of how many this is the
    mean; ``wire_bytes`` and ``weight_bytes`` of a step, the latter by node."""

    names: tuple[str, ...]
    seconds: tuple[dict[str, float], ...]
    rows: float
    steps: int
    wire_bytes: dict[str, float]
    weight_bytes: tuple[float, ...]


def make_step_bill(
    split: Split,
    before: Sequence[NodeStatistics],
    after: Sequence[NodeStatistics],
    old_state: EngineState,
    new_state: EngineState,
) -> StepBill | None:
    """None where no step of decoding lies between the looks.

    As ``make_bill``, but of answers that have not ended, so that their own timings are not known
    yet: what node 0 did beyond its executor's steps counts as the choice of tokens, which is nearly
    all of it, and what lies between two steps is not seen.
    """
    spent = [
        {key: value - old.decode[key] for key, value in new.decode.items()}
        for old, new in zip(before, after, strict=True)
    ]
    steps = round(spent[0]["steps"])
    if steps < 1:
        return None
    executed = sum(
        getattr(after[0], kind)["wall"] - getattr(before[0], kind)["wall"]
        for kind in ("prefill", "decode")
    )
    all_steps = max(1, new_state.steps - old_state.steps)
    choosing = max(0.0, new_state.seconds - old_state.seconds - executed) / all_steps
    wall = spent[0]["wall"] / steps + choosing
    seconds = []
    for node, one in enumerate(spent):
        items = {item: one.get(item, 0.0) / max(1.0, one["steps"]) for item in ITEMS}
        if node == 0:
            items["sampling"] = choosing
            items["other"] += max(0.0, wall - sum(items.values()))
        else:
            edges = wall - sum(items.values())
            items["exchange_wait"] = max(0.0, items["exchange_wait"] + edges)
        seconds.append({**items, "wall": wall})
    return StepBill(
        names=tuple(one.name for one in after),
        seconds=bill_the_link(seconds, split.stages),
        rows=spent[0]["rows"] / steps,
        steps=steps,
        wire_bytes={
            kind: sum(one[counter] for one in spent) / steps for kind, counter in _COUNTERS.items()
        },
        weight_bytes=tuple(one["weight_bytes"] / max(1.0, one["steps"]) for one in spent),
    )
