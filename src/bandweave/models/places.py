"""Places: where a model's tensors may lie among stored ones, from its family's table and its sizes.

Knows names and shapes; knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bandweave.models.graph_op import WeightSpec
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import Names, Rows, Slice, filled, pattern_of, places


class Placed(NamedTuple):
    """A place of one tensor: the stored one's ``name`` and ``shape``, and what of it is meant.

    ``entry`` of a stack. The tensor's rows are those of an entry, or of its transposed, in runs of
    ``run`` rows from row ``first`` on, one in each ``period`` rows; where ``pairs`` is not 0, every
    so many of them are stored in pairs of rows of their two halves. Where ``turned`` is not 0,
    every so many rows of the tensor are as many columns of a run of stored ones. ``tiles``, where
    it is not empty: groups, heads of each, and rows of a head, or columns with ``tiled_columns``;
    stored are the first heads of all groups, then the second ones, and so on. ``log``: as
    ``Slice``'s.
    """

    name: str
    shape: tuple[int, ...]
    entry: int
    first: int
    run: int
    period: int
    transposed: bool
    shared: bool  # whether other tensors lie there too
    middle: bool  # whether an axis of one stands between rows and columns
    pairs: int = 0
    turned: int = 0
    tiles: tuple[int, int, int] | tuple[()] = ()
    tiled_columns: bool = False
    log: bool = False


class Places:
    """Of a model that needs these tensors."""

    def __init__(self, spec: ModelSpec, needed: Sequence[WeightSpec], names: Names) -> None:
        self._spec, self._names = spec, names
        self._shapes = {weight.name: weight.shape for weight in needed}
        self._known: dict[str, tuple[Slice, ...]] = {}

    def of(self, weight: WeightSpec) -> Iterator[Placed]:
        """All places of a tensor, the preferred one first. ``ValueError`` where the family has
        none, or parts of a stored tensor do not fit each other."""
        pattern, numbers = pattern_of(weight.name)
        known = self._known.get(pattern)
        if known is None:
            known = self._known[pattern] = places(self._names, pattern)
            if not known:
                raise ValueError(f"family {self._spec.family!r} has no place for {weight.name!r}")
        behind = bool(numbers) and int(numbers[0]) == self._spec.num_layers
        own = behind and any(place.further for place in known)
        for place in known:
            if place.further == own:
                yield self._placed(place, weight, numbers)

    def _placed(self, place: Slice, weight: WeightSpec, numbers: tuple[str, ...]) -> Placed:
        name = filled(place.tensor, numbers[1:] if place.further else numbers)
        shape = weight.shape
        rows, first, run = shape[0], 0, shape[0]
        if place.whole:
            return Placed(name, shape, 0, first, run, rows, False, False, False)
        layer = self._spec.layer(int(numbers[0])) if numbers else None
        groups, turned = 1, 0
        if place.parts:
            sizes = [self._rows(part, numbers, layer) for part in place.parts]
            groups = place.groups if isinstance(place.groups, int) else _ask(place.groups, layer)
            if place.turned:
                turned = shape[0] // groups
                shape = (groups * shape[1], turned)
            if sizes[place.index] != shape[0] or any(size % groups for size in sizes):
                raise ValueError(f"{sizes} rows in {groups} groups cannot hold {weight.name}")
            rows, run = sum(sizes), shape[0] // groups
            first = sum(sizes[: place.index]) // groups
        stored: tuple[int, ...] = (rows, *((1,) if place.middle else ()), *shape[1:])
        if place.transposed:
            stored = stored[::-1]
        if place.entry:
            stored = (_ask(_experts, layer), *stored)
        if place.heads is not None:
            heads = _ask(place.heads, layer)
            stored = (heads, stored[0] // heads, *stored[1:])
        entry = int(numbers[1]) if place.entry else 0
        transposed = place.transposed and len(shape) == 2
        pairs = 0 if place.pairs is None else _ask(place.pairs, layer)
        if pairs and (pairs % 2 or shape[0] % pairs):
            raise ValueError(f"{shape[0]} rows of {weight.name} are not heads of {pairs} in pairs")
        period = rows // groups
        return Placed(
            name, stored, entry, first, run, period, transposed, True, place.middle, pairs, turned,
            self._tiles(place, weight, layer), place.tiled_columns, place.log,
        )  # fmt: skip

    def _tiles(
        self, place: Slice, weight: WeightSpec, layer: LayerSpec | None
    ) -> tuple[int, int, int] | tuple[()]:
        if place.tiles is None:
            return ()
        assert layer is not None, "a tensor outside of the layers has no heads"
        groups, sharing = place.tiles(layer)
        size = weight.shape[1 if place.tiled_columns else 0]
        if size % (groups * sharing):
            raise ValueError(f"{size} rows of {weight.name} are not {groups * sharing} heads")
        # One head of each group, or one group: then they lie as they are meant.
        return () if 1 in (groups, sharing) else (groups, sharing, size // (groups * sharing))

    def _rows(self, part: Rows, numbers: tuple[str, ...], layer: LayerSpec | None) -> int:
        if isinstance(part, int):
            return part
        if isinstance(part, str):
            return self._shapes[filled(part, numbers)][0]
        return _ask(part, layer)


def _ask(what: Callable[[LayerSpec], int], layer: LayerSpec | None) -> int:
    assert layer is not None, "a tensor outside of the layers has no layer to ask"
    return what(layer)


def _experts(layer: LayerSpec) -> int:
    assert isinstance(layer.mlp, MixtureSpec), "a stack has an entry for each expert"
    return layer.mlp.num_experts
