"""Reads fields of a Hugging Face ``config.json``, checking their types.

Knows the field names that the families share; knows no family and no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bandweave.models.spec import RopeScaling, RopeSpec


class ConfigError(ValueError):
    """A config that cannot be believed or is not supported; the message says what to do."""


def integer(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A positive integer field."""
    value = config.get(name, default)
    if value is None:
        raise ConfigError(f"config.json has no {name!r}")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"config.json: {name} is {value!r}; it must be a positive integer")
    return value


def number(config: Mapping[str, Any], name: str, default: float) -> float:
    """A positive number field."""
    value = config.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise ConfigError(f"config.json: {name} is {value!r}; it must be a positive number")
    return float(value)


def flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    """A boolean field; null counts as absent."""
    value = config.get(name, default)
    if value is None:
        value = default
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {name} is {value!r}; it must be true or false")
    return value


def require(config: Mapping[str, Any], name: str, allowed: tuple[Any, ...], default: Any) -> None:
    """Refuses a field whose value changes the computation in a way that is not implemented."""
    value = config.get(name, default)
    if value not in allowed:
        choices = " or ".join(repr(choice) for choice in allowed)
        raise ConfigError(f"config.json: {name} is {value!r}; only {choices} is supported")


def head_dim(config: Mapping[str, Any]) -> int:
    """``head_dim``, or ``hidden_size / num_attention_heads`` where it is absent or null."""
    if config.get("head_dim") is not None:
        return integer(config, "head_dim")
    hidden, heads = integer(config, "hidden_size"), integer(config, "num_attention_heads")
    if hidden % heads:
        raise ConfigError(f"config.json: hidden_size {hidden} is no multiple of {heads} heads")
    return hidden // heads


def rope(config: Mapping[str, Any]) -> RopeSpec:
    """The rope fields, in the older spelling (``rope_theta``, ``rope_scaling``) or the newer one
    (``rope_parameters``)."""
    parameters = config.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise ConfigError("config.json: rope_parameters must be an object")
    scaling = config.get("rope_scaling") or parameters
    if not isinstance(scaling, Mapping):
        raise ConfigError("config.json: rope_scaling must be an object")
    theta = number({**config, **parameters}, "rope_theta", 10000.0)
    partial = number({**config, **parameters}, "partial_rotary_factor", 1.0)
    rotary = int(head_dim(config) * partial)
    return RopeSpec(theta=theta, rotary_dim=rotary, scaling=_scaling(scaling, config))


def _scaling(scaling: Mapping[str, Any], config: Mapping[str, Any]) -> RopeScaling | None:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind in (None, "default"):
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=number(scaling, "factor", 1.0))
    if kind == "llama3":
        return RopeScaling(
            kind="llama3",
            factor=number(scaling, "factor", 8.0),
            low_freq_factor=number(scaling, "low_freq_factor", 1.0),
            high_freq_factor=number(scaling, "high_freq_factor", 4.0),
            original_context_length=integer(
                {**config, **scaling}, "original_max_position_embeddings", 8192
            ),
        )
    raise ConfigError(
        f"config.json: rope scaling {kind!r} is not supported; supported are 'default', "
        "'linear' and 'llama3'"
    )
