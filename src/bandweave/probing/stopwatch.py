"""Stopwatch: times the steps of programs by the executor's own bill, several programs in turns.

Knows programs and executors; knows not what the times are for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bandweave import _native
from bandweave.executors.executor import PAGE_SIZE, ExecutorOptions, Step
from bandweave.executors.native import NativeExecutor
from bandweave.planning.profile.profile import median_and_spread
from bandweave.programs.program import Program
from bandweave.weights.packed import Weights

_MORE_LOOKS, _PAUSE_SECONDS = 2, 0.3
_CALM = 0.15  # of the median may be between the quartiles
# Of a KV page: one in 4096 bytes at least, of its keys (16 places together) and of its values.
_PLACES = tuple(range(0, PAGE_SIZE, 16))

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the probe's executors run: as the engine's do."""

    cpus: tuple[int, ...] = ()  # the processors to pin to, for the most threads
    isa: str = ""
    spin: bool = True

    def options(
        self, threads: int, *, rows: int = 1, pages: int = 1, kv_format: str = "f16"
    ) -> ExecutorOptions:
        return ExecutorOptions(
            num_pages=pages,
            max_pages=pages,
            max_rows=rows,
            kv_format=kv_format,
            threads=threads,
            cpus=self.cpus[:threads] if len(self.cpus) >= threads else (),
            spin=self.spin,
            isa=self.isa,
        )


@dataclass(kw_only=True)
class Timed:
    """A program to be timed: ``seconds()`` runs one step of ``rows`` rows and gives what the bill
    says of ``item``."""

    program: Program
    options: ExecutorOptions
    item: str
    rows: int = 1
    position: int = 0
    weights: Weights | None = None

    def __post_init__(self) -> None:
        weights = self.weights or vectors_of(self.program)
        self.executor = NativeExecutor(self.program, weights, self.options)
        self._embeddings = np.random.default_rng(0).standard_normal(
            (self.rows, self.program.hidden_size), np.float32
        )

    def seconds(self) -> float:
        first = self.position + 1 - self.rows
        step = make_step(self.rows, max(0, first), self.position // PAGE_SIZE + 1)
        before = self.executor.bill(decode=False)[self.item]
        self.executor.run(step, self._embeddings)
        return self.executor.bill(decode=False)[self.item] - before


def vectors_of(program: Program) -> Weights:
    """Vectors of ones, for a program without matrices."""
    vectors = {name: np.ones(v.size, np.float32) for name, v in program.vectors.items()}
    return Weights(arena=_native.Arena(64), matrices={}, vectors=vectors)


def make_step(rows: int, first: int, pages: int) -> Step:
    """Rows of one sequence from position ``first`` on; none asks for logits."""
    return Step(
        tokens=np.zeros(rows, np.int32),
        slots=np.zeros(rows, np.int32),
        positions=np.arange(first, first + rows, dtype=np.int32) % (pages * PAGE_SIZE),
        wants_logits=np.zeros(rows, np.bool_),
        page_tables=np.arange(pages, dtype=np.int32)[None, :],
    )


def fill_cache(executor: NativeExecutor, pages: int, rows: int, hidden: int) -> None:
    """Writes to every KV page in ``_PLACES``, so that no part of it is the system's page of zeros;
    each page is a sequence of its own here, so that its attention costs nothing."""
    together = max(1, rows // len(_PLACES))
    for start in range(0, pages, together):
        count = min(together, pages - start)
        executor.run(
            Step(
                tokens=np.zeros(count * len(_PLACES), np.int32),
                slots=np.repeat(np.arange(count, dtype=np.int32), len(_PLACES)),
                positions=np.tile(np.array(_PLACES, np.int32), count),
                wants_logits=np.zeros(count * len(_PLACES), np.bool_),
                page_tables=np.arange(start, start + count, dtype=np.int32)[:, None],
            ),
            np.zeros((count * len(_PLACES), hidden), np.float32),
        )


def take_turns(
    timed: Mapping[Key, Timed] | Mapping[Key, Callable[[], float]], rounds: int
) -> dict[Key, list[float]]:
    """Every program's times of ``rounds`` rounds in which all take a turn, forwards and then
    backwards, after one to warm up: what slows the machine for a while hits all alike.

    Those whose times disagree are looked at again, and the calmest look counts: on a machine with
    neighbours a processor may be gone for as long as all rounds take."""
    calls = {
        key: one.seconds if isinstance(one, Timed) else one  # type: ignore[union-attr]
        for key, one in timed.items()
    }
    for call in calls.values():
        call()
    found = _look(calls, rounds)
    for _ in range(_MORE_LOOKS):
        restless = {key: calls[key] for key in calls if _spread(found[key]) > _CALM}
        if not restless:
            break
        time.sleep(_PAUSE_SECONDS)
        for key, values in _look(restless, rounds).items():
            found[key] = min(found[key], values, key=_spread)
    return found


def _look(calls: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    found: dict[Key, list[float]] = {key: [] for key in calls}
    keys: Sequence[Key] = list(calls)
    for number in range(rounds):
        for key in keys if number % 2 == 0 else reversed(keys):
            found[key].append(calls[key]())
    return found


def _spread(values: Sequence[float]) -> float:
    return median_and_spread(values)[1]
