"""Step and Executor: what every engine that runs programs takes and gives.

A step is any mix of rows from any number of sequences: prefill chunks, decoding rows and drafts
share one path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bandweave import _native

PAGE_SIZE = (
    _native.PAGE_SIZE
)  # positions in a KV page; also the attention chunk of docs/numerics.md


@dataclass(frozen=True, kw_only=True)
class Step:
    """The rows of one step; T rows of S sequences.

    Rows of one sequence stand in ascending position. A row sees all earlier positions of its
    sequence, those of the same step included.

    With ``sources`` the step drafts: the model's further layer alone computes, for each row from
    the hidden state that row ``sources[row]`` of the last step had in the end, and from ``tokens``,
    which came after it. Or, of a model in stages without such a layer, node 0 gets those hidden
    states, and nothing is computed.

    ``states``, of models whose layers have recurrent ones: for each sequence the slot that its
    state is read from and the one that it is written to; how many of its rows, the last, are
    drafted; a slot that gets the state as well, or -1, and behind how many rows of the step. The
    next step may go on before any of the drafted rows. A sequence's first step reads nothing. Where
    it is None each sequence has the slot of its number, and no row is drafted.
    """

    tokens: npt.NDArray[np.int32]  # [T]
    slots: npt.NDArray[np.int32]  # [T], index into page_tables
    positions: npt.NDArray[np.int32]  # [T], from 0
    wants_logits: npt.NDArray[np.bool_]  # [T]
    page_tables: npt.NDArray[np.int32]  # [S, P], ids of KV pages in order, -1 beyond the last
    states: npt.NDArray[np.int32] | None = None  # [S, 5]
    prefill: bool = False  # has rows of a prompt: whoever keeps accounts, here is no decoding
    sources: npt.NDArray[np.int32] | None = None  # [T], rows of the last step


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """How a node runs its program; none of it changes an answer but ``kv_format`` and ``wire``.

    ``num_pages`` KV pages of 64 positions; ``max_pages`` of one sequence; ``num_states`` slots of
    recurrent states, each of which keeps ``max_drafted`` rows that may be wrong; ``cpus`` to pin
    the threads to, or empty; ``spin`` off where threads outnumber processors; ``isa`` empty for the
    fastest variant. ``wire``: what nodes send is ``exact``, or rounded to ``bf16`` or ``q8``.
    ``hop_bytes`` and ``overlap_rows`` say when sums are scattered and chunked (executor.h); all of
    these must be the same on every node. ``fetch_ahead``: bytes that products fetch ahead of what
    they read, -1 for what the machine likes best (fetch_ahead.h). ``flush_to_zero`` is for tests:
    subnormals count as zero while a step runs, which must change no bit (docs/numerics.md).
    """

    num_pages: int
    max_pages: int
    num_states: int = 16
    max_drafted: int = 16
    max_rows: int = 256
    kv_format: str = "f16"
    threads: int = 1
    cpus: tuple[int, ...] = ()
    spin: bool = True
    isa: str = ""
    wire: str = "exact"
    hop_bytes: int = _native.HOP_BYTES
    overlap_rows: int = _native.OVERLAP_ROWS
    fetch_ahead: int = -1
    flush_to_zero: bool = False


class StepError(RuntimeError):
    """A step that failed: a peer that died or stalls, or numbers out of range. Names its cause."""


class Executor(Protocol):
    """Runs node 0's program; the other nodes take their steps from it, each in its own way."""

    def run(self, step: Step, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Node 0: runs a step and returns the logits ``[L, vocab_size]`` of the rows that want
        them, in row order, whatever they are. ``embeddings`` is ``[T, hidden_size]``."""
        ...

    def best(self, step: Step, embeddings: npt.NDArray[np.float32]) -> list[int]:
        """Node 0: like ``run``, but gives each such row's best token, the lowest id on ties, -1
        where one of its logits is not finite; no logits cross the mesh for it."""
        ...
