"""Records: frozen dataclasses to JSON values and back, every field checked.

For data that comes from a file or another machine. Knows numbers, fractions, texts, tuples, sets,
mappings by text and nested records; knows no files. Numbers are at least 0, but for fields that a
record's ``SIGNED`` names: numbers, or tuples of them.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from bandweave.shown import shown

_MOST_ENTRIES, _MOST_INTEGER = 1 << 22, 1 << 64
_FRACTION = re.compile(r"\d{1,24}(/0{0,24}[1-9]\d{0,23})?", re.ASCII)

T = TypeVar("T")


def to_json(record: Any) -> Any:
    """Objects, lists, numbers and texts that ``from_json`` reads."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, tuple):
        if _are_numbers(record):
            return list(record)  # thousands of tokens
        return [to_json(value) for value in record]
    if isinstance(record, frozenset):
        return sorted(record)
    return str(record) if isinstance(record, Fraction) else record


def from_json(kind: type[T], value: Any, where: str = "it") -> T:
    """The record that ``to_json`` wrote. ``ValueError`` names the field that is wrong: missing,
    unknown, of another type, negative or not finite."""
    return _read(kind, value, where)


def _read(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        present = [one for one in arguments if one is not type(None)]
        assert len(present) == 1 and len(arguments) == 2, kind
        return None if value is None else _read(present[0], value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) > _MOST_ENTRIES:
            raise ValueError(f"{where} must be a list, not {shown(value)}")
        if arguments[-1] is not Ellipsis:
            return _fixed(arguments, value, where)
        if arguments[0] is int and _are_numbers(value):
            return tuple(value)  # thousands of tokens
        return tuple(_read(arguments[0], one, f"{where}[{i}]") for i, one in enumerate(value))
    if origin is frozenset:
        return frozenset(_read(tuple[arguments[0], ...], value, where))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict) or len(value) > _MOST_ENTRIES:
            raise ValueError(f"{where} must be an object, not {shown(value)}")
        return {
            key: _read(arguments[1], one, f"{where}[{shown(key)}]") for key, one in value.items()
        }
    return _plain(kind, value, where)


def _fixed(kinds: tuple[Any, ...], value: Sequence[Any], where: str) -> tuple[Any, ...]:
    """A tuple of so many entries, each of its own kind."""
    if len(value) != len(kinds):
        raise ValueError(f"{where} must have {len(kinds)} entries, not {len(value)}")
    pairs = zip(kinds, value, strict=True)
    return tuple(_read(kind, one, f"{where}[{i}]") for i, (kind, one) in enumerate(pairs))


def _record(kind: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object, not {shown(value)}")
    hints = _hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    unknown, missing = value.keys() - set(fields), set(fields) - value.keys()
    if unknown:
        raise ValueError(f"{where} has an unknown field {shown(sorted(unknown)[0])}")
    if missing:
        raise ValueError(f"{where} lacks the field {sorted(missing)[0]!r}")
    signed = getattr(kind, "SIGNED", frozenset())
    return kind(
        **{
            name: _read(hints[name], value[name], f"{where}.{name}")
            if name not in signed
            else _signed(value[name], f"{where}.{name}")
            for name in fields
        }
    )


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether all are whole numbers that a record may hold."""
    if not values or set(map(type, values)) != {int}:
        return False
    return min(values) >= 0 and max(values) <= _MOST_INTEGER


@cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    """The types of a record's fields; to find them takes longer than to read most records."""
    return get_type_hints(kind)


def _signed(value: Any, where: str) -> float | tuple[float, ...]:
    if isinstance(value, (list, tuple)) and len(value) <= _MOST_ENTRIES:
        return tuple(_signed_number(one, f"{where}[{i}]") for i, one in enumerate(value))
    return _signed_number(value, where)


def _signed_number(value: Any, where: str) -> float:
    below = isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0
    return -_plain(float, -value, where) if below else _plain(float, value, where)


def _plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and number >= 0:
            return number
    if kind is int and type(value) is int and 0 <= value <= _MOST_INTEGER:
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    # Bounded, since Python would go on and compute 1e2000000000.
    if kind is Fraction and isinstance(value, str) and _FRACTION.fullmatch(value):
        return Fraction(value)
    names = {Fraction: "a fraction of at least 0 as text, such as 3/2",
             float: "a number of at least 0", int: "a whole number of at least 0", str: "a text",
             bool: "true or false"}  # fmt: skip
    raise ValueError(f"{where} must be {names[kind]}, not {shown(value)}")
