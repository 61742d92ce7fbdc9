"""Prefill: how fast a prompt is computed, against llama.cpp, with 1 and 2 threads."""

from __future__ import annotations

from benchmarks import contestant
from benchmarks.contestant import Contestant
from benchmarks.models import Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Result
from benchmarks.rounds import Entry, Rounds, run_rounds
from benchmarks.statistics import estimate, ratios

_SPEED = "prefill_tokens_per_s"
_MINIMUM = 1.5


def run(store: Store, scale: Scale) -> Result:
    work = Work(prompt_tokens=scale.prefill_tokens, new_tokens=2)
    figures: list[Figure] = []
    rounds: list[Rounds] = []
    for threads in (1, 2):
        made, measured = _with_threads(store, scale, work, threads)
        figures += made
        rounds.append(measured)
    return Result(
        experiment="prefill",
        title=f"Prefill of {work.prompt_tokens} tokens, {scale.model.name}",
        figures=figures,
        rounds=[one.to_json() for one in rounds],
    )


def _with_threads(
    store: Store, scale: Scale, work: Work, threads: int
) -> tuple[list[Figure], Rounds]:
    folder, gguf = store.folder(scale.model), store.gguf(scale.model, "q4")
    ours = contestant.bandweave(folder, context=work.context, threads=threads)
    theirs = contestant.llama_cpp(gguf, context=work.context, threads=threads)
    entrants: list[Contestant] = [ours, theirs]
    if threads == 2:
        entrants.append(contestant.bandweave(folder, context=work.context, nodes=2))
        entrants.append(contestant.torch_bf16(folder, threads=threads))
    title = f"prefill q4, {work.prompt_tokens} tokens, {threads} thread{'s' * (threads > 1)}"

    def ratio(rounds: Rounds) -> Figure:
        speeds = [rounds.values(one.name, _SPEED) for one in (ours, theirs)]
        return Figure(
            title=f"{title}, over llama.cpp {theirs.format}",
            estimate=estimate(ratios(*speeds)),
            at_least=_MINIMUM,
        )

    measured = run_rounds(
        [Entry(contestant=one, work=work) for one in entrants],
        scale.rounds,
        title=title,
        settled=lambda rounds: ratio(rounds).settled,
    )
    speeds = [
        Figure(
            title=one.name, estimate=estimate(measured.values(one.name, _SPEED)), unit="tokens/s"
        )
        for one in entrants
    ]
    return [ratio(measured), *speeds], measured
