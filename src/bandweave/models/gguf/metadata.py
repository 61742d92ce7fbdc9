"""Metadata: the fields of a GGUF header that describe a model, with their types checked.

Names are llama.cpp's (gguf-py/gguf/constants.py), those of an architecture without it before them.
Knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.models.config import ConfigError
from bandweave.models.limits import MOST_SIZE
from bandweave.shown import shown

ARCHITECTURE = "general.architecture"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """``fields`` by their whole names; ``shapes`` of all tensors, inputs last, by their stored
    names; ``vector`` reads a small one."""

    architecture: str
    fields: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    vector: Callable[[str], Sequence[float]]

    def has(self, key: str) -> bool:
        """Whether the architecture has a field of that name."""
        return self._name(key) in self.fields

    def size(self, key: str, default: int | None = None) -> int:
        """A size; one that is given by layer must be the same in all of them. ``ConfigError``
        where it is missing and there is no default."""
        value = self._value(key)
        if value is None:
            if default is None:
                raise ConfigError(f"the field {self._name(key)} is missing; is this a whole model?")
            return default
        if isinstance(value, list):
            if len(set(map(str, value))) != 1:
                raise self._wrong(key, value, "the same in every layer; other models cannot be run")
            value = value[0]
        if not _is_size(value):
            raise self._wrong(key, value, "a size")
        return value

    def number(self, key: str, default: float | None = None) -> float | None:
        """A finite number."""
        value = self._value(key)
        if value is None:
            return default
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._wrong(key, value, "a number")
        if not math.isfinite(value):
            raise self._wrong(key, value, "finite")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str) -> str | None:
        """A text; None where there is none."""
        value = self._value(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def flags(self, key: str) -> list[bool] | None:
        """A flag for each layer, which may be written as 0 and 1; None where there is no list."""
        value = self._value(key)
        if not isinstance(value, list):
            return None
        if not all(isinstance(one, (bool, int)) and one in (0, 1) for one in value):
            raise self._wrong(key, value, "a list of flags")
        return [bool(one) for one in value]

    def _value(self, key: str) -> Any:
        return self.fields.get(self._name(key))

    def _name(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def _wrong(self, key: str, value: Any, what: str) -> ConfigError:
        return ConfigError(f"the field {self._name(key)} is {shown(value)}; it must be {what}")


def architecture_of(fields: Mapping[str, Any]) -> str:
    """What llama.cpp calls the kind of model; ``ConfigError`` where the header does not say."""
    value = fields.get(ARCHITECTURE)
    if not isinstance(value, str) or not value:
        raise ConfigError(
            f"the field {ARCHITECTURE} is {shown(value)}; it must be the name of an architecture"
        )
    return value


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_SIZE
