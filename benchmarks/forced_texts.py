"""Texts that a model reads with the true tokens before every position, and how two sets of its
predictions differ: KL divergence and other likeliest tokens.

The nodes are threads of this process: speed plays no part.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import widen
from bandweave.executors.executor import PAGE_SIZE, ExecutorOptions, Step
from bandweave.executors.native import NativeExecutor
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer
from bandweave.weights.loading import load_weights
from benchmarks.contestant import ROOT
from benchmarks.statistics import Estimate

_RANDOM_TEXTS, _RANDOM_TOKENS, _SEED = 6, 100, 5
_RESAMPLES = 2000

Logits = npt.NDArray[np.float32]
Texts = Sequence[Sequence[int]]


def random_texts(vocab_size: int) -> list[list[int]]:
    """The same random tokens every time."""
    generator = np.random.default_rng(_SEED)
    return generator.integers(0, vocab_size, (_RANDOM_TEXTS, _RANDOM_TOKENS)).tolist()


def compare(expected: Sequence[Logits], found: Sequence[Logits]) -> tuple[list[float], list[float]]:
    """By text: the mean KL divergence (nats), and the share of other best tokens (%)."""
    divergences, changes = [], []
    for a, b in zip(expected, found, strict=True):
        log_p, log_q = log_softmax(a), log_softmax(b)
        divergences.append(float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()))
        changes.append(100.0 * float((a.argmax(axis=1) != b.argmax(axis=1)).mean()))
    return divergences, changes


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def mean(values: Sequence[float]) -> Estimate:
    """The mean over texts with its interval; they are of about the same length."""
    generator = np.random.default_rng(_SEED)
    array = np.array(values)
    means = array[generator.integers(0, len(array), (_RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(median=float(array.mean()), low=float(low), high=float(high), count=len(values))


def questions(folder: Folder) -> list[list[int]]:
    """The questions that were held out of the demo's training, with their answers, as chats."""
    tokenizer = Tokenizer.from_folder(folder.path)
    template = ChatTemplate.from_folder(folder.path)
    content = json.loads((ROOT / "training" / "demo" / "heldout.json").read_text(encoding="utf-8"))
    return [
        tokenizer.encode(
            template.render(question["messages"]) + question["answer"], special_tokens=False
        )
        for question in content["questions"]
    ]


def logits_of(
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
