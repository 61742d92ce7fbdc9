"""Report: what the nodes hold, and what a token costs on each, as data and as tables.

Pure functions over the engine's own accounts. Knows no model and no command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bandweave import NUMERICS_VERSION
from bandweave.cli import output
from bandweave.engine.bill import Bill
from bandweave.generation.request import Timing
from bandweave.planning.profile.bill import ITEMS
from bandweave.planning.profile.prediction import Prediction

# --- the plan ---


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
    if any(bill.sealing):
        parts = (f"node {node} {_figure(one * scale)}" for node, one in enumerate(bill.sealing))
        text = f"encryption, within these items: {', '.join(parts)} {unit} a token"
        output.print_text(text, stderr=stderr)


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


def start_text(seconds: Mapping[str, float]) -> str:
    """Where the time of a start went: what it waited for, and what went on beside it."""
    waits = (
        ("open", "the model's headers"), ("nodes", "processes"), ("model", "copies found"),
        ("weights", "weights"), ("comparison", "copies compared"),
    )  # fmt: skip
    told = [f"{what} {output.seconds(seconds[part])}" for part, what in waits]
    beside = f"the tokenizer {output.seconds(seconds['texts'])}"
    return f"start: {', '.join(told[:3])},\n{', '.join(told[3:])}; beside them {beside}"


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
