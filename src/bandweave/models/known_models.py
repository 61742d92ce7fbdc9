"""The known models by name: the one home of their configs. Reads one packaged file.

The values are those of the config.json that the models' makers publish, without the fields that
neither a count nor a run needs. ``data/variants.json`` has models of the sizes of another one, with
the fields that differ. ``synth`` makes random checkpoints of those that the engine runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from bandweave.matching import Matcher
from bandweave.models.config_shape import shape_from_config
from bandweave.models.model_names import matcher_of, without_format
from bandweave.models.model_shape import ModelShape
from bandweave.shown import shown


def model_names() -> tuple[str, ...]:
    """All names, variants left out, in the file's order: by family and size."""
    return tuple(_configs())


def variant_names() -> Mapping[str, str]:
    """Models of the very sizes of another one, by name: whose they have."""
    return {name: variant["like"] for name, variant in _variants().items()}


def find_model(text: str) -> str:
    """The name of the model that a text means, as people write it: ``llama3.1:70b``,
    ``Qwen/Qwen3-8B``. ``ValueError`` with near names for an unknown one."""
    key = text.strip().lower()
    if key in _configs() or key in _variants():
        return key
    plain, _ = without_format(text)
    found = _matcher().find(plain)
    if found is not None:
        return found.key
    near = _matcher().near(plain)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(
        f"no model is called {shown(text)}; {hint}`plan --list models WORDS` finds names"
    )


def model_matches(text: str) -> list[str]:
    """The names that have all words of a text, variants too."""
    return _matcher().containing(text)


def known_config(name: str) -> dict[str, Any]:
    """A copy of the config of what a name means; ``ValueError`` as ``find_model``."""
    key = find_model(name)
    changes = dict(_variants().get(key, {}))
    config = json.loads(json.dumps(_configs()[changes.pop("like", key)]))
    text = config.get("text_config")
    for field, value in changes.items():
        (text if isinstance(text, dict) and field in text else config)[field] = value
    return config


def known_model(name: str) -> ModelShape:
    """The shape of the model that a name means; ``ValueError`` as ``find_model``."""
    return shape_from_config(known_config(name), name=find_model(name))


@lru_cache(maxsize=1)
def _matcher() -> Matcher:
    return matcher_of((*_configs(), *_variants()))


@lru_cache(maxsize=1)
def _variants() -> Mapping[str, Any]:
    text = resources.files("bandweave.models").joinpath("data/variants.json").read_text("utf-8")
    return json.loads(text)


@lru_cache(maxsize=1)
def _configs() -> Mapping[str, Any]:
    text = resources.files("bandweave.models").joinpath("data/models.json").read_text("utf-8")
    return json.loads(text)
