"""NativeExecutor: runs a program in C++, a step at a time without returning to Python.

Knows how a program and its weights become the native module's objects; knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.executors.executor import ExecutorOptions, Step, StepError
from bandweave.executors.native_memory import exchange_bytes, step_bytes
from bandweave.executors.pipeline import OneAtATime, Outcome, Pipeline
from bandweave.programs.encoding import encode
from bandweave.programs.program import CacheShape, Program, StateShape, Weight
from bandweave.weights.packed import Weights, packed_bytes


class NativeExecutor:
    """An ``Executor`` over the native module."""

    def __init__(
        self,
        program: Program,
        weights: Weights,
        options: ExecutorOptions,
        exchange: _native.Exchange | None = None,
        *,
        team_of: NativeExecutor | None = None,
    ) -> None:
        """``team_of``: an executor whose threads are used, in turn with its own steps."""
        self._executor = native_executor(
            program,
            [weights.matrices[name] for name in program.weights],
            [weights.vectors[name] for name in program.vectors],
            options,
            exchange,
            team_of=None if team_of is None else team_of._executor,
        )

    def run(self, step: Step, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        try:
            return self._executor.run(
                *step_arrays(step), embeddings, step.prefill, step.sources, own_states_of(step)
            )
        except _native.StepError as error:
            raise StepError(str(error)) from error

    def best(self, step: Step, embeddings: npt.NDArray[np.float32]) -> list[int]:
        try:
            return self._executor.best(
                *step_arrays(step), embeddings, step.prefill, step.sources, own_states_of(step)
            )
        except _native.StepError as error:
            raise StepError(str(error)) from error

    def pipeline(self, depth: int) -> Pipeline:
        """Its steps, at most ``depth`` of them under way; one at a time where the logits are its
        own, since nobody works while it does."""
        if depth > 1 and self._executor.staged:
            return _Staged(self._executor, depth)
        return OneAtATime(self)

    def follow(self, wake_descriptor: int = -1) -> str:
        """Waits for node 0's next step and runs it: ``"ran"``, ``"left"`` when node 0 has ended,
        or ``"woken"`` when the descriptor became readable."""
        try:
            return ("left", "ran", "woken")[self._executor.follow(wake_descriptor)]
        except _native.StepError as error:
            raise StepError(str(error)) from error

    def floats(self, buffer: int) -> npt.NDArray[np.float32]:
        """A buffer of the program, by its number, as the last step left it: at least as many rows
        as the step had, each as wide as memory likes it."""
        return self._executor.floats(buffer)

    @property
    def progress(self) -> int:
        """Goes up while a step gets on; any thread may look."""
        return self._executor.progress

    @property
    def work_bytes(self) -> int:
        return self._executor.work_bytes

    @property
    def fetch_ahead(self) -> int:
        """Bytes that its products fetch ahead of what they read."""
        return self._executor.fetch_ahead

    def bill(self, *, decode: bool) -> dict[str, float]:
        """Seconds by item as thread 0 saw them, and counts, since the start (executor.h): of steps
        in which every row asks for logits and none is a prompt's, or of all others."""
        return self._executor.bill(decode)


class _Staged:
    """A ``Pipeline`` whose last stage gives the logits."""

    def __init__(self, executor: _native.Executor, depth: int) -> None:
        self._executor, self.depth = executor, depth

    @property
    def under_way(self) -> int:
        return self._executor.under_way

    def start(self, step: Step, embeddings: Floats, *, best_only: bool) -> None:
        assert step.sources is None
        try:
            self._executor.start(
                *step_arrays(step), embeddings, step.prefill, own_states_of(step), best_only
            )
        except _native.StepError as error:
            raise StepError(str(error)) from error

    def finish(self) -> Outcome:
        try:
            return self._executor.finish()
        except _native.StepError as error:
            raise StepError(str(error)) from error


Int32 = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class NativeBackend:
    """See ``Backend``. Its exchange is the native one, polled inside the step."""

    def weight_bytes(self, program: Program, weight_format: str) -> int:
        return packed_bytes(program, weight_format)

    def kv_page_bytes(self, program: Program, kv_format: str) -> int:
        return sum(
            cache.kv_heads * _head_bytes(cache, kv_format == "f16") for cache in program.caches
        )

    def state_bytes(self, program: Program, max_drafted: int) -> int:
        return sum(_state_bytes(one, max_drafted) for one in program.states)

    def work_bytes(self, program: Program, options: ExecutorOptions) -> int:
        return step_bytes(program, options.max_rows) + exchange_bytes(program, options.max_rows)

    def store(self, weight: Weight, packed: _native.Matrix) -> _native.Matrix:
        return packed  # where it is: the kernels read these very bytes

    def make_executor(
        self,
        program: Program,
        weights: Weights,
        options: ExecutorOptions,
        exchange: Any = None,
        *,
        team_of: Any = None,
    ) -> NativeExecutor:
        return NativeExecutor(program, weights, options, exchange, team_of=team_of)

    def exp(self, values: Floats, isa: str = "") -> Floats:
        return _native.exp(values, isa).reshape(values.shape)


def _head_bytes(cache: CacheShape, half: bool) -> int:
    if cache.latent:
        return _native.latent_page_bytes(cache.k_dim, half)
    return _native.kv_head_bytes(cache.k_dim, half)


def _state_bytes(state: StateShape, max_drafted: int) -> int:
    rows = (state.history + max_drafted) * _padded(state.row)
    return 4 * (state.heads * state.k_dim * _padded(state.v_dim) + rows)


def _padded(count: int) -> int:
    return -(-count // 16) * 16


def native_executor(
    program: Program,
    matrices: Sequence[_native.Matrix],
    vectors: Sequence[Floats],
    options: ExecutorOptions,
    exchange: _native.Exchange | None = None,
    *,
    team_of: _native.Executor | None = None,
) -> _native.Executor:
    """The native module's executor of a program, with the program's weights in their order."""
    return _native.Executor(
        _native.Program(encode(program), matrices, vectors),
        max_rows=options.max_rows,
        num_pages=options.num_pages,
        max_pages=options.max_pages,
        half_kv=options.kv_format == "f16",
        threads=options.threads,
        cpus=list(options.cpus),
        spin=options.spin,
        isa=options.isa,
        wire=options.wire,
        hop_bytes=options.hop_bytes,
        overlap_rows=options.overlap_rows,
        fetch_ahead=options.fetch_ahead,
        flush_to_zero=options.flush_to_zero,
        exchange=exchange,
        team_of=team_of,
        num_states=options.num_states,
        max_drafted=options.max_drafted,
    )


def own_states_of(step: Step) -> Int32 | None:
    """A step's states as the native module takes them."""
    return None if step.states is None else np.ascontiguousarray(step.states, np.int32)


def step_arrays(step: Step) -> tuple[Int32, Int32, Int32, Int32, Int32]:
    """A step as the native module takes it."""
    tables = np.ascontiguousarray(step.page_tables)
    wants = step.wants_logits.astype(np.int32)
    return step.tokens, step.slots, step.positions, wants, tables
