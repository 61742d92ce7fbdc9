"""What rounding on the wire does to answers: KL divergence from exact exchange, and changed tokens.

The nodes are threads of this process: speed plays no part. Every position of every text is
predicted from the true tokens before it (teacher forcing), once with exact exchange and once with
each other wire format.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import widen
from bandweave.executors.executor import PAGE_SIZE, Step
from bandweave.executors.native import ExecutorOptions, NativeExecutor
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from bandweave.weights.loading import load_weights
from benchmarks.contestant import ROOT
from benchmarks.models import Scale, Store
from benchmarks.result import Point, Result, Series
from benchmarks.rounds import say
from benchmarks.statistics import Estimate

SPLITS: Mapping[str, tuple[int, int]] = {  # nodes and stages
    "2 nodes": (2, 1),
    "3 nodes": (3, 1),
    "4 nodes": (4, 1),
    "2 stages": (2, 2),
    "2 stages of 2": (4, 2),
}
FORMATS = ("bf16", "q8")
_RANDOM_TEXTS, _RANDOM_TOKENS, _SEED = 6, 100, 5
_RESAMPLES = 2000

Logits = npt.NDArray[np.float32]
Texts = Sequence[Sequence[int]]


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
        texts = _questions(folder)
        notes.append(_measure("the demo model", folder, texts, series))
    model = scale.sizes[0]
    with Folder.open(store.folder(model)) as folder:
        generator = np.random.default_rng(_SEED)
        size = (_RANDOM_TEXTS, _RANDOM_TOKENS)
        texts = generator.integers(0, folder.spec.vocab_size, size).tolist()
        notes.append(_measure(f"{model.name} with random weights", folder, texts, series))
    return Result(experiment="wire", title="Rounding on the wire", series=series, notes=notes)


def _measure(name: str, folder: Folder, texts: Texts, series: list[Series]) -> str:
    """Appends the model's two series; returns a sentence on what to compare them with."""
    say(f"wire: {name}, {sum(map(len, texts))} tokens")
    exact = _logits(folder, texts, 1, 1, "exact", "q4")
    divergence: list[Point] = []
    changes: list[Point] = []
    for split, (nodes, stages) in SPLITS.items():
        for wire in FORMATS:
            say(f"wire: {name}, {split}, {wire}")
            rounded = _logits(folder, texts, nodes, stages, wire, "q4")
            found = _compare(exact, rounded)
            divergence.append(Point(name=wire, x=split, estimate=_mean(found[0])))
            changes.append(Point(name=wire, x=split, estimate=_mean(found[1])))
    for title, unit, points in (
        ("KL divergence", "nats", divergence),
        ("another likeliest token", "%", changes),
    ):
        series.append(
            Series(title=f"{title}, {name}", axis=name, unit=f"{title}, {unit}", points=(*points,))
        )
    plain = _logits(folder, texts, 1, 1, "exact", "bf16")
    found = tuple(map(_mean, _compare(plain, exact)))
    return (
        f"For comparison, q4 weights against bf16 ones, {name}: {found[0].median:.2g} nats, "
        f"{found[1].median:.2g}% other likeliest tokens."
    )


def _compare(
    expected: Sequence[Logits], found: Sequence[Logits]
) -> tuple[list[float], list[float]]:
    """By text: the mean KL divergence (nats), and the share of other best tokens (%)."""
    divergences, changes = [], []
    for a, b in zip(expected, found, strict=True):
        log_p, log_q = _log_softmax(a), _log_softmax(b)
        divergences.append(float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()))
        changes.append(100.0 * float((a.argmax(axis=1) != b.argmax(axis=1)).mean()))
    return divergences, changes


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def _mean(values: Sequence[float]) -> Estimate:
    """The mean over texts with its interval; they are of about the same length."""
    generator = np.random.default_rng(_SEED)
    array = np.array(values)
    means = array[generator.integers(0, len(array), (_RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(median=float(array.mean()), low=float(low), high=float(high), count=len(values))


def _questions(folder: Folder) -> list[list[int]]:
    """The questions that were held out of the demo's training, with their answers, as chats."""
    tokenizer = Tokenizer.from_folder(folder.path, eos_token_ids=folder.eos_token_ids)
    template = ChatTemplate.from_folder(folder.path)
    content = json.loads((ROOT / "training" / "demo" / "heldout.json").read_text(encoding="utf-8"))
    return [
        tokenizer.encode(
            template.render(question["messages"]) + question["answer"], special_tokens=False
        )
        for question in content["questions"]
    ]


def _logits(
    folder: Folder, texts: Texts, nodes: int, stages: int, wire: str, weight_format: str
) -> list[Logits]:
    """``[tokens, vocab_size]`` of each text."""
    longest = max(map(len, texts))
    pages = -(-longest // PAGE_SIZE)
    with _nodes(folder, nodes, stages, wire, weight_format, pages, longest) as leader:
        return [leader.run(*_step(folder, text, pages)) for text in texts]


def _step(folder: Folder, text: Sequence[int], pages: int) -> tuple[Step, Logits]:
    tokens = np.array(text, np.int32)
    step = Step(
        tokens=tokens,
        slots=np.zeros(len(text), np.int32),
        positions=np.arange(len(text), dtype=np.int32),
        wants_logits=np.ones(len(text), np.bool_),
        page_tables=np.arange(pages, dtype=np.int32)[None],
    )
    rows = [
        widen(folder.read("embed_tokens", Range(start=int(token), stop=int(token) + 1)))
        for token in text
    ]
    return step, np.ascontiguousarray(np.concatenate(rows))


@contextmanager
def _nodes(
    folder: Folder, count: int, stages: int, wire: str, weight_format: str, pages: int, rows: int
) -> Iterator[NativeExecutor]:
    """Node 0 of a mesh of threads."""
    graph, split = build_graph(folder.spec), make_split(folder.spec, [1] * count, stages=stages)
    names = [f"node {node}" for node in range(count)]
    exchanges = [_native.Exchange(node, names, 1, 60.0, False) for node in range(count)]
    for high in range(count):
        for low in range(high):
            _native.join_locally(exchanges[low], exchanges[high])
    options = ExecutorOptions(
        num_pages=pages, max_pages=pages, max_rows=rows, spin=False, wire=wire
    )
    executors = []
    for node, exchange in enumerate(exchanges):
        program = lower(graph, split, node)
        weights = load_weights(program, folder, weight_format)
        linked = exchange if count > 1 else None
        executors.append(NativeExecutor(program, weights, options, linked))
    threads = [
        threading.Thread(target=_follow, args=(executor,), daemon=True)
        for executor in executors[1:]
    ]
    for thread in threads:
        thread.start()
    try:
        yield executors[0]
    finally:
        exchanges[0].leave()
        for thread in threads:
            thread.join()


def _follow(executor: NativeExecutor) -> None:
    while executor.follow() == "ran":
        pass
