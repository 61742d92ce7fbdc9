"""GGUF files that hold a vocabulary and nothing else: read and written by the ``gguf`` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from tests.helpers.gguf_models import write_field


def read_metadata(path: Path) -> dict[str, Any]:
    """All fields of a file; bytes that are no UTF-8 become lone surrogates."""
    return {
        name: _value(field) for name, field in gguf.GGUFReader(path).fields.items() if field.types
    }


def _value(field: gguf.ReaderField) -> Any:
    kind, *items = field.types
    if kind == gguf.GGUFValueType.STRING:
        return bytes(field.parts[-1]).decode("utf-8", "surrogateescape")
    if kind != gguf.GGUFValueType.ARRAY:
        return field.parts[-1].tolist()[0]
    if items[-1] == gguf.GGUFValueType.STRING:
        return [bytes(field.parts[at]).decode("utf-8", "surrogateescape") for at in field.data]
    return [value for at in field.data for value in field.parts[at].tolist()]


def write_metadata(path: Path, metadata: dict[str, Any]) -> None:
    """A file of the fields, which llama.cpp loads as a vocabulary alone."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in metadata.items():
        write_field(writer, name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
