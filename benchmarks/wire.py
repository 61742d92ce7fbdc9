"""What rounding on the wire does to answers: KL divergence from exact exchange, and changed tokens.

The nodes are threads of this process: speed plays no part. Every position of every text is
predicted from the true tokens before it (teacher forcing), once with exact exchange and once with
each other wire format.
"""

from __future__ import annotations

from collections.abc import Mapping

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from benchmarks.forced_texts import Texts, compare, logits_of, mean, questions, random_texts
from benchmarks.models import Scale, Store
from benchmarks.result import Point, Result, Series
from benchmarks.rounds import say

SPLITS: Mapping[str, tuple[int, int]] = {  # nodes and stages
    "2 nodes": (2, 1),
    "3 nodes": (3, 1),
    "4 nodes": (4, 1),
    "2 stages": (2, 2),
    "2 stages of 2": (4, 2),
}
FORMATS = ("bf16", "q8")


def run(store: Store, scale: Scale) -> Result:
    """The demo model on held-out questions with their answers, and random weights on random
    tokens."""
    series: list[Series] = []
    notes = [
        "KL divergence of the distribution over next tokens from the one of exact exchange, and "
        "how often the likeliest token is another; means over all positions, with 95% bootstrap "
        "intervals over texts. Weights are q4."
    ]
    with Folder.open(demo_folder()) as folder:
        texts = questions(folder)
        notes.append(_measure("the demo model", folder, texts, series))
    model = scale.sizes[0]
    with Folder.open(store.folder(model)) as folder:
        texts = random_texts(folder.spec.vocab_size)
        notes.append(_measure(f"{model.name} with random weights", folder, texts, series))
    return Result(experiment="wire", title="Rounding on the wire", series=series, notes=notes)


def _measure(name: str, folder: Folder, texts: Texts, series: list[Series]) -> str:
    """Appends the model's two series; returns a sentence on what to compare them with."""
    say(f"wire: {name}, {sum(map(len, texts))} tokens")
    exact = logits_of(folder, texts, 1, 1, "exact", "q4")
    divergence: list[Point] = []
    changes: list[Point] = []
    for split, (nodes, stages) in SPLITS.items():
        for wire in FORMATS:
            say(f"wire: {name}, {split}, {wire}")
            rounded = logits_of(folder, texts, nodes, stages, wire, "q4")
            found = compare(exact, rounded)
            divergence.append(Point(name=wire, x=split, estimate=mean(found[0])))
            changes.append(Point(name=wire, x=split, estimate=mean(found[1])))
    for title, unit, points in (
        ("KL divergence", "nats", divergence),
        ("another likeliest token", "%", changes),
    ):
        series.append(
            Series(title=f"{title}, {name}", axis=name, unit=f"{title}, {unit}", points=(*points,))
        )
    plain = logits_of(folder, texts, 1, 1, "exact", "bf16")
    found = tuple(map(mean, compare(plain, exact)))
    return (
        f"For comparison, q4 weights against bf16 ones, {name}: {found[0].median:.2g} nats, "
        f"{found[1].median:.2g}% other likeliest tokens."
    )
