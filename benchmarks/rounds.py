"""Rounds: contestants in turns, A B B A, so that what changes slowly on a machine hits all alike.

A round asks every contestant twice, forwards and then backwards, and takes the mean of both
samples: a linear drift cancels. Ratios are taken inside rounds. All stay loaded for a few rounds
and are then started anew, because where a process's memory happens to lie is chance too.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contestant import Contestant, Running, Sample
from benchmarks.peers.protocol import Work

ROUNDS_OF_A_START = 4

Started = Mapping[str, Running]
"""Loaded contestants, by name."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contestant and what it does in every round."""

    contestant: Contestant
    work: Work

    @property
    def name(self) -> str:
        return self.contestant.name


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What was measured: ``samples[name][round]`` are the two samples of that round."""

    entries: tuple[Entry, ...]
    samples: Mapping[str, list[list[Sample]]]
    descriptions: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.samples[self.entries[0].name])

    def values(self, name: str, read: str | Callable[[Sample], float]) -> list[float]:
        """A figure of each round: the mean over the round's samples."""

        def get(sample: Sample) -> float:
            return sample[read] if isinstance(read, str) else read(sample)

        return [statistics.fmean(map(get, samples)) for samples in self.samples[name]]

    def extended(self, other: Rounds) -> Rounds:
        """These rounds and then those of ``other``, of the same entries."""
        assert self.entries == other.entries
        samples = {name: [*self.samples[name], *other.samples[name]] for name in self.samples}
        return Rounds(entries=self.entries, samples=samples, descriptions=dict(other.descriptions))

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "name": entry.name,
                "model": entry.contestant.model,
                "format": entry.contestant.format,
                "nodes": entry.contestant.nodes,
                "threads": entry.contestant.threads,
                "work": entry.work.to_json(),
                "description": self.descriptions.get(entry.name),
                "rounds": self.samples[entry.name],
            }
            for entry in self.entries
        ]


def order(count: int) -> list[int]:
    """The contestants of one round: ``[0, 1, 1, 0]`` for two."""
    return [*range(count), *reversed(range(count))]


@contextlib.contextmanager
def started(
    contestants: Sequence[Contestant],
    start: Callable[[Contestant], Running] = Contestant.start,
) -> Iterator[Started]:
    """Loads contestants, one after the other, and ends them all."""
    with ExitStack() as stack:
        running = {}
        for contestant in contestants:
            say(f"loading {contestant.name}")
            running[contestant.name] = stack.enter_context(start(contestant))
        yield running


def measure(running: Started, entries: Sequence[Entry], rounds: int, title: str = "") -> Rounds:
    """Asks everyone twice in each of ``rounds`` rounds, after one sample to warm up."""
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names), names
    samples: dict[str, list[list[Sample]]] = {name: [] for name in names}
    for entry in entries:
        running[entry.name].sample(entry.work)
    for number in range(rounds):
        say(f"{title}: round {number + 1} of {rounds}")
        for name in names:
            samples[name].append([])
        for index in order(len(entries)):
            sample = running[names[index]].sample(entries[index].work)
            samples[names[index]][number].append(sample)
    descriptions = {name: running[name].description for name in names}
    return Rounds(entries=tuple(entries), samples=samples, descriptions=descriptions)


def run_rounds(
    entries: Sequence[Entry],
    rounds: int,
    *,
    title: str = "",
    settled: Callable[[Rounds], bool] = lambda rounds: True,
    most: int | None = None,
) -> Rounds:
    """At least ``rounds`` rounds with a start every few, and more of them, up to ``most`` (three
    times as many), until ``settled`` says that the intervals are narrow enough."""
    most = 3 * rounds if most is None else most
    result: Rounds | None = None
    while result is None or result.count < rounds or not (settled(result) or result.count >= most):
        done = 0 if result is None else result.count
        left = (rounds if done < rounds else most) - done
        with started([entry.contestant for entry in entries]) as running:
            part = measure(running, entries, min(left, ROUNDS_OF_A_START), title)
        result = part if result is None else result.extended(part)
    return result


def say(sentence: str) -> None:
    """Progress, on standard error."""
    print(sentence, file=sys.stderr, flush=True)
