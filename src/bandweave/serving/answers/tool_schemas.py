"""Which arguments of a tool are texts, as forms need to know that do not write JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def parameter(schemas: Mapping[str, Any], tool: str, name: str) -> Any:
    """The schema of a tool's parameter, None where it is not known."""
    schema = schemas.get(tool)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    found = properties.get(name) if isinstance(properties, Mapping) else None
    if isinstance(found, Mapping) and isinstance(reference := found.get("$ref"), str):
        place: Any = schema
        for part in reference.removeprefix("#/").split("/"):
            place = place.get(part) if isinstance(place, Mapping) else None
        return place
    return found


def types(schema: Any) -> frozenset[str]:
    """The types that a schema allows, empty where it does not say."""
    if not isinstance(schema, Mapping):
        return frozenset()
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset((kind,))
    if isinstance(kind, list):
        return frozenset(one for one in kind if isinstance(one, str))
    if isinstance(values := schema.get("enum"), list):
        return frozenset("string" if isinstance(one, str) else "other" for one in values)
    for word in ("anyOf", "oneOf"):
        if isinstance(several := schema.get(word), list):
            return frozenset().union(*(types(one) for one in several))
    return frozenset()


def is_text(schema: Any) -> bool:
    """Whether a parameter can be nothing but a text."""
    return types(schema) == {"string"}


def as_json(text: str, schema: Any) -> str:
    """An argument as JSON, from how the model wrote it."""
    allowed = types(schema)
    written = text.strip()
    lower = written.lower()
    if "string" in allowed and not (lower in ("null", "none") and "null" in allowed):
        try:
            # One of several types: what reads as another one is meant so.
            if len(allowed) > 1 and not isinstance(json.loads(written), str):
                return written
        except ValueError:
            pass
        return json.dumps(text, ensure_ascii=False)
    for word, meaning in (("true", "true"), ("false", "false"), ("null", "null"), ("none", "null")):
        if lower == word:
            return meaning
    try:
        json.loads(written, parse_constant=_refuse)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)
    return written


def _refuse(name: str) -> None:
    raise ValueError(name)
