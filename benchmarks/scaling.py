"""How decoding speed changes: with the context, with rows per step, with the model's size.

Knows what is varied and who is compared; two threads, q4, beside llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import contestant
from benchmarks.contestant import Contestant
from benchmarks.models import Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Point, Result, Series
from benchmarks.rounds import Entry, Rounds, measure, run_rounds, started
from benchmarks.statistics import estimate

_THREADS = 2
_DECODE = "decode_tokens_per_s"
_SHORT_PROMPT = 4  # so that 64 of them are one step, and all answers run side by side
_BRIEF = 16  # tokens of an answer at a given context


def context(store: Store, scale: Scale) -> Result:
    """Decoding speed by tokens in the context, and how fast the prompt up to there was."""
    # Prompts of one seed continue each other: every token is computed once.
    works = {
        length: Work(prompt_tokens=length, new_tokens=_BRIEF, keep=True)
        for length in scale.contexts
    }
    return _vary(
        scale,
        _entrants(store, scale, context=scale.contexts[-1] + _BRIEF, both=True),
        works,
        experiment="context",
        subject="Context",
        title="Decoding speed by context",
        axis="tokens in the context",
    )


def rows(store: Store, scale: Scale) -> Result:
    """Speed of all answers together by how many run at once."""
    new_tokens = scale.new_tokens // 2
    works = {
        streams: Work(prompt_tokens=_SHORT_PROMPT, new_tokens=new_tokens, streams=streams)
        for streams in scale.streams
    }
    context = _SHORT_PROMPT + new_tokens
    return _vary(
        scale,
        _entrants(store, scale, context=context, streams=scale.streams[-1]),
        works,
        experiment="rows",
        subject="Rows per step",
        title="Decoding speed of all answers together",
        axis="rows per step",
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


def _vary(
    scale: Scale,
    entrants: Sequence[Contestant],
    works: Mapping[int, Work],
    *,
    experiment: str,
    subject: str,
    title: str,
    axis: str,
) -> Result:
    """All works in turn, by what varies, of contestants that stay loaded."""
    points: list[Point] = []
    rounds = []
    with started(entrants) as running:
        for x, work in works.items():
            entries = [Entry(contestant=one, work=work) for one in entrants]
            measured = measure(running, entries, _few(scale), f"{axis}: {x}")
            points += _points(measured, x)
            rounds.append(measured.to_json())
    return Result(
        experiment=experiment,
        title=f"{subject}, {scale.model.name}, q4, 2 threads",
        series=(Series(title=title, axis=axis, unit="tokens/s", points=tuple(points)),),
        rounds=rounds,
    )


def _entrants(
    store: Store, scale: Scale, *, context: int, streams: int = 1, both: bool = False
) -> Sequence[Contestant]:
    """``both``: llama.cpp also with flash attention off."""
    folder, gguf = store.folder(scale.model), store.gguf(scale.model, "q4")
    found = [contestant.bandweave(folder, context=context, threads=_THREADS, streams=streams)]
    for plain in (False, True) if both else (False,):
        found.append(
            contestant.llama_cpp(
                gguf, context=context, threads=_THREADS, streams=streams, plain_attention=plain
            )
        )
    return found


def _few(scale: Scale) -> int:
    return max(2, scale.rounds // 3)


def _points(measured: Rounds, x: float | str) -> list[Point]:
    return [
        Point(name=entry.name, x=x, estimate=estimate(measured.values(entry.name, _DECODE)))
        for entry in measured.entries
    ]
