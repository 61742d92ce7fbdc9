"""NativeStepExchange: a ``StepExchange`` over the native mesh, so that an executor that computes
elsewhere meets native ones.

It is a native executor of the program's exchanges alone, which performs them one by one on host
buffers. Knows nothing of what is computed between them.

Suffixes: T rows of the step, L rows that want logits, N elements of a row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bandweave import _native
from bandweave.executors.exchange import F32, Grid
from bandweave.executors.executor import ExecutorOptions, Step, StepError
from bandweave.executors.native import native_executor, own_states_of, step_arrays
from bandweave.programs.operations import BY_KIND
from bandweave.programs.program import Op, Program, View


def exchanges_of(program: Program) -> Program:
    """The program without all that a node does by itself: what is added to sums, among it."""
    main, drafting = (
        tuple(replace(op, vector=None) for op in ops if BY_KIND[op.kind].cost in ("message", "sum"))
        for ops in (program.main_ops, program.draft_ops)
    )
    return replace(
        program,
        ops=(*main, *drafting),
        drafts_from=None if program.drafts_from is None else len(main),
        weights={},
        vectors={},
        caches=(),
        states=(),
        frequencies=(),
    )


class NativeStepExchange:
    """``options`` must be those of the other nodes; KV pages and threads mean nothing."""

    def __init__(
        self, program: Program, exchange: _native.Exchange, options: ExecutorOptions
    ) -> None:
        own = exchanges_of(program)
        self._exchange = exchange
        self._executor = native_executor(own, [], [], options, exchange)
        self._places = {op.number("tag"): place for place, op in enumerate(own.ops)}
        self._buffers = {name: place for place, name in enumerate(own.buffers)}
        self._rows, self._logit_rows = 0, 0

    def open(self, step: Step) -> None:
        self._executor.open(*step_arrays(step), step.prefill, step.sources, own_states_of(step))
        self._note(step)

    def next_step(self) -> Step | None:
        try:
            if self._executor.join() != 1:
                return None
        except _native.StepError as error:
            raise StepError(str(error)) from error
        (tokens, slots, positions, wants, tables, pages, prefill, sources, states) = (
            self._executor.step()
        )
        step = Step(
            tokens=np.array(tokens, np.int32),
            slots=np.array(slots, np.int32),
            positions=np.array(positions, np.int32),
            wants_logits=np.array(wants, np.bool_),
            page_tables=np.array(tables, np.int32).reshape(-1, pages),
            states=np.array(states, np.int32).reshape(-1, _native.STATE_NUMBERS)
            if states
            else None,
            prefill=prefill,
            sources=np.array(sources, np.int32) if sources else None,
        )
        self._note(step)
        return step

    def end(self) -> None:
        self._exchange.leave()

    def fail(self, reason: str) -> None:
        self._exchange.abort(reason)

    def embed(self, op: Op, rows_TN: F32 | None) -> F32:
        self._perform(op, rows_TN)
        return self._floats(op.outputs[0], self._rows).copy()

    def send(self, op: Op, rows_TN: F32) -> None:
        self._floats(op.inputs[0], self._rows)[:] = rows_TN
        self._perform(op)

    def recv(self, op: Op) -> F32:
        self._perform(op)
        return self._floats(op.outputs[0], self._rows).copy()

    def all_reduce(self, op: Op, grid_TN: Grid) -> Grid:
        grid = op.inputs[0]
        sums_TN = self._executor.grid(self._buffers[grid.buffer])[: self._rows, : grid.width]
        sums_TN[:] = grid_TN
        for residual in op.inputs[1:]:
            self._floats(residual, self._rows)[:] = 0  # what they are added to here is nobody's
        self._perform(op)
        return sums_TN.copy()

    def gather_logits(self, op: Op, own_LN: F32 | None) -> F32 | None:
        if own_LN is not None:
            self._floats(op.inputs[0], self._logit_rows)[:] = own_LN
        self._perform(op)
        if not op.outputs:
            return None
        return self._floats(op.outputs[0], self._logit_rows).copy()

    def _note(self, step: Step) -> None:
        self._rows, self._logit_rows = len(step.tokens), int(step.wants_logits.sum())

    def _floats(self, view: View, rows: int) -> F32:
        buffer = self._executor.floats(self._buffers[view.buffer])
        return buffer[:rows, view.offset : view.offset + view.width]

    def _perform(self, op: Op, embeddings_TN: F32 | None = None) -> None:
        try:
            self._executor.perform(self._places[op.number("tag")], embeddings_TN)
        except _native.StepError as error:
            raise StepError(str(error)) from error
