"""N reference executors as threads of one process, seen as one engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import TensorSource, widen
from bandweave.executors.executor import PAGE_SIZE, Step, StepError
from bandweave.executors.reference.exchange import ThreadMesh
from bandweave.executors.reference.executor import ReferenceExecutor
from bandweave.executors.reference.weights import load_reference
from bandweave.models.graph import Graph
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.weights.stored_formats import node_program
from tests.helpers.followers import Followers

F32 = npt.NDArray[np.float32]


class ReferenceNodes:
    """A model on ``len(shares)`` reference nodes; a context manager."""

    def __init__(
        self,
        spec: ModelSpec,
        source: TensorSource,
        *,
        weight_format: str = "q4",
        kv_dtype: str = "f16",
        wire: str = "exact",
        num_pages: int = 16,
        shares: Sequence[int] = (1,),
        stages: int = 1,
        graph: Graph | None = None,
    ) -> None:
        self.hidden_size = spec.hidden_size
        self.num_pages = num_pages
        table = Range(start=0, stop=spec.vocab_size)
        self.embeddings = widen(source.read("embed_tokens", table), source.dtype("embed_tokens"))
        graph = graph or build_graph(spec)
        split = make_split(spec, shares, stages=stages)
        mesh = ThreadMesh(split.num_nodes)
        self.nodes: list[ReferenceExecutor] = []
        for node in range(split.num_nodes):
            if isinstance(source, Folder):
                program = node_program(source, graph, split, node, weight_format)
            else:
                program = lower(graph, split, node)
            self.nodes.append(
                ReferenceExecutor(
                    program,
                    load_reference(program, source, weight_format),
                    num_pages=num_pages,
                    kv_dtype=kv_dtype,
                    exchange=mesh.exchange(node, wire) if split.num_nodes > 1 else None,
                )
            )
        self._followers = Followers(
            [lambda node=node: node.follow() == "ran" for node in self.nodes[1:]]
        )

    def run(self, step: Step) -> F32:
        return self.nodes[0].run(step, self.embeddings[step.tokens])

    @property
    def errors(self) -> list[StepError]:
        """What made nodes other than node 0 fail."""
        return self._followers.errors

    def __enter__(self) -> ReferenceNodes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.nodes[0].close()
        self._followers.join()


@dataclass(kw_only=True)
class Book:
    """Tokens and KV pages of several sequences; makes steps from ``(sequence, tokens)`` pieces."""

    num_sequences: int
    pages_each: int
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lengths = [0] * self.num_sequences
        # Sequences' pages alternate and descend, so that a page is never its own position.
        ids = np.arange(self.num_sequences * self.pages_each, dtype=np.int32)[::-1]
        self.pages = ids.reshape(self.pages_each, self.num_sequences).T

    @property
    def num_pages(self) -> int:
        return self.pages.size

    def step(self, pieces: Sequence[tuple[int, Sequence[int]]], *, all_logits: bool = True) -> Step:
        """Rows of the pieces in order; the last row of a piece wants logits, or all do."""
        tokens: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        wants: list[bool] = []
        for sequence, piece in pieces:
            start = self.lengths[sequence]
            tokens += [int(token) for token in piece]
            slots += [sequence] * len(piece)
            positions += range(start, start + len(piece))
            wants += [all_logits or i == len(piece) - 1 for i in range(len(piece))]
            self.lengths[sequence] = start + len(piece)
            assert self.lengths[sequence] <= self.pages_each * PAGE_SIZE
        return Step(
            tokens=np.array(tokens, dtype=np.int32),
            slots=np.array(slots, dtype=np.int32),
            positions=np.array(positions, dtype=np.int32),
            wants_logits=np.array(wants, dtype=np.bool_),
            page_tables=np.ascontiguousarray(self.pages, dtype=np.int32),
        )
