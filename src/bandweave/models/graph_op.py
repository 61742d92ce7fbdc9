"""GraphOp: one operation of a model's step, with the values and the weights that it names.

A weight declares how it may be split; whether it is split, and how, is the plan's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from bandweave.models.attention_spec import LatentSpec, LinearSpec
from bandweave.models.cut import VOCABULARY_UNIT, Cut
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.models.rope import RopeSpec

Attributes = Mapping[str, int | float | str | RopeSpec | MixtureSpec | LatentSpec | LinearSpec]


class Split(Enum):
    """What a product does to the data when its weight is split over nodes."""

    REPLICATED = "replicated"  # every node holds all of it
    ALL_TO_SHARDED = "all_to_sharded"  # every node reads all inputs and makes some outputs
    SHARDED_TO_ALL = "sharded_to_all"  # every node reads its inputs; the sums meet in an all-reduce


@dataclass(frozen=True, kw_only=True)
class SplitUnit:
    """What of a tensor no split divides: runs of ``size`` rows (elements, of a vector), or of
    ``size`` columns, counted from the first; the last may be shorter."""

    columns: bool
    size: int


@lru_cache(1024)
def _split_unit(columns: bool, size: int) -> SplitUnit:
    """Few different ones are asked for a hundred thousand times."""
    return SplitUnit(columns=columns, size=size)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightSpec:
    """A tensor that the model needs: ``shape`` is ``(outputs, inputs)``, or ``(size,)``.

    ``cut``: of dim 0 for ``all_to_sharded``, of dim 1 for ``sharded_to_all``.
    """

    name: str
    shape: tuple[int, ...]
    split: Split
    cut: Cut | None = None

    @property
    def unit(self) -> SplitUnit:
        """The unit by which it may be split, and its content is compared."""
        columns = self.split is Split.SHARDED_TO_ALL
        if self.cut is not None:
            return _split_unit(columns, self.cut.unit)
        if len(self.shape) == 2:  # the embedding and routers, read by rows
            return _split_unit(columns, VOCABULARY_UNIT)
        return _split_unit(columns, self.shape[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A ``[rows, width]`` float32 array; ``cut`` says how its width is split, if at all."""

    name: str
    width: int
    cut: Cut | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphOp:
    """One operation. ``layer`` is None outside the layers; ``drafts``: it belongs to the pass that
    drafts, in which the model's further layer computes alone."""

    kind: str
    name: str
    layer: int | None
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weights: tuple[WeightSpec, ...] = ()
    biases: tuple[WeightSpec | None, ...] = ()
    attributes: Attributes = field(default_factory=dict)
    drafts: bool = False

    def number(self, attribute: str) -> int | float:
        """An attribute that is a number."""
        value = self.attributes[attribute]
        assert isinstance(value, int | float), (self.name, attribute)
        return value

    def without_layer(self) -> tuple[object, ...]:
        """All that it is but its layer's number."""
        start = len(f"layers.{self.layer}.")
        weights = tuple(
            None if one is None else (one.name[start:], one.shape, one.split, one.cut)
            for one in (*self.weights, *self.biases)
        )
        return (
            self.kind, self.name[start:], self.inputs, self.outputs, weights,
            tuple(self.attributes.items()),
        )  # fmt: skip
