"""What weight formats do to answers, and what they take: KL divergence from bf16 weights, changed
tokens, perplexity, the squares that are lost, and bits a weight.

One node; every position of every text is predicted from the true tokens before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import widen
from bandweave.formats.names import QUANTISED_FORMATS
from bandweave.formats.registry import get_format
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from benchmarks.forced_texts import (
    Logits,
    Texts,
    compare,
    log_softmax,
    logits_of,
    mean,
    questions,
    random_texts,
)
from benchmarks.models import Scale, Store
from benchmarks.result import Point, Result, Series
from benchmarks.rounds import say
from benchmarks.statistics import Estimate

_LOST_ROWS = 1 << 14  # of a model's matrices, for the squares that are lost


def run(store: Store, scale: Scale) -> Result:
    """The demo model on held-out questions with their answers, and random weights on random
    tokens."""
    series: list[Series] = []
    with Folder.open(demo_folder()) as folder:
        series += _measure("the demo model", folder, questions(folder))
    model = scale.sizes[0]
    with Folder.open(store.folder(model)) as folder:
        texts = random_texts(folder.spec.vocab_size)
        series += _measure(f"{model.name} with random weights", folder, texts)
    notes = [
        "KL divergence of the distribution over next tokens from the one of bf16 weights, how "
        "often the likeliest token is another, and perplexity; means over all positions, with 95% "
        "bootstrap intervals over texts. Lost: the squares of what quantising changes, relative "
        "to those of the weights. The demo model was trained to bear q4."
    ]
    return Result(experiment="formats", title="Weight formats", series=series, notes=notes)


def _measure(name: str, folder: Folder, texts: Texts) -> list[Series]:
    say(f"formats: {name}, {sum(map(len, texts))} tokens")
    plain = logits_of(folder, texts, 1, 1, "exact", "bf16")
    points: dict[str, list[Point]] = {
        "KL divergence, nats": [],
        "another likeliest token, %": [],
        "perplexity": [Point(name="bf16", x="bf16", estimate=_perplexity(texts, plain))],
        "lost, %": [],
        "size, bits a weight": [],
    }
    for form in QUANTISED_FORMATS:
        say(f"formats: {name}, {form}")
        found = logits_of(folder, texts, 1, 1, "exact", form)
        divergences, changes = compare(plain, found)
        bits = 8 * float(get_format(form).bytes_per_weight)
        estimates = (
            mean(divergences),
            mean(changes),
            _perplexity(texts, found),
            _exact(100 * _lost(folder, form)),
            _exact(bits),
        )
        for values, estimate in zip(points.values(), estimates, strict=True):
            values.append(Point(name=form, x=form, estimate=estimate))
    return [
        Series(title=f"{unit.split(',')[0]}, {name}", axis=name, unit=unit, points=(*values,))
        for unit, values in points.items()
    ]


def _perplexity(texts: Texts, logits: Sequence[Logits]) -> Estimate:
    """Over all positions but each text's first; the interval is over texts."""
    losses = [
        -float(log_softmax(rows)[np.arange(len(text) - 1), np.array(text[1:])].mean())
        for text, rows in zip(texts, (rows[:-1] for rows in logits), strict=True)
    ]
    found = mean(losses)
    return Estimate(
        median=float(np.exp(found.median)),
        low=float(np.exp(found.low)),
        high=float(np.exp(found.high)),
        count=found.count,
    )


def _lost(folder: Folder, form: str) -> float:
    """Relative to the squares of the weights, over the first rows of the model's matrices."""
    program = lower(build_graph(folder.spec), make_split(folder.spec, (1,), stages=1), 0)
    lost = total = 0.0
    rows = 0
    for weight in program.weights.values():
        for part in weight.parts:
            w_NK = np.ascontiguousarray(widen(folder.read(part.tensor, part.rows)))
            near_NK = get_format(form).dequantise(get_format(form).quantise(w_NK, weight.unit))
            lost += float(((w_NK.astype(np.float64) - near_NK) ** 2).sum())
            total += float((w_NK.astype(np.float64) ** 2).sum())
            rows += len(w_NK)
        if rows >= _LOST_ROWS:
            break
    return lost / total


def _exact(value: float) -> Estimate:
    return Estimate(median=value, low=value, high=value, count=1)
