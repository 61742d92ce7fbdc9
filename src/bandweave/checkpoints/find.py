"""Finder: of the places where a family's tensor may lie, the one where a checkpoint has it.

Knows names, shapes and formats; reads no files.
"""

from __future__ import annotations

from collections.abc import Sequence

from bandweave.checkpoints.block_tensor import BlockTensor
from bandweave.checkpoints.gguf import GgufFile
from bandweave.checkpoints.quantised import awq, gptq, mxfp4, packed, scaled
from bandweave.checkpoints.quantised.settings import READ_INSTEAD, Settings
from bandweave.checkpoints.tensor import (
    DTYPES,
    Found,
    Matrix,
    Misfit,
    Stored,
    StoredTensor,
    fitting,
    wrong,
)
from bandweave.checkpoints.view import View
from bandweave.models.graph_op import WeightSpec
from bandweave.models.places import Placed, Places
from bandweave.models.spec import ModelSpec
from bandweave.models.tensor_names import Names

_FORMATS = (scaled.find, packed.find, mxfp4.find, awq.find, gptq.find)


class Finder:
    """Finds a model's tensors among ``found``, which has the stored ones by name."""

    def __init__(
        self,
        found: Found,
        spec: ModelSpec,
        needed: Sequence[WeightSpec],
        names: Names,
        settings: Settings,
    ) -> None:
        self._found, self._settings = found, settings
        self._places = Places(spec, needed, names)
        self._shared: dict[tuple[str, tuple[int, ...]], Matrix | None] = {}

    def find(self, weight: WeightSpec) -> View | None:
        """The tensor; None where it is in none of its places. ``CheckpointError`` where what is
        there is not what is needed: the first such place where no other one will do."""
        misfit = None
        for placed in self._places.of(weight):
            try:
                matrix = self._at(placed, is_vector=len(weight.shape) == 1)
            except Misfit as error:
                misfit = misfit or error
                continue
            if matrix is not None:
                return View(matrix, weight.shape, placed)
        if misfit is not None:
            raise misfit
        return None

    def _at(self, placed: Placed, *, is_vector: bool) -> Matrix | None:
        if not placed.shared:
            return self._matrix(placed.name, placed.shape, is_vector=is_vector)
        key = placed.name, placed.shape
        if key not in self._shared:
            self._shared[key] = self._matrix(*key, is_vector=is_vector)
        return self._shared[key]

    def _matrix(self, name: str, shape: tuple[int, ...], *, is_vector: bool) -> Matrix | None:
        """What is stored by a name, or by the names that a format makes of it."""
        stored = self._found.get(name)
        if stored is not None and stored[1].dtype in DTYPES:
            one_row = (
                stored[1].shape == (1, *shape) if is_vector else (1, *stored[1].shape) == shape
            )
            if not one_row:  # which may be a vector, and the other way round
                self._fitting(stored, shape)
            return StoredTensor(stored, *((shape[-1], 1) if is_vector else shape[-2:]))
        if stored is not None and isinstance(stored[0], GgufFile):
            if is_vector:
                raise wrong(
                    stored,
                    f"is a vector that is stored as {stored[1].dtype}; {', '.join(DTYPES)} are "
                    "read: download another version of the model",
                )
            return BlockTensor(self._fitting(stored, shape), *shape[-2:])
        if not is_vector:
            for find in _FORMATS:
                matrix = find(self._found, name, shape, self._settings)
                if matrix is not None:
                    return matrix
        if stored is None:
            return None
        dtype = stored[1].dtype
        quantised = dtype.startswith(("F8", "F6", "F4", "U", "I"))
        what = "such quantised weights are not read" if quantised else "that cannot be read"
        raise wrong(
            stored, f"is stored as {dtype}; {what}, only {', '.join(DTYPES)}: {READ_INSTEAD}"
        )

    def _fitting(self, stored: Stored, shape: tuple[int, ...]) -> Stored:
        return fitting(stored, shape, self._settings.said_by, self._settings.doubt)
