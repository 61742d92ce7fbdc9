"""Reads the small JSON and text files that come with a tokenizer. Knows no tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bandweave import files
from bandweave.shown import printable

_MOST_BYTES = 16_000_000


class TextError(ValueError):
    """A tokenizer, template or text that cannot be used; says what to do."""


def read_text(path: Path, *, most: int = _MOST_BYTES) -> str | None:
    """The content of a UTF-8 file of at most ``most`` bytes; None where there is no such file."""
    if not files.is_there(path):
        return None
    content = files.read_bytes(path, most=most, error=TextError)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{printable(path)} is not UTF-8: byte {error.start} is wrong; download it again"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is no such file."""
    if not files.is_there(path):
        return {}
    return files.read_json(path, most=_MOST_BYTES, error=TextError)[0]
