"""Mixtures of experts beside dense models that read as much, and beside llama.cpp.

A mixture is as fast as its memory allows if it reads the experts of a token as fast as a dense
model reads its matrices, and computes a prompt's products at the same rate. Knows which mixtures
are measured and beside which dense model; knows no engines.
"""

from __future__ import annotations

from collections.abc import Sequence

from bandweave.checkpoints.model_files import shape_from_path
from benchmarks import contestant
from benchmarks.contestant import Contestant, Sample
from benchmarks.models import Model, Pair, Scale, Store, pairs_of
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Result
from benchmarks.rounds import Entry, Rounds, run_rounds
from benchmarks.statistics import estimate, ratios

_DECODE, _PREFILL = "decode_tokens_per_s", "prefill_tokens_per_s"
_READS, _ARITHMETIC = 0.92, 0.7  # of the dense model's rates
_DECODE_OVER_LLAMA = {1: 1.3, 2: 1.0}
_PREFILL_OVER_LLAMA = 1.5
_NOTE = (
    "Each mixture stands beside a dense model that reads about as many bytes for a token. "
    '"Reads" compares bytes of weights a second of the whole token\'s time, and "arithmetic" '
    "multiplications of weights a second of a prompt. Experts of Q4_0 in llama.cpp have the "
    "integers and scales of bandweave's q4."
)


def run(store: Store, scale: Scale) -> Result:
    """Every pair, alone with 1 and 2 threads and on 2 linked nodes."""
    figures: list[Figure] = []
    rounds: list[Rounds] = []
    for pair in pairs_of(scale):
        for nodes, threads in ((1, 1), (1, 2), (2, 1)):
            for kind in (_DECODE, _PREFILL):
                made, measured = _compare(store, scale, pair, nodes, threads, kind)
                figures += made
                rounds.append(measured)
    return Result(
        experiment="mixtures",
        title="Mixtures of experts, q4",
        figures=figures,
        notes=(_NOTE,),
        rounds=[one.to_json() for one in rounds],
    )


def _compare(
    store: Store, scale: Scale, pair: Pair, nodes: int, threads: int, kind: str
) -> tuple[list[Figure], Rounds]:
    if kind == _DECODE:
        work = Work(prompt_tokens=scale.prompt_tokens, new_tokens=scale.new_tokens, keep=True)
    else:
        work = Work(prompt_tokens=scale.prefill_tokens, new_tokens=2)
    ours, dense = (
        _ours(store, model, work, nodes, threads) for model in (pair.mixture, pair.dense)
    )
    entrants = [ours, dense]
    peer = None
    if nodes == 1:
        gguf = store.gguf(pair.mixture, "q4")
        peer = contestant.llama_cpp(gguf, context=work.context, threads=threads)
        entrants.append(peer)

    def figures(rounds: Rounds) -> list[Figure]:
        title = f"{pair.mixture.name}, {'decode' if kind == _DECODE else 'prefill'}, " + (
            f"{nodes} nodes" if nodes > 1 else f"{threads} thread{'s' * (threads > 1)}"
        )
        rates = _reads(rounds, ours, dense) if kind == _DECODE else _products(
            store, rounds, (ours, pair.mixture), (dense, pair.dense)
        )  # fmt: skip
        found = [
            Figure(
                title=f"{title}, {'reads' if kind == _DECODE else 'arithmetic'} over dense",
                estimate=estimate(ratios(*rates)),
                at_least=_READS if kind == _DECODE else _ARITHMETIC,
            )
        ]
        if peer is not None:
            bound = _DECODE_OVER_LLAMA[threads] if kind == _DECODE else _PREFILL_OVER_LLAMA
            speeds = [rounds.values(one.name, kind) for one in (ours, peer)]
            found.append(
                Figure(
                    title=f"{title}, over llama.cpp {peer.format}",
                    estimate=estimate(ratios(*speeds)),
                    at_least=bound,
                )
            )
        return found

    measured = run_rounds(
        [Entry(contestant=one, work=work) for one in entrants],
        scale.rounds,
        title=f"{pair.mixture.name} {kind} {nodes} x {threads}",
        settled=lambda rounds: all(figure.settled for figure in figures(rounds)),
    )
    speeds = [
        Figure(title=one.name, estimate=estimate(measured.values(one.name, kind)), unit="tokens/s")
        for one in entrants
    ]
    return [*figures(measured), *speeds], measured


def _ours(store: Store, model: Model, work: Work, nodes: int, threads: int) -> Contestant:
    layout = f"{nodes} nodes" if nodes > 1 else f"{threads} thread{'s' * (threads > 1)}"
    return contestant.bandweave(
        store.folder(model),
        context=work.context,
        nodes=nodes,
        threads=threads,
        name=f"bandweave {model.name}, {layout}",
    )


def _reads(rounds: Rounds, *both: Contestant) -> list[list[float]]:
    """Bytes of weights a second of the whole time of tokens, of all nodes together."""

    def rate(sample: Sample) -> float:
        return sample[_DECODE] * sum(sample["weight_bytes_by_node"])

    return [rounds.values(one.name, rate) for one in both]


def _products(
    store: Store, rounds: Rounds, *both: tuple[Contestant, Model]
) -> Sequence[list[float]]:
    """Weights that are multiplied with rows of a prompt, a second."""
    found = []
    for one, model in both:
        shape = shape_from_path(store.folder(model))
        weights = sum(layer.active_parameters for layer in shape.layers)
        found.append([speed * weights for speed in rounds.values(one.name, _PREFILL)])
    return found
