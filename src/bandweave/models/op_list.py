"""OpList: the operations of a model's step, in order, as they are emitted layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bandweave.models.cut import Cut
from bandweave.models.graph_op import Attributes, GraphOp, Split, Value, WeightSpec
from bandweave.models.spec import ModelSpec


@dataclass(eq=False)
class OpList:
    """What all operations of a graph have in common; ``graph.Graph`` has a method for each."""

    spec: ModelSpec
    ops: list[GraphOp] = field(default_factory=list)
    _layer: int | None = None
    _drafts: bool = False
    _alike: tuple[int, ...] = ()

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Names and tags what is emitted inside as part of layer ``index``."""
        self._layer = index
        yield
        self._layer = None

    @contextmanager
    def drafting(self) -> Iterator[None]:
        """What is emitted inside belongs to the pass that drafts, which comes last."""
        self._drafts = True
        with self.layer(self.spec.num_layers):
            yield
        self._drafts = False

    def alike(self) -> tuple[int, ...]:
        """For each layer the first one that has the same operations: the same sizes, attributes and
        names but for the layer's own."""
        if len(self._alike) != self.spec.num_layers:
            layers: dict[int, list[object]] = {}
            for op in self.ops:
                if op.layer is not None and not op.drafts:
                    layers.setdefault(op.layer, []).append(op.without_layer())
            firsts: dict[tuple[object, ...], int] = {}
            self._alike = tuple(
                firsts.setdefault(tuple(ops), layer) for layer, ops in sorted(layers.items())
            )
        return self._alike

    def weights(self) -> list[WeightSpec]:
        """Every tensor that the graph names, each once, in order of first use."""
        seen: dict[str, WeightSpec] = {}
        for op in self.ops:
            for weight in (*op.weights, *(bias for bias in op.biases if bias is not None)):
                seen.setdefault(weight.name, weight)
        return list(seen.values())

    def weight(
        self, name: str, shape: tuple[int, ...], split: Split, cut: Cut | None = None
    ) -> WeightSpec:
        """A tensor of the layer at hand."""
        full = name if self._layer is None else f"layers.{self._layer}.{name}"
        return WeightSpec(name=full, shape=shape, split=split, cut=cut)

    def emit(
        self,
        kind: str,
        name: str,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        weights: tuple[WeightSpec, ...] = (),
        biases: tuple[WeightSpec | None, ...] = (),
        *,
        attributes: Attributes | None = None,
    ) -> tuple[Value, ...]:
        """One operation more, of the layer at hand; its outputs."""
        full = name if self._layer is None else f"layers.{self._layer}.{name}"
        self.ops.append(
            GraphOp(
                kind=kind,
                name=full,
                layer=self._layer,
                inputs=inputs,
                outputs=outputs,
                weights=weights,
                biases=biases,
                attributes=attributes or {},
                drafts=self._drafts,
            )
        )
        return outputs
