"""How decoding speed changes: with the context, with rows a step, with the model's size.

Knows what is varied and who is compared; two threads, q4, beside llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import contestant
from benchmarks.contestant import Contestant
from benchmarks.models import Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Point, Result, Series
from benchmarks.rounds import Entry, Rounds, measure, run_rounds, started
from benchmarks.statistics import estimate

_THREADS = 2
_DECODE, _PREFILL = "decode_tokens_per_s", "prefill_tokens_per_s"
_SHORT_PROMPT = 4  # so that 64 of them are one step, and all answers run side by side
_BRIEF = 16  # tokens of an answer at a given context


def context(store: Store, scale: Scale) -> Result:
    """Decoding speed by tokens in the context, and how fast the prompt up to there was."""
    longest = scale.contexts[-1] + _BRIEF
    entrants = _entrants(store, scale, context=longest)
    points: list[Point] = []
    rounds = []
    with started(entrants) as running:
        for length in scale.contexts:
            # Prompts of one seed continue each other: every token is computed once.
            work = Work(prompt_tokens=length, new_tokens=_BRIEF, keep=True)
            entries = [Entry(contestant=one, work=work) for one in entrants]
            measured = measure(running, entries, _few(scale), f"context {length}")
            points += _points(measured, length)
            rounds.append(measured.to_json())
    series = Series(
        title="Decoding speed by context",
        axis="tokens in the context",
        unit="tokens/s",
        points=tuple(points),
    )
    return Result(
        experiment="context",
        title=f"Context, {scale.model.name}, q4, 2 threads",
        series=(series,),
        rounds=rounds,
    )


def rows(store: Store, scale: Scale) -> Result:
    """Speed of all answers together by how many run at once."""
    most = scale.streams[-1]
    context = _SHORT_PROMPT + scale.new_tokens // 2
    entrants = _entrants(store, scale, context=context, streams=most)
    points: list[Point] = []
    rounds = []
    with started(entrants) as running:
        for streams in scale.streams:
            work = Work(
                prompt_tokens=_SHORT_PROMPT, new_tokens=scale.new_tokens // 2, streams=streams
            )
            entries = [Entry(contestant=one, work=work) for one in entrants]
            measured = measure(running, entries, _few(scale), f"{streams} rows a step")
            points += _points(measured, streams)
            rounds.append(measured.to_json())
    series = Series(
        title="Decoding speed of all answers together",
        axis="rows a step",
        unit="tokens/s",
        points=tuple(points),
    )
    return Result(
        experiment="rows",
        title=f"Rows a step, {scale.model.name}, q4, 2 threads",
        series=(series,),
        rounds=rounds,
    )


def size(store: Store, scale: Scale) -> Result:
    """Speed by the size of the model, alone and on two linked nodes."""
    work = Work(prompt_tokens=scale.prompt_tokens, new_tokens=scale.new_tokens // 2, keep=True)
    points: list[Point] = []
    rounds = []
    for model in scale.sizes:
        folder, gguf = store.folder(model), store.gguf(model, "q4")
        entrants = [
            contestant.bandweave(folder, context=work.context, threads=_THREADS),
            contestant.llama_cpp(gguf, context=work.context, threads=_THREADS),
            contestant.bandweave(folder, context=work.context, nodes=2),
        ]
        entries = [Entry(contestant=one, work=work) for one in entrants]
        measured = run_rounds(entries, _few(scale), title=model.name)
        points += _points(measured, model.name)
        rounds.append(measured.to_json())
    series = Series(
        title="Decoding speed by model", axis="model", unit="tokens/s", points=tuple(points)
    )
    return Result(experiment="size", title="Model size, q4", series=(series,), rounds=rounds)


def _entrants(
    store: Store, scale: Scale, *, context: int, streams: int = 1
) -> Sequence[Contestant]:
    folder, gguf = store.folder(scale.model), store.gguf(scale.model, "q4")
    return (
        contestant.bandweave(folder, context=context, threads=_THREADS, streams=streams),
        contestant.llama_cpp(gguf, context=context, threads=_THREADS, streams=streams),
    )


def _few(scale: Scale) -> int:
    return max(2, scale.rounds // 3)


def _points(measured: Rounds, x: float | str) -> list[Point]:
    return [
        Point(name=entry.name, x=x, estimate=estimate(measured.values(entry.name, _DECODE)))
        for entry in measured.entries
    ]
