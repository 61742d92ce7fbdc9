"""N native executors as threads of one process, seen as one engine."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import TensorSource, widen
from bandweave.executors.executor import ExecutorOptions, Step, StepError
from bandweave.executors.native import NativeExecutor
from bandweave.models.graph import Graph
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.weights.loading import load_weights
from bandweave.weights.stored_formats import node_program
from tests.helpers.followers import Followers

F32 = npt.NDArray[np.float32]


class NativeNodes:
    """A model on ``len(shares)`` native nodes of this process; a context manager.

    ``more`` goes to ``ExecutorOptions``.
    """

    def __init__(
        self,
        spec: ModelSpec,
        source: TensorSource,
        *,
        weight_format: str = "q4",
        kv_format: str = "f16",
        num_pages: int = 16,
        shares: Sequence[int] = (1,),
        stages: int = 1,
        graph: Graph | None = None,
        threads: int = 1,
        isa: str = "",
        stall_seconds: float = 30.0,
        **more: Any,
    ) -> None:
        table = Range(start=0, stop=spec.vocab_size)
        self.embeddings = widen(source.read("embed_tokens", table), source.dtype("embed_tokens"))
        graph = graph or build_graph(spec)
        split = make_split(spec, shares, stages=stages)
        count = split.num_nodes
        names = [f"node {node}" for node in range(count)]
        exchanges = [
            _native.Exchange(node, names, 1, stall_seconds, False) for node in range(count)
        ]
        for high in range(count):
            for low in range(high):
                _native.join_locally(exchanges[low], exchanges[high])
        options = ExecutorOptions(
            num_pages=num_pages,
            max_pages=num_pages,
            kv_format=kv_format,
            threads=threads,
            spin=False,
            isa=isa,
            **more,
        )
        self.nodes: list[NativeExecutor] = []
        for node in range(count):
            if isinstance(source, Folder):
                program = node_program(source, graph, split, node, weight_format)
            else:
                program = lower(graph, split, node)
            weights = load_weights(program, source, weight_format)
            exchange = exchanges[node] if count > 1 else None
            self.nodes.append(NativeExecutor(program, weights, options, exchange))
        self._exchanges = exchanges
        self._followers = Followers(
            [lambda node=node: node.follow() == "ran" for node in self.nodes[1:]]
        )

    def run(self, step: Step) -> F32:
        return self.nodes[0].run(step, self.embeddings[step.tokens])

    @property
    def errors(self) -> list[StepError]:
        """What made nodes other than node 0 fail."""
        return self._followers.errors

    def __enter__(self) -> NativeNodes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exchanges[0].leave()
        self._followers.join()
