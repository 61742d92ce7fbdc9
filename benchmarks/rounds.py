"""Rounds: contestants in turns, A B B A, so that what changes slowly on a machine hits all alike.

A round asks every contestant twice, forwards and then backwards, and takes the mean of both
samples: a linear drift cancels. Ratios are taken inside rounds. All stay loaded for a few rounds
and are then started anew, because where a process's memory happens to lie is chance too.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contestant import Contestant, Running, Sample
from benchmarks.peers.protocol import Work

ROUNDS_OF_A_START = 4


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

    def values(self, name: str, read: str | Callable[[Sample], float]) -> list[float]:
        """A figure of each round: the mean over the round's samples."""
        get = (lambda sample: sample[read]) if isinstance(read, str) else read
        return [statistics.fmean(map(get, samples)) for samples in self.samples[name]]

    def to_json(self) -> dict[str, Any]:
        return {
            "contestants": [
                {
                    "name": entry.name,
                    "nodes": entry.contestant.nodes,
                    "threads": entry.contestant.threads,
                    "format": entry.contestant.format,
                    "model": entry.contestant.model,
                    "work": entry.work.to_json(),
                    "description": self.descriptions.get(entry.name),
                    "rounds": self.samples[entry.name],
                }
                for entry in self.entries
            ]
        }


def order(count: int) -> list[int]:
    """The contestants of one round: ``[0, 1, 1, 0]`` for two."""
    return [*range(count), *reversed(range(count))]


def run_rounds(
    entries: Sequence[Entry],
    rounds: int,
    *,
    title: str = "",
    start: Callable[[Contestant], Running] = Contestant.start,
) -> Rounds:
    """Asks everyone twice in each of ``rounds`` rounds, after one sample to warm up."""
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names), names
    samples: dict[str, list[list[Sample]]] = {name: [] for name in names}
    descriptions: dict[str, dict[str, Any]] = {}
    for first in range(0, rounds, ROUNDS_OF_A_START):
        with ExitStack() as stack:
            running = []
            for entry in entries:
                _say(f"{title}: loading {entry.name}")
                one = stack.enter_context(start(entry.contestant))
                one.sample(entry.work)
                descriptions[entry.name] = one.description
                running.append(one)
            for number in range(first, min(rounds, first + ROUNDS_OF_A_START)):
                _say(f"{title}: round {number + 1} of {rounds}")
                for name in names:
                    samples[name].append([])
                for index in order(len(entries)):
                    sample = running[index].sample(entries[index].work)
                    samples[names[index]][number].append(sample)
    return Rounds(entries=tuple(entries), samples=samples, descriptions=descriptions)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
