"""Reads the small JSON and text files that come with a tokenizer. Knows no tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MAX_BYTES = 16_000_000


class TextError(ValueError):
    """A tokenizer, template or text that cannot be used; says what to do."""


def read_text(path: Path) -> str | None:
    """The content of a UTF-8 file of at most 16 MB; None where there is no such file."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise TextError(f"{path} has more than {_MAX_BYTES} bytes; is it the right file?")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8: {error}; download it again") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is no such file."""
    text = read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TextError(f"{path} is no valid JSON: {error}; download it again") from error
    if not isinstance(value, dict):
        raise TextError(f"{path} must be a JSON object, not {type(value).__name__}")
    return value


def special_tokens(folder: Path) -> dict[str, str]:
    """``bos_token``, ``eos_token`` and the like, as text, by name.

    From ``tokenizer_config.json``, else from ``special_tokens_map.json``. A token is stored as a
    string or as an object with its ``content``.
    """
    result: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in read_object(folder / name).items():
            content = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(content, str):
                result[key] = content
    return result
