"""Prefill: how fast a prompt is computed, against llama.cpp, with 1 and 2 threads."""

from __future__ import annotations

from benchmarks import contestant
from benchmarks.models import Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Result
from benchmarks.rounds import Entry, Rounds, run_rounds
from benchmarks.statistics import estimate, ratios

_SPEED = "prefill_tokens_per_s"
_MINIMUM = 1.5


def run(store: Store, scale: Scale) -> Result:
    figures: list[Figure] = []
    rounds = []
    work = Work(prompt_tokens=scale.prefill_tokens, new_tokens=2)
    folder, gguf = store.folder(scale.model), store.gguf(scale.model, "q4")
    for threads in (1, 2):
        ours = contestant.bandweave(folder, context=work.context, threads=threads)
        theirs = contestant.llama_cpp(gguf, context=work.context, threads=threads)
        entrants = [ours, theirs]
        if threads == 2:
            entrants.append(contestant.bandweave(folder, context=work.context, nodes=2))
            entrants.append(contestant.torch_bf16(folder, threads=threads))
        title = f"prefill of {work.prompt_tokens} tokens, q4, {threads} thread"

        def ratio(rounds: Rounds, names=(ours.name, theirs.name), title=title) -> Figure:  # noqa: B008
            speeds = [rounds.values(name, _SPEED) for name in names]
            return Figure(
                title=f"{title}{'s' * ('2 ' in title)}, over llama.cpp Q4_0",
                estimate=estimate(ratios(*speeds)),
                at_least=_MINIMUM,
            )

        measured = run_rounds(
            [Entry(contestant=one, work=work) for one in entrants],
            scale.rounds,
            title=title,
            settled=lambda rounds, ratio=ratio: ratio(rounds).settled,
        )
        figures.append(ratio(measured))
        figures += [
            Figure(title=one.name, estimate=estimate(measured.values(one.name, _SPEED)),
                   unit="tokens/s")
            for one in entrants
        ]  # fmt: skip
        rounds.append(measured.to_json())
    return Result(
        experiment="prefill",
        title=f"Prefill of {work.prompt_tokens} tokens, {scale.model.name}",
        figures=figures,
        rounds=rounds,
    )
