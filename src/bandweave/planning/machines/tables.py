"""The packaged tables: CSV files with a source in every row. Reads packaged files, nothing else."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources

Row = Mapping[str, str]


@lru_cache(maxsize=16)
def rows(name: str) -> tuple[Row, ...]:
    """The rows of ``data/NAME.csv``, by column."""
    file = resources.files("bandweave.planning").joinpath(f"data/{name}.csv")
    return tuple(csv.DictReader(io.StringIO(file.read_text("utf-8"))))


def number(row: Row, column: str) -> float | None:
    """A number, or None where the table says ``unknown`` or nothing. What follows the number in
    brackets is a remark."""
    text = row[column].split("(")[0].strip()
    if text in ("", "unknown"):
        return None
    return float(text)


def required(row: Row, column: str) -> float:
    """A number that the table must have."""
    value = number(row, column)
    assert value is not None, f"{row.get('name', '?')}: {column} is {row[column]!r}"
    return value
