"""NativeExecutor: runs a program in C++, a step at a time without returning to Python.

Knows how a program and its weights become the native module's objects; knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.executors.executor import Step, StepError
from bandweave.programs.program import Op, Program, View
from bandweave.weights.loading import Weights


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """How a node runs its program; none of it changes an answer but ``kv_format`` and ``wire``.

    ``num_pages`` KV pages of 64 positions; ``max_pages`` of one sequence; ``cpus`` to pin the
    threads to, or empty; ``spin`` off where threads outnumber processors; ``isa`` empty for the
    fastest variant. ``wire``: what nodes send is ``exact``, or rounded to ``bf16`` or ``q8``.
    ``hop_bytes`` and ``overlap_rows`` say when sums are scattered and chunked (executor.h); all of
    these must be the same on every node. ``fetch_ahead``: bytes that products fetch ahead of what
    they read, -1 for what the machine likes best (fetch_ahead.h). ``flush_to_zero`` is for tests:
    subnormals count as zero while a step runs, which must change no bit (docs/numerics.md).
    """

    num_pages: int
    max_pages: int
    max_rows: int = 256
    kv_format: str = "f16"
    threads: int = 1
    cpus: tuple[int, ...] = ()
    spin: bool = True
    isa: str = ""
    wire: str = "exact"
    hop_bytes: int = 64 << 10
    overlap_rows: int = 64
    fetch_ahead: int = -1
    flush_to_zero: bool = False


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
        self._executor = _native.Executor(
            _native_program(program, weights),
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
            exchange=exchange,
            team_of=None if team_of is None else team_of._executor,
            flush_to_zero=options.flush_to_zero,
        )

    def run(self, step: Step, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        try:
            return self._executor.run(*_arrays(step), embeddings, step.prefill)
        except _native.StepError as error:
            raise StepError(str(error)) from error

    def best(self, step: Step, embeddings: npt.NDArray[np.float32]) -> list[int]:
        try:
            return self._executor.best(*_arrays(step), embeddings, step.prefill)
        except _native.StepError as error:
            raise StepError(str(error)) from error

    def follow(self, wake_descriptor: int = -1) -> str:
        """Waits for node 0's next step and runs it: ``"ran"``, ``"left"`` when node 0 has ended,
        or ``"woken"`` when the descriptor became readable."""
        try:
            return ("left", "ran", "woken")[self._executor.follow(wake_descriptor)]
        except _native.StepError as error:
            raise StepError(str(error)) from error

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


Int32 = npt.NDArray[np.int32]


def _arrays(step: Step) -> tuple[Int32, Int32, Int32, Int32, Int32]:
    tables = np.ascontiguousarray(step.page_tables)
    wants = step.wants_logits.astype(np.int32)
    return step.tokens, step.slots, step.positions, wants, tables


def kv_page_bytes(program: Program, kv_format: str) -> int:
    """Bytes of one page of 64 positions over all of the node's layers and KV heads."""
    cache = program.cache
    head = _native.kv_head_bytes(cache.head_dim, kv_format == "f16")
    return cache.layers * cache.kv_heads * head


def _native_program(program: Program, weights: Weights) -> _native.Program:
    native = _native.Program(
        node=program.node,
        num_nodes=program.num_nodes,
        hidden_size=program.hidden_size,
        vocab_size=program.vocab_size,
        cache=(program.cache.layers, program.cache.kv_heads, program.cache.head_dim),
        inv_freq=list(program.inv_freq),
    )
    buffers = {
        name: native.add_buffer(buffer.width, buffer.dtype == "grid", buffer.rows == "logits")
        for name, buffer in program.buffers.items()
    }
    matrices = {name: native.add_matrix(matrix) for name, matrix in weights.matrices.items()}
    vectors = {name: native.add_vector(vector) for name, vector in weights.vectors.items()}

    def views(values: tuple[View, ...]) -> list[tuple[int, int, int]]:
        return [(buffers[view.buffer], view.offset, view.width) for view in values]

    def add(op: Op) -> None:
        native.add_op(
            op.kind,
            op.name,
            views(op.inputs),
            views(op.outputs),
            -1 if op.weight is None else matrices[op.weight],
            -1 if op.vector is None else vectors[op.vector],
            dict(op.attributes),
        )

    for op in program.ops:
        add(op)
    return native
