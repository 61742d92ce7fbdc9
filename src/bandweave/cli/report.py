"""Report: what the nodes hold, and what a token costs on each, as data and as tables.

Pure functions over the engine's own accounts. Knows no model and no command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave import NUMERICS_VERSION
from bandweave.cli import output
from bandweave.engine.engine import Engine, NodeStatistics
from bandweave.engine.options import EngineOptions
from bandweave.engine.request import Timing
from bandweave.planning.prediction import Prediction

ITEMS = ("weights", "attention", "exchange_wait", "wire", "sampling", "other")
_COUNTERS = {
    "activations": "activation_bytes",
    "logits": "logit_bytes",
    "control": "control_bytes",
    "weights": "weight_wire_bytes",
    "kv": "kv_wire_bytes",
}

# --- the plan ---


def plan_of(engine: Engine, options: EngineOptions) -> dict[str, Any]:
    """Who holds what; ranges are half-open pairs."""
    nodes = []
    for node in engine.nodes:
        share = node.share
        nodes.append(
            {
                "name": node.name,
                "stage": share.stage,
                **{
                    name: [getattr(share, name).start, getattr(share, name).stop]
                    for name in ("layers", "heads", "kv_heads", "columns", "vocabulary")
                },
                "weight_bytes": node.weight_bytes,
                "kv_bytes": node.kv_bytes,
                "work_bytes": node.work_bytes,
                "threads": node.threads,
                "isa": node.isa,
            }
        )
    return {
        "nodes": nodes,
        "stages": options.stages,
        "format": options.weight_format,
        "kv_format": options.kv_format,
        "context": engine.context,
    }


def print_plan(plan: Mapping[str, Any], *, stderr: bool = False) -> None:
    """The plan as a table of 80 columns, or a few more for very wide models."""
    staged = plan["stages"] > 1
    headings = ["node", *(["stage"] if staged else []), "layers", "heads", "KV heads", "columns",
                "vocabulary", "weights", "KV cache"]  # fmt: skip
    rows = []
    for number, node in enumerate(plan["nodes"]):
        ranges = [
            _range(node[name]) for name in ("layers", "heads", "kv_heads", "columns", "vocabulary")
        ]
        sizes = [output.size(node["weight_bytes"]), output.size(node["kv_bytes"])]
        rows.append([str(number), *([str(node["stage"])] if staged else []), *ranges, *sizes])
    output.print_table(headings, rows, stderr=stderr)
    for line in _below(plan):
        output.print_text(line, stderr=stderr)


def _range(pair: Sequence[int]) -> str:
    return f"{pair[0]}:{pair[1]}" if pair[0] < pair[1] else "-"


def _below(plan: Mapping[str, Any]) -> list[str]:
    nodes = plan["nodes"]
    kernels = sorted({node["isa"] for node in nodes})
    threads = sorted({node["threads"] for node in nodes})
    each = "threads" if threads != [1] else "thread"
    lines = [
        f"{plan['format']} weights, {plan['kv_format']} KV cache, context {plan['context']}, "
        f"{'-'.join(map(str, threads))} {each} a node, {' and '.join(kernels)} kernels"
    ]
    # "node 1 (10.0.0.2:9000)"; where a process of this machine runs is no news.
    return lines + [node["name"] for node in nodes if ":" in node["name"]]


# --- the bill ---


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What one token of decoding cost. ``seconds``: by node, by item and ``"wall"``, which is the
    sum of the items; ``wire_bytes``: by kind, over all nodes; ``weight_bytes``: read, by node."""

    names: tuple[str, ...]
    seconds: tuple[dict[str, float], ...]
    wire_bytes: dict[str, float]
    weight_bytes: tuple[float, ...]
    peak_rss_bytes: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        nodes = [
            {"name": name, **seconds}
            for name, seconds in zip(self.names, self.seconds, strict=True)
        ]
        return {**self.seconds[0], "nodes": nodes}


def make_bill(
    before: Sequence[NodeStatistics], after: Sequence[NodeStatistics], timings: Sequence[Timing]
) -> Bill:
    """The bill of the answers between two looks at the nodes' accounts.

    The wall time of a token is node 0's, from one token to the next. What its executor did not
    see is sampling and, under other, the way from a token to the next step; what another node's
    did not see is that node waiting for node 0 and so under exchange wait.
    """
    tokens = sum(timing.decode_tokens for timing in timings)
    wall = sum(timing.decode for timing in timings) / max(1, tokens)
    sampling = sum(timing.sampling for timing in timings) / max(1, tokens)
    seconds = []
    wire: dict[str, float] = dict.fromkeys(_COUNTERS, 0.0)
    weight_bytes = []
    for node, (old, new) in enumerate(zip(before, after, strict=True)):
        spent = {key: value - old.decode[key] for key, value in new.decode.items()}
        steps = max(1.0, spent["steps"])
        items = {item: spent[item] / steps if item in spent else 0.0 for item in ITEMS}
        if node == 0:
            items["sampling"] = sampling
        unseen = max(0.0, wall - sum(items.values()))
        items["other" if node == 0 else "exchange_wait"] += unseen
        seconds.append({**items, "wall": sum(items.values())})
        weight_bytes.append(spent["weight_bytes"] / steps)
        for kind, counter in _COUNTERS.items():
            wire[kind] += spent[counter] / steps
    return Bill(
        names=tuple(one.name for one in after),
        seconds=tuple(seconds),
        wire_bytes=wire,
        weight_bytes=tuple(weight_bytes),
        peak_rss_bytes=tuple(one.peak_rss_bytes for one in after),
    )


def print_bill(bill: Bill, predicted: Prediction | None = None, *, stderr: bool = False) -> None:
    """Time by node and item, node 0's also as predicted, then bytes on the wire by kind."""
    largest = max(items["wall"] for items in bill.seconds)
    unit, scale = ("ms", 1e3) if largest >= 0.01 else ("us", 1e6)
    headings = [f"{unit} a token", "weights", "attention", "exch.wait", "wire", "sampling",
                "other", "wall"]  # fmt: skip
    rows = [
        [f"node {node}", *(_figure(items[item] * scale) for item in (*ITEMS, "wall"))]
        for node, items in enumerate(bill.seconds)
    ]
    if predicted is not None:
        expected = predicted.decode.seconds[0]
        row = [_figure(expected[item] * scale) for item in (*ITEMS, "wall")]
        rows.insert(1, ["predicted", *row])
    output.print_table(headings, rows, stderr=stderr)
    paid = {kind: output.size(count) if count else "0" for kind, count in bill.wire_bytes.items()}
    crossed = ", ".join(f"{kind} {paid[kind]}" for kind in ("activations", "logits", "control"))
    rest = f"weights {paid['weights']}, KV {paid['kv']}"
    output.print_text(f"wire: {crossed} a token; {rest}", stderr=stderr)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"


# --- the rest ---


def timing_json(timing: Timing, load_seconds: float | None = None) -> dict[str, Any]:
    """Seconds and rates of one answer."""
    load = {} if load_seconds is None else {"load_seconds": load_seconds}
    return {
        **load,
        "prefill_seconds": timing.prefill,
        "decode_seconds": timing.decode,
        "sampling_seconds": timing.sampling,
        "prefill_tokens_per_s": timing.prefill_tokens_per_s,
        "decode_tokens_per_s": timing.decode_tokens_per_s,
        "prompt_tokens": timing.prompt_tokens,
        "reused_tokens": timing.reused_tokens,
        "decode_tokens": timing.decode_tokens,
    }


def versions() -> dict[str, Any]:
    """What every JSON object about an answer says of the program that gave it."""
    from bandweave import __version__

    return {"version": __version__, "numerics_version": NUMERICS_VERSION}
