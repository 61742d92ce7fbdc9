"""Shape: the config of a well-known model that the engine runs, and changes of its sizes.

The configs come from ``models/known_models``, the one home of models by name, and keep every field.
Knows no weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bandweave.models.known_models import known_config, known_model, model_names
from bandweave.models.registry import spec_from_config, text_part
from bandweave.models.spec import ModelSpec
from bandweave.synth.shrinking import SIZES, changed, size_of

#: What files of such models say beside what a run needs.
_USUAL = {"hidden_act": "silu", "attention_dropout": 0.0, "initializer_range": 0.02,
          "use_cache": True}  # fmt: skip
#: Of releases, and not of weights that are written as one dtype and without drafts' layers.
_RELEASED = ("quantization_config", "num_nextn_predict_layers")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model by its ``fields``, those of a Hugging Face ``config.json``; ``notes`` say in words
    what else changed with the sizes that were asked for."""

    name: str
    fields: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def config(self) -> dict[str, Any]:
        """The fields of a Hugging Face ``config.json``, without dtype and token ids."""
        kept = {name: value for name, value in self.fields.items() if name not in _RELEASED}
        return {**_USUAL, **kept}

    def spec(self) -> ModelSpec:
        """The spec of the model; ``ValueError`` where its sizes do not fit together."""
        return spec_from_config(self.config())

    def size(self, name: str) -> int | None:
        """One of the sizes that ``find_shape`` can change; None where it has none such."""
        return size_of(self.fields, name)


def shape_names() -> tuple[str, ...]:
    """The names that ``find_shape`` knows."""
    return tuple(_shapes())


def find_shape(name: str, **sizes: int | None) -> Shape:
    """The shape of that name, with the sizes that are not None in the place of its own: ``layers``,
    ``hidden``, ``heads``, ``kv_heads``, ``head_dim``, ``intermediate``, ``experts``,
    ``experts_per_token``, ``expert_intermediate``, ``vocab``, ``context``.

    ``ValueError`` for an unknown name, for a value below 1, for a size that the model does not
    have and for sizes that do not fit together.
    """
    shapes = _shapes()
    shape = shapes.get(name)
    if shape is None:
        close = difflib.get_close_matches(name, shapes, n=1)
        hint = f"did you mean {close[0]}? Known" if close else "known"
        raise ValueError(f"no shape is called {name!r}; {hint} are {', '.join(shapes)}")
    assert sizes.keys() <= set(SIZES), sizes
    changes = {size: value for size, value in sizes.items() if value is not None}
    for size, value in changes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{size} is {value!r}; it must be a positive integer")
    if not changes:
        return shape
    try:
        fields, notes = changed(shape.fields, changes)
        shape = Shape(name=name, fields=fields, notes=tuple(notes))
        shape.spec()
    except ValueError as error:
        asked = ", ".join(f"{size} {value}" for size, value in changes.items())
        raise ValueError(f"{name} with {asked} is no model: {error}") from error
    return shape


@lru_cache(maxsize=1)
def _shapes() -> Mapping[str, Shape]:
    return {
        name: Shape(name=name, fields=text_part(known_config(name)))
        for name in model_names()
        if known_model(name).runs_on_bandweave
    }
