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
from bandweave.generation.request import Timing
from bandweave.planning.profile.bill import bill_the_link
from bandweave.planning.profile.prediction import Prediction
from bandweave.programs.split import Split
from bandweave.ranges import Range

ITEMS = ("weights", "attention", "exchange_wait", "wire", "sampling", "other")
_COUNTERS = {
    "activations": "activation_bytes",
    "logits": "logit_bytes",
    "control": "control_bytes",
    "weights": "weight_wire_bytes",
    "kv": "kv_wire_bytes",
}

_LOGIT_BYTES, _CANDIDATE_BYTES = 4, 8

# --- the plan ---


def plan_of(engine: Engine, options: EngineOptions) -> dict[str, Any]:
    """Who holds what; ranges are half-open pairs. Heads and columns are those of the first layer,
    columns also of all MLPs by their width, in which dense ones and experts differ."""
    nodes = []
    for node in engine.nodes:
        share = node.share
        heads, kv_heads = share.heads_of(engine.spec.layers[0].attention)
        nodes.append(
            {
                "name": node.name,
                "stage": share.stage,
                "layers": _pair(share.layers),
                "heads": _pair(heads),
                "kv_heads": _pair(kv_heads),
                "columns": _pair(share.columns[0][1]),
                "columns_by_width": {str(width): _pair(own) for width, own in share.columns},
                "vocabulary": _pair(share.vocabulary),
                "weight_bytes": node.weight_bytes,
                "kv_bytes": node.kv_bytes,
                "work_bytes": node.work_bytes,
                "threads": node.threads,
                "isa": node.isa,
                "fetch_ahead_bytes": node.fetch_ahead_bytes,
            }
        )
    return {
        "nodes": nodes,
        "stages": options.stages,
        "format": options.run.weight_format,
        "kv_format": options.run.kv_format,
        "wire": options.run.wire,
        "emulated_link": None if options.emulate is None else vars(options.emulate),
        "exact": _exact(engine, options),
        "context": engine.context,
        "content": {
            **vars(engine.agreement),
            "manifest_bytes": sum(node.manifest_bytes for node in engine.nodes),
        },
    }


def _pair(own: Range) -> list[int]:
    return [own.start, own.stop]


def _exact(engine: Engine, options: EngineOptions) -> bool:
    """Whether the answer is that of one node: nothing that crosses is rounded."""
    return options.run.wire == "exact" or len(engine.nodes) == 1


def print_plan(plan: Mapping[str, Any], *, stderr: bool = False) -> None:
    """The plan as a table of 80 columns, or a few more for very wide models."""
    staged = plan["stages"] > 1
    headings = ["node", *(["stage"] if staged else []), "layers", "heads", "KV heads", "columns",
                "vocabulary", "weights", "KV cache"]  # fmt: skip
    rows = []
    for number, node in enumerate(plan["nodes"]):
        ranges = [
            *(_range(node[name]) for name in ("layers", "heads", "kv_heads")),
            " ".join(map(_range, node["columns_by_width"].values())),
            _range(node["vocabulary"]),
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
    if not plan["exact"]:
        lines.append(
            f"activations cross as {plan['wire']}: not exact, another split gives another answer"
        )
    if link := plan["emulated_link"]:
        lines.append(
            f"nodes of this machine, as if joined by {link['name']}: "
            f"{output.seconds(link['latency_seconds'])} and {link['bytes_per_s'] / 1e9:.3g} GB/s"
        )
    lines += _content(plan["content"])
    # "node 1 (10.0.0.2:9000)"; where a process of this machine runs is no news.
    return lines + [node["name"] for node in nodes if ":" in node["name"]]


def _content(content: Mapping[str, int]) -> list[str]:
    """How the nodes' copies were compared; nothing where all read the same files."""
    compared, alone = content["compared_bytes"], content["uncompared_bytes"]
    lines = []
    if compared or alone:
        other = f"; {output.size(alone)} with nothing, since nobody else has them" if alone else ""
        lines.append(f"copies: {output.size(compared)} of weights were compared{other}")
    if manifest := content["manifest_bytes"]:
        lines.append(f"copies: {output.size(manifest)} of weights are as the manifest says")
    return lines


# --- the bill ---


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What one token of decoding cost. ``seconds``: by node, by item and ``"wall"``, from one token
    to the next, with an item ``"drafting"`` only where tokens were drafted; ``wire_bytes``: by
    kind, over all nodes, as a run without a digest moves them; ``digest_bytes``: what came on top
    for that; ``weight_bytes``: read, by node; ``exchanges`` with other nodes and
    ``barriers`` of threads, by node."""

    names: tuple[str, ...]
    seconds: tuple[dict[str, float], ...]
    wire_bytes: dict[str, float]
    digest_bytes: float
    weight_bytes: tuple[float, ...]
    peak_rss_bytes: tuple[int, ...]
    exchanges: tuple[float, ...]
    barriers: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        nodes = [
            {"name": name, **seconds}
            for name, seconds in zip(self.names, self.seconds, strict=True)
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
    weight_bytes, exchanges, barriers = [], [], []
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
    )


def _logits_beyond_candidates(split: Split) -> int:
    """Bytes that a row's logits take beyond its best tokens, on their way to node 0."""
    sizes = [len(share.vocabulary) for share in split.shares[1:] if len(share.vocabulary)]
    return sum(_LOGIT_BYTES * size - _CANDIDATE_BYTES for size in sizes)


def print_bill(bill: Bill, predicted: Prediction | None = None, *, stderr: bool = False) -> None:
    """Time by node and item, node 0's also as predicted, then bytes on the wire by kind."""
    largest = max(items["wall"] for items in bill.seconds)
    unit, scale = ("ms", 1e3) if largest >= 0.01 else ("us", 1e6)
    drafting = ("drafting",) if "drafting" in bill.seconds[0] else ()
    names = (*ITEMS[:-1], *drafting, "other", "wall")
    headings = [f"{unit} a token", *("exch.wait" if name == "exchange_wait" else name
                                     for name in names)]  # fmt: skip
    rows = [
        [f"node {node}", *(_figure(items.get(name, 0.0) * scale) for name in names)]
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
    if bill.digest_bytes:
        rest += f"; and {output.size(bill.digest_bytes)} of logits for the digest alone"
    output.print_text(f"wire: {crossed} a token; {rest}", stderr=stderr)


def per_layer(bill: Bill, plan: Mapping[str, Any]) -> dict[str, list[float]]:
    """Exchanges and barriers of a token over the node's layers, by node; those before and after
    the layers are shared out among them."""
    layers = [max(1, node["layers"][1] - node["layers"][0]) for node in plan["nodes"]]
    return {
        "exchanges_per_layer": [n / of for n, of in zip(bill.exchanges, layers, strict=True)],
        "barriers_per_layer": [n / of for n, of in zip(bill.barriers, layers, strict=True)],
    }


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
        "drafting_seconds": timing.drafting,
        "prefill_tokens_per_s": timing.prefill_tokens_per_s,
        # One token comes with the prompt; a rate takes two.
        "decode_tokens_per_s": timing.decode_tokens_per_s if timing.decode_tokens else None,
        "prompt_tokens": timing.prompt_tokens,
        "reused_tokens": timing.reused_tokens,
        "decode_tokens": timing.decode_tokens,
        "decode_steps": timing.decode_steps,
        "drafted_tokens": timing.drafted_tokens,
        "accepted_tokens": timing.accepted_tokens,
    }


def drafts_text(timings: Sequence[Timing]) -> str:
    """``"12 of 20 drafted tokens right"``, or empty where none were drafted."""
    drafted = sum(timing.drafted_tokens for timing in timings)
    accepted = sum(timing.accepted_tokens for timing in timings)
    return f"{accepted} of {output.count(drafted, 'drafted token')} right" if drafted else ""


def versions() -> dict[str, Any]:
    """What every JSON object about an answer says of the program that gave it."""
    from bandweave import __version__

    return {"version": __version__, "numerics_version": NUMERICS_VERSION}
