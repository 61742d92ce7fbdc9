"""Pictures of ``plan``: rooflines, tokens/s against machines, time a token; and sweeps.

Needs matplotlib, which is not among bandweave's own requirements.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandweave.cli.plan.answer import Columns
from bandweave.planning.costs.cost import decode_range
from bandweave.planning.costs.layer_cost import Items
from bandweave.planning.costs.software import software_title
from bandweave.planning.machines.rates import NodeRates
from bandweave.planning.search.columns import limit_setup
from bandweave.planning.search.explain import ITEMS, layout_phrase, plan_items
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import Plan, plans_on
from bandweave.planning.search.shortage import read_bytes

if TYPE_CHECKING:
    from bandweave.cli.plan.sweep import Series

_COLOURS = ("#3b6fb6", "#d9822b", "#4f9d69", "#8e6bb5", "#c0504d", "#7f7f7f", "#2aa1a1")
_MOST_BARS = 5


def draw_answer(columns: Columns, path: Path) -> None:
    """Three pictures beside each other."""
    figure, axes = _figure(path, 3)
    _roofline(axes[0], columns)
    _machines(axes[1], columns)
    _bars(axes[2], columns)
    question = columns.question
    figure.suptitle(
        f"{question.model.name}, {question.weights.name}, {columns.machines.title}: "
        f"with {software_title(columns.engine)}"
    )
    _save(figure, path)


def draw_sweep(what: str, question: Question, series: Sequence[Series], path: Path) -> None:
    """Tokens/s along a sweep with ranges; a line a setup, bandweave's own dashed."""
    figure, axes = _figure(path, 1)
    named = what in ("link", "format")
    labels = [point.label for point in series[0].points]
    for each, colour in zip(series, _COLOURS * 8, strict=False):
        found = [(labels.index(p.label) if named else p.value, p) for p in each.points if p.limit]
        spans = [
            decode_range(p.limit.best.deployment, p.limit.best.question.decoding)
            for _, p in found
            if p.limit is not None
        ]
        xs = [x for x, _ in found]
        axes[0].plot(xs, [span.likely for span in spans], "o-", color=colour, label=each.title)
        axes[0].fill_between(
            xs, [s.low for s in spans], [s.high for s in spans], color=colour, alpha=0.2
        )
        own = [(x, p.today.best.decode.tokens_per_s) for x, p in found if p.today is not None]
        if own:
            axes[0].plot(*zip(*own, strict=True), "s--", color=colour, alpha=0.7,
                         label=f"{each.title}, bandweave today")  # fmt: skip
    if named:
        axes[0].set_xticks(range(len(labels)), labels, rotation=60, ha="right")
    elif what != "nodes":
        axes[0].set_xscale("log", base=2)
    axes[0].set_ylim(bottom=0)
    axes[0].set_xlabel(what)
    axes[0].set_ylabel("tokens/s")
    axes[0].set_title(f"{question.model.name}, {question.weights.name}")
    axes[0].legend(fontsize=8)
    _save(figure, path)


def _roofline(axes: Any, columns: Columns) -> None:
    """FLOP/s that memory and arithmetic allow, by FLOPs a byte of weights; each kind of node."""
    question = columns.question
    name = question.weights.name
    intensities = [2.0 ** (power / 4) for power in range(-8, 57)]
    nodes: dict[str, NodeRates] = {node.name: node for node in columns.limit.setup.nodes}
    for (title, node), colour in zip(nodes.items(), _COLOURS * 8, strict=False):
        read, most = node.weight_rate(name, "likely"), node.compute_rate(name, 512, "likely")
        axes.plot(intensities, [min(read * x, most) for x in intensities], color=colour,
                  label=title)  # fmt: skip
        for rows, mark in ((1, "o"), (8, "s"), (64, "^")):
            flops = 2 * question.model.read_parameters * rows
            x = flops / read_bytes(question.model, question.weights, rows)
            axes.plot([x], [min(read * x, most)], mark, color=colour)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOPs a byte of weights")
    axes.set_ylabel("FLOP/s")
    axes.set_title("Rooflines: 1 (o), 8 (square), 64 (^) rows")
    axes.legend(fontsize=8)


def _machines(axes: Any, columns: Columns) -> None:
    machines = columns.machines
    most = max(8, len(machines.hardware))
    by_kind: dict[str, list[tuple[int, float]]] = {}
    for count in range(1, most + 1):
        setup = limit_setup(machines.times(count))
        for plan in plans_on(columns.question, setup, tuple(range(count))):
            if not plan.layout.whole_experts:
                by_kind.setdefault(plan.kind, []).append((count, plan.decode.tokens_per_s))
    one = by_kind.pop("one", [])
    for (kind, points), colour in zip(by_kind.items(), _COLOURS, strict=False):
        axes.plot(*zip(*one, *points, strict=True), "o-", color=colour, label=kind)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"machines ({machines.hardware[0].name}, {machines.links[0].name})")
    axes.set_ylabel("tokens/s")
    axes.set_title("Decoding by number of machines")
    if by_kind:
        axes.legend(fontsize=8)


def _bars(axes: Any, columns: Columns) -> None:
    plans: list[Plan] = list(columns.limit.plans[:_MOST_BARS])
    names = [textwrap.fill(layout_phrase(plan), 14) for plan in plans]
    bottom = [0.0] * len(plans)
    for field, colour in zip(fields(Items), _COLOURS, strict=True):
        heights = [getattr(plan_items(plan), field.name) * 1e3 for plan in plans]
        if any(heights):
            axes.bar(names, heights, bottom=bottom, color=colour, label=ITEMS[field.name][0])
            bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    axes.tick_params(axis="x", labelsize=7)
    axes.set_ylabel("ms")
    axes.set_title(f"Time by item ({columns.question.objective})")
    axes.legend(fontsize=8)


def _figure(path: Path, count: int) -> tuple[Any, Sequence[Any]]:
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ValueError(
            "charts need matplotlib: pip install 'bandweave[charts]'; without --chart the same "
            "figures come as a table"
        ) from error
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--chart {path}: the name must end in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise ValueError(f"--chart {path}: there is no folder {path.parent}")
    figure, axes = pyplot.subplots(1, count, figsize=(5.2 * count if count > 1 else 8, 4.6))
    return figure, [axes] if count == 1 else list(axes)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    from bandweave.cli import output

    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    output.say(f"drew {path}")
