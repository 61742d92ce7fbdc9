"""Builder: collects what a program holds while it is lowered. Knows no graph and no split."""

from __future__ import annotations

from bandweave.models.rope import RopeSpec, RopeTable, rope_table
from bandweave.programs.program import (
    Attribute,
    Buffer,
    CacheShape,
    Op,
    Part,
    Program,
    StateShape,
    Vector,
    View,
    Weight,
)


class Builder:
    """``layer``: the one that operations belong to from now on, None for none."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}
        self.weights: dict[str, Weight] = {}
        self.vectors: dict[str, Vector] = {}
        self.embedding: Part | None = None
        self.layer: int | None = None
        self._caches: list[CacheShape] = []
        self._states: list[StateShape] = []
        self._frequencies: dict[RopeSpec, RopeTable] = {}
        self._ops: list[Op] = []
        self._drafts_from: int | None = None

    def begin_drafting(self) -> None:
        """What comes now is of the pass that drafts."""
        self._drafts_from = len(self._ops)

    def program(self, *, node: int, num_nodes: int, hidden_size: int, vocab_size: int) -> Program:
        return Program(
            node=node,
            num_nodes=num_nodes,
            hidden_size=hidden_size,
            vocab_size=vocab_size,
            buffers=self.buffers,
            weights=self.weights,
            vectors=self.vectors,
            caches=tuple(self._caches),
            states=tuple(self._states),
            frequencies=tuple(self._frequencies.values()),
            ops=tuple(self._ops),
            embedding=self.embedding,
            drafts_from=self._drafts_from,
        )

    def buffer(self, name: str, width: int, *, dtype: str = "f32", rows: str = "step") -> View:
        """All of the buffer of that name, made where it is new."""
        known = self.buffers.setdefault(
            name, Buffer(name=name, width=width, dtype=dtype, rows=rows)
        )
        assert known.width == width, (name, known.width, width)
        return View(buffer=name, offset=0, width=width)

    def cache(self, shape: CacheShape) -> int:
        """The index of a new cache."""
        self._caches.append(shape)
        return len(self._caches) - 1

    def state(self, shape: StateShape) -> int:
        """The index of a new state."""
        self._states.append(shape)
        return len(self._states) - 1

    def table(self, rope: RopeSpec) -> int:
        """The index of a rope's table of frequencies, which all that turn by it share."""
        self._frequencies.setdefault(rope, rope_table(rope))
        return list(self._frequencies).index(rope)

    def op(
        self,
        kind: str,
        name: str,
        inputs: tuple[View, ...] = (),
        outputs: tuple[View, ...] = (),
        *,
        weight: str | None = None,
        vector: str | None = None,
        **attributes: Attribute,
    ) -> None:
        self._ops.append(
            Op(
                kind=kind,
                name=name,
                inputs=inputs,
                outputs=outputs,
                weight=weight,
                vector=vector,
                attributes=attributes,
                layer=self.layer,
            )
        )
