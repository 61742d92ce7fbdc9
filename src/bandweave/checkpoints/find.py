"""Finder: of the places where a family's tensor may lie, the one where a checkpoint has it.

Knows names, shapes and formats; reads no files.
"""

from __future__ import annotations

from collections.abc import Sequence

from bandweave.checkpoints.quantised import awq, gptq, mxfp4, packed, scaled
from bandweave.checkpoints.quantised.settings import READ_INSTEAD, Settings
from bandweave.checkpoints.tensor import (
    DTYPES,
    Found,
    Matrix,
    Misfit,
    StoredTensor,
    fitting,
    wrong,
)
from bandweave.checkpoints.view import View
from bandweave.models.graph import WeightSpec
from bandweave.models.registry import tensor_names
from bandweave.models.spec import LayerSpec, MixtureSpec, ModelSpec
from bandweave.models.tensor_names import Rows, Slice, filled, pattern_of, places

_FORMATS = (scaled.find, packed.find, mxfp4.find, awq.find, gptq.find)


class Finder:
    """Finds a model's tensors among ``found``, the stored ones by the names of Hugging Face."""

    def __init__(
        self, found: Found, spec: ModelSpec, needed: Sequence[WeightSpec], settings: Settings
    ) -> None:
        self._found, self._spec, self._settings = found, spec, settings
        self._shapes = {weight.name: weight.shape for weight in needed}
        self._names = tensor_names(spec.family)
        self._places: dict[str, tuple[Slice, ...]] = {}
        self._matrices: dict[tuple[str, tuple[int, ...]], Matrix | None] = {}

    def find(self, weight: WeightSpec) -> View | None:
        """The tensor; None where it is in none of its places. ``CheckpointError`` where what is
        there is not what is needed: the first such place where no other one will do."""
        pattern, numbers = pattern_of(weight.name)
        if pattern not in self._places:
            self._places[pattern] = places(self._names, pattern)
            if not self._places[pattern]:
                raise ValueError(f"family {self._spec.family!r} has no place for {weight.name!r}")
        misfit = None
        for place in self._places[pattern]:
            try:
                view = self._at(place, weight, numbers)
            except Misfit as error:
                misfit = misfit or error
                continue
            if view is not None:
                return view
        if misfit is not None:
            raise misfit
        return None

    def _at(self, place: Slice, weight: WeightSpec, numbers: tuple[str, ...]) -> View | None:
        name, shape = filled(place.tensor, numbers), weight.shape
        if place.whole:
            matrix = self._matrix(name, shape, is_vector=len(shape) == 1)
            return None if matrix is None else View(matrix, shape)
        rows, first, run = shape[0], 0, shape[0]
        layer = self._spec.layers[int(numbers[0])] if numbers else None
        if place.parts:
            sizes = [self._rows(part, numbers, layer) for part in place.parts]
            groups = place.groups if isinstance(place.groups, int) else place.groups(_of(layer))
            if sizes[place.index] != shape[0] or any(size % groups for size in sizes):
                raise ValueError(f"{sizes} rows in {groups} groups cannot hold {weight.name}")
            rows, run = sum(sizes), shape[0] // groups
            first = sum(sizes[: place.index]) // groups
            period = rows // groups
        else:
            period = rows
        stored: tuple[int, ...] = (rows, *shape[1:])
        if place.transposed:
            stored = stored[::-1]
        entry = int(numbers[1]) if place.entry else 0
        if place.entry:
            mixture = _of(layer).mlp
            assert isinstance(mixture, MixtureSpec), weight.name
            stored = (mixture.num_experts, *stored)
        matrix = self._matrix(name, stored, is_vector=len(shape) == 1)
        if matrix is None:
            return None
        return View(
            matrix, shape, entry=entry, first=first, run=run, period=period,
            transposed=place.transposed and len(shape) == 2,
        )  # fmt: skip

    def _matrix(self, name: str, shape: tuple[int, ...], *, is_vector: bool) -> Matrix | None:
        """What is stored by a name, or by the names that a format makes of it."""
        stored = self._found.get(name)
        if stored is not None and stored[1].dtype in DTYPES:
            fitting(stored, shape)
            return StoredTensor(stored, *((shape[-1], 1) if is_vector else shape[-2:]))
        if not is_vector:
            key = name, shape
            if key not in self._matrices:
                each = (find(self._found, name, shape, self._settings) for find in _FORMATS)
                self._matrices[key] = next((one for one in each if one is not None), None)
            if self._matrices[key] is not None:
                return self._matrices[key]
        if stored is None:
            return None
        dtype = stored[1].dtype
        quantised = dtype.startswith(("F8", "F6", "F4", "U", "I"))
        what = "such quantised weights are not read" if quantised else "that cannot be read"
        raise wrong(
            stored, f"is stored as {dtype}; {what}, only {', '.join(DTYPES)}: {READ_INSTEAD}"
        )

    def _rows(self, part: Rows, numbers: tuple[str, ...], layer: LayerSpec | None) -> int:
        if isinstance(part, int):
            return part
        if isinstance(part, str):
            return self._shapes[filled(part, numbers)][0]
        return part(_of(layer))


def _of(layer: LayerSpec | None) -> LayerSpec:
    assert layer is not None, "a tensor outside of the layers has no layer to ask"
    return layer
