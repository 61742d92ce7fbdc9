"""A model's tensors as folders store them: several that are one there put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bandweave.models.places import Placed, Places
from bandweave.models.registry import build_graph, tensor_names
from bandweave.models.spec import ModelSpec
from tests.helpers.random_model import F32, turned_back


def laid_out(
    spec: ModelSpec,
    tensors: Mapping[str, F32],
    fits: Callable[[Placed], bool] = lambda placed: True,
    *,
    further: bool = False,
) -> dict[str, F32]:
    """By stored names. Of a tensor's places the first one that ``fits``. With ``further`` those of
    the further layer, too."""
    needed = build_graph(spec, further=further).weights()
    places = Places(spec, needed, tensor_names(spec.family))
    result: dict[str, F32] = {}
    for weight in needed:
        placed = next(one for one in places.of(weight) if fits(one))
        whole = result.setdefault(placed.name, np.zeros(placed.shape, np.float32))
        part = whole[placed.entry] if len(placed.shape) > len(weight.shape) else whole
        if placed.middle:
            part = whole[:, 0]
        part = part.T if placed.transposed else part
        rows = np.arange(len(part)).reshape(-1, placed.period)
        rows = rows[:, placed.first : placed.first + placed.run].reshape(-1)
        part[rows] = turned_back(tensors[weight.name], placed)
    return result
