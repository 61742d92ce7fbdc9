"""Hardware that a user describes: ``bandwidth=204GB/s,memory=256GB,...`` or a TOML table; or a
known machine with fields of his own, ``epyc-9755-12ch,price=12000``. Pure."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from bandweave.planning.machines.hardware import (
    DISCRETE,
    PROCESSORS,
    Hardware,
    Price,
    find_hardware,
)
from bandweave.planning.machines.quantities import quantity
from bandweave.shown import printable, shown

_KINDS = (*PROCESSORS, *DISCRETE, "apple", "apu", "gb10")

# Field: the unit that a plain number has.
_FIELDS = {
    "bandwidth": "B/s", "memory": "B", "flops": "FLOP/s", "fp32": "FLOP/s", "fp16": "FLOP/s",
    "fp8": "FLOP/s", "int8": "FLOP/s", "fp4": "FLOP/s", "cpu-bandwidth": "B/s",
    "cpu-flops": "FLOP/s", "watts": "W", "price": "USD",
}  # fmt: skip
_TEXTS = ("name", "kind", "host", "source", "like")
_RATES = ("fp32", "fp16", "fp8", "int8", "fp4")
_DECIMAL = re.compile(r"([kmgt])b(ytes?)?", re.IGNORECASE)
_SOCKETS = "sockets"


def hardware_from_text(text: str) -> Hardware:
    """A name of the catalogue, or a description: ``FIELD=VALUE`` pairs with commas between them.

    ``bandwidth`` and ``memory`` are needed unless a known name stands first, whose other fields
    then stay; ``flops`` stands for fp32 and fp16. ``ValueError`` that names the field where
    something is wrong."""
    if "=" not in text:
        return find_hardware(text)
    fields: dict[str, Any] = {}
    first, *others = text.split(",")
    if "=" not in first:
        fields["like"] = first.strip()
    for part in others if "like" in fields else (first, *others):
        key, equals, value = part.partition("=")
        if not equals or not value.strip():
            raise ValueError(f"{shown(part.strip())} in {shown(text)} is no FIELD=VALUE")
        fields[key.strip().lower()] = value.strip()
    return hardware_from_fields(fields)


def hardware_from_toml(text: str) -> dict[str, Hardware]:
    """A user's file: one table a machine, its name the table's, with the fields as in text.

    A table named after a known machine, or with ``like = "NAME"``, has the other fields of that."""
    try:
        tables = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("the hardware file is no TOML: it is nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        raise ValueError(f"the hardware file is no TOML: {error}") from error
    result = {}
    for name, table in tables.items():
        shown_name = printable(name)[:80]
        if not isinstance(table, dict):
            raise ValueError(
                f"the hardware file: {shown_name} must be a table, like [{shown_name}]"
            )
        try:
            result[name] = hardware_from_fields(_based(name, table))
        except ValueError as error:
            raise ValueError(f"the hardware file, [{shown_name}]: {error}") from error
    return result


def _based(name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """A table with the machine that it changes, where it does not say enough of its own."""
    if "like" not in table and not ("bandwidth" in table and "memory" in table):
        try:
            find_hardware(name)
        except ValueError:
            return {"name": name, **table}
        return {"name": name, "like": name, **table}
    return {"name": name, **table}


def hardware_from_fields(fields: Mapping[str, Any]) -> Hardware:
    """The hardware of checked fields."""
    unknown = [name for name in fields if name not in (*_FIELDS, *_TEXTS, _SOCKETS)]
    if unknown:
        known = ", ".join((*_FIELDS, *_TEXTS, _SOCKETS))
        raise ValueError(f"{shown(unknown[0])} is no field of hardware; fields are {known}")
    for name in _TEXTS:
        if not isinstance(fields.get(name, ""), str):
            raise ValueError(f"{name} is {shown(fields[name])}; it must be a text")
    values = {
        name: quantity(
            _as_sold(fields[name]) if name == "memory" else fields[name], unit, what=name
        )
        for name, unit in _FIELDS.items()
        if name in fields
    }
    if "kind" in fields:
        _check_kind(str(fields["kind"]))
    if "like" in fields:
        return _changed(find_hardware(fields["like"]), fields, values)
    for name in ("bandwidth", "memory"):
        if name not in values:
            raise ValueError(f"the hardware lacks {name}=...; for instance {name}=204GB"
                             f"{'/s' if name == 'bandwidth' else ''}")  # fmt: skip
    kind = str(fields.get("kind", "cpu-server"))
    rates = _rates(values)
    processor = kind in PROCESSORS
    memory = int(values["memory"])
    return Hardware(
        name=str(fields.get("name", "custom")),
        title=str(fields.get("name", "as described")),
        kind=kind,
        memory_bytes=memory,
        memory_options_bytes=(memory,),
        bytes_per_s=values["bandwidth"],
        flop_per_s=rates,
        cpu_bytes_per_s=values.get("cpu-bandwidth", values["bandwidth"] if processor else None),
        sockets=_sockets(fields.get(_SOCKETS, 1)),
        cpu_flop_per_s=values.get("cpu-flops", rates.get("fp32") if processor else None),
        host=str(fields["host"]) if "host" in fields else None,
        watts=values.get("watts"),
        price_usd=values.get("price"),
        confidence="as described by the user",
        source=str(fields.get("source", "the user")),
    )


def _changed(base: Hardware, fields: Mapping[str, Any], values: Mapping[str, float]) -> Hardware:
    """A known machine with the fields that the user gives, which are never passed over."""
    rates = _rates(values)
    kind = str(fields.get("kind", base.kind))
    changes: dict[str, Any] = {"kind": kind, "flop_per_s": {**base.flop_per_s, **rates}}
    if "memory" in values:
        memory = int(values["memory"])
        changes |= {"memory_bytes": memory, "memory_options_bytes": (memory,)}
    if "bandwidth" in values:
        changes["bytes_per_s"] = values["bandwidth"]
        if kind in PROCESSORS:
            changes["cpu_bytes_per_s"] = values["bandwidth"]
    if "cpu-bandwidth" in values:
        changes["cpu_bytes_per_s"] = values["cpu-bandwidth"]
    if "cpu-flops" in values or (kind in PROCESSORS and "fp32" in rates):
        changes["cpu_flop_per_s"] = values.get("cpu-flops", rates.get("fp32"))
    if _SOCKETS in fields:
        changes["sockets"] = _sockets(fields[_SOCKETS])
    if "watts" in values:
        changes |= {"watts": values["watts"], "measured_watts": None}
    if "price" in values:
        changes["price_usd"] = values["price"]
        changes["prices"] = (Price(kind="yours", usd=values["price"], source="the user"),)
    given = [name for name in fields if name not in ("like", "name")]
    for name in ("name", "host", "source"):
        if name in fields:
            changes[name] = str(fields[name])
    said = f"{', '.join(given)} as described by the user" if given else ""
    changes["confidence"] = "; ".join(part for part in (base.confidence, said) if part)
    return dataclasses.replace(base, **changes)


def _rates(values: Mapping[str, float]) -> dict[str, float]:
    """FLOP/s by type; ``flops`` stands for two of them."""
    rates = {name: values[name] for name in _RATES if name in values}
    if "flops" in values:
        rates = {"fp32": values["flops"], "fp16": values["flops"], **rates}
    return rates


def _check_kind(kind: str) -> None:
    if kind not in _KINDS:
        raise ValueError(f"kind {shown(kind)} is not known; known are {', '.join(_KINDS)}")


def _as_sold(value: Any) -> Any:
    """Memory in the GiB that boxes and data sheets call GB."""
    return _DECIMAL.sub(r"\1iB", value) if isinstance(value, str) else value


def _sockets(value: Any) -> int:
    if str(value) not in ("1", "2", "4", "8"):
        raise ValueError(f"sockets is {shown(value)}; it must be 1, 2, 4 or 8")
    return int(value)
