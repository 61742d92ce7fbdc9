"""The reference executor as a backend: the oracle runs what the native one runs, from the same
packed weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from bandweave import _native
from bandweave.executors.executor import PAGE_SIZE, ExecutorOptions
from bandweave.executors.reference import math
from bandweave.executors.reference.executor import ReferenceExecutor
from bandweave.executors.reference.math import F32
from bandweave.executors.reference.weights import ReferenceWeights
from bandweave.formats.matrix import Matrix
from bandweave.formats.names import INTEGER_FORMATS
from bandweave.formats.packing import unpack
from bandweave.programs.program import Program, Weight
from bandweave.weights.packed import Weights


class ReferenceBackend:
    """See ``Backend``. Its exchange is a ``StepExchange``; threads and variants mean nothing."""

    def weight_bytes(self, program: Program, weight_format: str) -> int:
        """An array of one byte, or of four, for every weight; scales are next to nothing."""

        def each(one: Weight) -> int:
            return 1 if one.format_in(weight_format) in INTEGER_FORMATS else 4

        return sum(each(one) * one.outputs * one.inputs for one in program.weights.values())

    def kv_page_bytes(self, program: Program, kv_format: str) -> int:
        each = np.dtype(np.float16 if kv_format == "f16" else np.float32).itemsize
        return sum(
            each * PAGE_SIZE * cache.kv_heads * (cache.k_dim + (not cache.latent) * cache.v_dim)
            for cache in program.caches
        )

    def state_bytes(self, program: Program, max_drafted: int) -> int:
        return sum(
            4 * (one.heads * one.k_dim * one.v_dim + (one.history + max_drafted) * one.row)
            for one in program.states
        )

    def work_bytes(self, program: Program, options: ExecutorOptions) -> int:
        return options.max_rows * sum(
            (8 if buffer.dtype == "grid" else 4) * buffer.width
            for buffer in program.buffers.values()
        )

    def store(self, weight: Weight, packed: _native.Matrix) -> Matrix:
        return unpack(
            packed.panels,
            format=packed.format,
            outputs=weight.outputs,
            inputs=weight.inputs,
            unit=weight.unit,
        )

    def make_executor(
        self,
        program: Program,
        weights: Weights,
        options: ExecutorOptions,
        exchange: Any = None,
        *,
        team_of: Any = None,
    ) -> ReferenceExecutor:
        matrices = {
            name: self.store(weight, weights.matrices[name])
            for name, weight in program.weights.items()
        }
        return ReferenceExecutor(
            program,
            ReferenceWeights(matrices=matrices, vectors=weights.vectors),
            num_pages=options.num_pages,
            num_states=options.num_states,
            max_drafted=options.max_drafted,
            kv_dtype=options.kv_format,
            exchange=exchange,
        )

    def exp(self, values: F32, isa: str = "") -> F32:
        return math.exp(values)
