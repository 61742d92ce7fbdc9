"""Fields: a JSON object of a client's, read field by field, each checked and named in errors.

Null is as absent, as clients write it. What was never asked for is left alone: clients send fields
of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bandweave.serving.errors import ApiError, bad, unsupported
from bandweave.shown import shown

_INT64 = 1 << 63


class Fields:
    """``path`` names the object in errors, empty for the body itself."""

    def __init__(self, values: Any, path: str = "") -> None:
        if not isinstance(values, Mapping):
            what = path or "the body"
            raise bad(f"{what} must be a JSON object, not {shown(values)}", path or None)
        self.values, self.path = values, path

    def name(self, field: str) -> str:
        """How errors call a field."""
        return f"{self.path}.{field}" if self.path else field

    def has(self, field: str) -> bool:
        return self.values.get(field) is not None

    def any(self, field: str) -> Any:
        return self.values.get(field)

    def text(self, field: str, default: str | None = None) -> str:
        value = self._value(field, default)
        if not isinstance(value, str):
            raise self._error(field, "a string", value)
        return value

    def flag(self, field: str, default: bool | None = False) -> bool:
        value = self._value(field, default)
        if not isinstance(value, bool):
            raise self._error(field, "true or false", value)
        return value

    def number(self, field: str, default: float | None, low: float, high: float) -> float:
        value = self._value(field, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._error(field, "a number", value)
        if not math.isfinite(value) or not low <= value <= high:
            raise bad(f"{self.name(field)} is {shown(value)}; it must be from {low:g} to {high:g}",
                      self.name(field))  # fmt: skip
        return float(value)

    def integer(
        self, field: str, default: int | None, low: int = -_INT64, high: int = _INT64 - 1
    ) -> int:
        value = self._value(field, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._error(field, "a whole number", value)
        if not low <= value <= high:
            raise bad(f"{self.name(field)} is {shown(value)}; it must be from {low} to {high}",
                      self.name(field))  # fmt: skip
        return value

    def one_of(self, field: str, known: Sequence[str], default: str | None = None) -> str:
        value = self.text(field, default)
        if value not in known:
            raise bad(f"{self.name(field)} is {shown(value)}; it must be one of "
                      f"{', '.join(known)}", self.name(field))  # fmt: skip
        return value

    def list(self, field: str, *, most: int = 1 << 20) -> Sequence[Any]:
        """Empty where it is absent."""
        value = self.values.get(field)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._error(field, "a list", value)
        if len(value) > most:
            raise bad(f"{self.name(field)} has {len(value)} entries; there may be {most} at most",
                      self.name(field))  # fmt: skip
        return value

    def object(self, field: str) -> Fields | None:
        """None where it is absent."""
        value = self.values.get(field)
        return None if value is None else Fields(value, self.name(field))

    def need(self, field: str) -> Fields:
        """An object that must be there."""
        return Fields(self._value(field, None), self.name(field))

    def objects(self, field: str, *, most: int = 1 << 16) -> Iterator[Fields]:
        for index, value in enumerate(self.list(field, most=most)):
            yield Fields(value, f"{self.name(field)}[{index}]")

    def refuse(self, field: str, *but: Any, why: str = "") -> None:
        """A field that is not supported, unless it says nothing, or what is so anyway."""
        value = self.values.get(field)
        if value is not None and not any(value == one for one in but):
            raise unsupported(self.name(field), why)

    def _value(self, field: str, default: Any) -> Any:
        value = self.values.get(field)
        if value is None:
            value = default
        if value is None:
            raise bad(f"{self.name(field)} is missing", self.name(field))
        return value

    def _error(self, field: str, wanted: str, value: Any) -> ApiError:
        return bad(f"{self.name(field)} must be {wanted}, not {shown(value)}", self.name(field))
