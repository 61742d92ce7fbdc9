"""Reads fields of a Hugging Face ``config.json``, checking their types and their sizes.

Knows the kinds of values that fields have; knows no family and no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bandweave.models.limits import MOST_LAYERS, MOST_POSITIONS, MOST_SIZE
from bandweave.shown import shown

Config = Mapping[str, Any]

_MOST: Mapping[str, int] = {
    "num_hidden_layers": MOST_LAYERS,
    "max_position_embeddings": MOST_POSITIONS,
    "original_max_position_embeddings": MOST_POSITIONS,
    "sliding_window": MOST_POSITIONS,
}

_LEAST_FACTOR, _MOST_FACTOR = 2.0**-20, 2.0**20


class ConfigError(ValueError):
    """A config that cannot be believed or is not supported; the message says what to do."""


#: Fields of which null says something that the default does not: as many KV heads as query heads,
#: no window, no bound.
_NULLABLE = (
    "num_key_value_heads", "sliding_window", "attn_logit_softcapping", "final_logit_softcapping",
)  # fmt: skip


def with_defaults(config: Config, defaults: Config) -> dict[str, Any]:
    """The config with a family's defaults in the place of fields that are absent or null."""
    result = dict(config)
    for name, value in defaults.items():
        if name not in config or (config[name] is None and name not in _NULLABLE):
            result[name] = value
    return result


def integer(config: Config, name: str, default: int | None = None) -> int:
    """A positive integer field that is not too large to be believed; null counts as absent."""
    value = config.get(name)
    if value is None:
        value = default
    if value is None:
        raise ConfigError(f"config.json has no {name!r}")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"config.json: {name} is {shown(value)}; it must be a positive integer")
    most = _MOST.get(name, MOST_SIZE)
    if value > most:
        raise ConfigError(
            f"config.json: {name} is {shown(value)}; more than {most} is not believed"
        )
    return value


def count(config: Config, name: str) -> int:
    """An integer field of at least 0; 0 where it is absent or null."""
    return 0 if config.get(name) in (None, 0) else integer(config, name)


def number(config: Config, name: str, default: float | None = None) -> float:
    """A positive and finite number field; null counts as absent."""
    value = config.get(name)
    if value is None:
        value = default
    if value is None:
        raise ConfigError(f"config.json has no {name!r}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
        if 0 < result < math.inf:
            return result
    raise ConfigError(f"config.json: {name} is {shown(value)}; it must be a positive number")


def factor(config: Config, name: str, default: float | None = None) -> float:
    """A number by which others are multiplied, or which bounds them: between 2^-20 and 2^20, as
    docs/numerics.md (sections 5 and 11) has it."""
    result = number(config, name, default)
    if not _LEAST_FACTOR <= result <= _MOST_FACTOR:
        raise ConfigError(
            f"config.json: {name} is {shown(config[name])}; a factor or a bound below 2^-20 or "
            "above 2^20 is not believed"
        )
    return result


def epsilon(config: Config, name: str) -> float:
    """What a norm adds to the mean of squares: a positive number of at most 1."""
    result = number(config, name)
    if result > 1:
        raise ConfigError(f"config.json: {name} is {shown(config[name])}; above 1 is not believed")
    return result


def flag(config: Config, name: str, default: bool) -> bool:
    """A boolean field; null counts as absent."""
    value = config.get(name)
    if value is None:
        value = default
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {name} is {shown(value)}; it must be true or false")
    return value


def text(config: Config, name: str) -> str | None:
    """A text field; None where it is absent or null."""
    value = config.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"config.json: {name} is {shown(value)}; it must be a text")
    return value


def table(config: Config, name: str) -> Config:
    """A field that is an object; empty where it is absent or null."""
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"config.json: {name} is {shown(value)}; it must be an object")
    return value


def texts(config: Config, name: str) -> list[str]:
    """A field that is a list of texts; empty where it is absent or null."""
    value = config.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"config.json: {name} is {shown(value)}; it must be a list of texts")
    return value


def require(config: Config, name: str, allowed: tuple[Any, ...], default: Any) -> None:
    """Refuses a field whose value changes the computation in a way that is not implemented."""
    value = config.get(name)
    if value is None:
        value = default
    if value not in allowed:
        choices = " or ".join(repr(choice) for choice in allowed)
        raise ConfigError(f"config.json: {name} is {shown(value)}; only {choices} is supported")


def head_dim(config: Config) -> int:
    """``head_dim``, or ``hidden_size / num_attention_heads`` where it is absent or null."""
    if config.get("head_dim") is not None:
        return integer(config, "head_dim")
    hidden, heads = integer(config, "hidden_size"), integer(config, "num_attention_heads")
    if hidden % heads:
        raise ConfigError(f"config.json: hidden_size {hidden} is no multiple of {heads} heads")
    return hidden // heads


def kv_heads(config: Config) -> int:
    """``num_key_value_heads``, as many as query heads where it is null."""
    heads = integer(config, "num_attention_heads")
    result = integer(config, "num_key_value_heads", heads)
    if heads % result:
        raise ConfigError(
            f"config.json: {heads} heads (num_attention_heads) cannot share {result} KV heads "
            "(num_key_value_heads) evenly"
        )
    return result
