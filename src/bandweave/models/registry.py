"""From a ``config.json`` to the family that computes it. Knows the families, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from bandweave.models import llama, qwen3
from bandweave.models.config import ConfigError
from bandweave.models.graph import Graph
from bandweave.models.spec import ModelSpec

_FAMILIES: Mapping[str, ModuleType] = {"llama": llama, "qwen3": qwen3}


def supported_architectures() -> tuple[str, ...]:
    """The values of ``architectures`` in a config.json that can be run."""
    return tuple(name for family in _FAMILIES.values() for name in family.ARCHITECTURES)


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """The spec of a model from its parsed ``config.json``; ``ConfigError`` if it cannot be run."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        raise ConfigError("config.json has no 'architectures'; is this a model folder?")
    for family in _FAMILIES.values():
        if names[0] in family.ARCHITECTURES:
            try:
                return family.from_config(config)
            except ConfigError:
                raise
            except ValueError as error:
                raise ConfigError(f"config.json: {error}") from error
    supported = ", ".join(supported_architectures())
    raise ConfigError(f"{names[0]} is not supported; supported are {supported}")


def build_graph(spec: ModelSpec) -> Graph:
    """The operations of one step of the model."""
    return _FAMILIES[spec.family].build(spec)
