"""Pictures of what fits, and of a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.pictures.bars import Bar, bars_height, draw_bars
from bandweave.cli.plan.pictures.figure import COLOURS, footer_text, panels, save
from bandweave.planning.costs.cost import Prediction
from bandweave.planning.simulation.scenario import Outcome, percentile


def draw_models(title: str, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """What fits: a bar a model, the largest first."""
    bars = []
    for row in rows:
        speed = row["decode_tokens_per_s"]
        span = Prediction(likely=speed["likely"], low=speed["low"], high=speed["high"])
        bars.append(Bar(label=f"{row['model']} ({row['format']})", span=span))
    with panels([bars_height(len(bars)) * 0.75], title=title) as (figure, axes):
        draw_bars(axes[0], bars, title="Decoding, one stream", unit="tokens/s")
        save(figure, path, footer_text(published=False))


def draw_outcome(title: str, outcome: Outcome, path: Path) -> None:
    """A simulation: how many of the waits are how long."""
    with panels([2.6, 2.6], title=title) as (figure, axes):
        _shares(axes[0], outcome.first_tokens_s, "From a request to its first token")
        _shares(axes[1], outcome.gaps_s, "Between two tokens of an answer")
        save(figure, path, footer_text(published=False))


def _shares(axes: Any, values: Sequence[float], title: str) -> None:
    axes.set_title(title)
    axes.set_ylabel("part of them")
    axes.set_ylim(0, 1.02)
    if not values:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
        return
    count = len(values)
    picked = range(0, count, max(1, count // 400))
    axes.plot([values[i] for i in picked] + [values[-1]],
              [(i + 1) / count for i in picked] + [1.0], color=COLOURS[0])  # fmt: skip
    for part in (0.5, 0.9, 0.99):
        value = percentile(values, part)
        axes.plot([value], [part], "o", color=COLOURS[0], markersize=4)
        axes.annotate(f"{part:.0%}: {output.seconds(value)}", (value, part),
                      textcoords="offset points", xytext=(6, -9), fontsize=8)  # fmt: skip
    if values[-1] > 20 * max(values[0], 1e-9):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_xlim(0, values[-1] * 1.12)
    axes.xaxis.set_major_formatter(lambda value, _: output.seconds(value) if value > 0 else "0")
