"""The packaged table of published measurements, from those that the calibration uses.

``python -m benchmarks.plan_documents`` writes it; a test compares.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from benchmarks.calibration.measurements import measured_rows

TABLE = Path(__file__).resolve().parents[1] / "src/bandweave/planning/data/published.csv"
_COLUMNS: tuple[str, ...] = (
    "hardware", "devices", "link", "split", "model", "format", "engine", "streams", "context",
    "decode_tokens_per_s", "prefill_tokens_per_s", "source",
)  # fmt: skip


def published_table() -> str:
    """The rows whose machine, model and split are known, as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for row in measured_rows() if not row["left_out"])
    return text.getvalue()
