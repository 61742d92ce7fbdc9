"""Fits the planner's factors to published measurements again, and writes them into the package.

``python -m benchmarks.calibration`` takes some minutes. Factors are fitted to all rows; how far
predictions are off comes from fits that did not see a row's machine (``unseen``). ``--check``
writes nothing and fails where the package holds other numbers.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bandweave.planning.costs.efficiency import Factors
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.costs.ranges import KINDS
from bandweave.planning.machines.tables import rows as table_rows
from benchmarks.calibration.fit import CLASSES, class_of, fit
from benchmarks.calibration.measurements import Measurement, measurements
from benchmarks.calibration.unseen import (
    TABLE,
    Unseen,
    class_spreads,
    power_of,
    predict_unseen,
    table_text,
)

_WORKERS = 8  # processes: a fit for all rows, and one for each fold
DATA = Path(__file__).parents[2] / "src" / "bandweave" / "planning" / "data"


def main() -> None:
    check = "--check" in sys.argv[1:]
    rows = measurements()
    engines = {row["name"]: find_engine(row["name"]) for row in table_rows("engines")}
    with ProcessPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as pool:
        whole = pool.submit(fit, rows, engines)
        unseen = predict_unseen(rows, engines, pool)
        factors, traits = whole.result()
    files = {
        DATA / "efficiency.csv": _text("efficiency", _factor_lines(factors, unseen)),
        DATA / "engines.csv": _text("engines", _engine_lines(traits, rows)),
        DATA / "ranges.csv": _text("ranges", _range_lines(unseen)),
        TABLE: table_text(unseen),
    }
    for path, text in files.items():
        if not check:
            path.write_text(text, "utf-8")
        elif path.read_text("utf-8") != text:
            sys.exit(f"{path} differs from what a fit gives; run python -m benchmarks.calibration")
    if not check:
        # In a new process: this one has read the tables that were.
        command = "from benchmarks.calibration.document import write; write()"
        subprocess.run([sys.executable, "-c", command], check=True)


def _factor_lines(
    factors: Mapping[str, Factors], unseen: Sequence[Unseen]
) -> list[Mapping[str, str]]:
    spreads = class_spreads(unseen, CLASSES)
    counts = {
        (name, reading): sum(one.reading == reading and class_of(one.row) == name for one in unseen)
        for name in CLASSES
        for reading in (False, True)
    }
    lines: list[Mapping[str, str]] = [
        _factor_line(kind, name, factors[name], counts, spreads)
        for name, kinds in CLASSES.items()
        for kind in kinds
    ]
    return lines + [row for row in table_rows("efficiency") if row["name"].startswith("bandweave/")]


def _factor_line(
    kind: str,
    name: str,
    factors: Factors,
    counts: Mapping[tuple[str, bool], int],
    spreads: Mapping[tuple[str, bool], float],
) -> dict[str, str]:
    return {
        "name": kind,
        "weight_efficiency": f"{factors.weight_efficiency:.3f}",
        "weight_16_gain": f"{factors.weight_16_gain:.3f}",
        "kv_efficiency": f"{factors.kv_efficiency:.3f}",
        "compute_efficiency": f"{factors.compute_efficiency:.3f}",
        "compute_16_efficiency": f"{factors.compute_16_efficiency:.3f}",
        "expert_compute_efficiency": f"{factors.expert_compute_efficiency:.3f}",
        "attention_efficiency": f"{factors.attention_efficiency:.3f}",
        "state_efficiency": f"{factors.state_efficiency:.3f}",
        "layer_us": f"{factors.layer_s * 1e6:.1f}",
        "expert_layer_us": f"{factors.expert_layer_s * 1e6:.1f}",
        "latent_layer_us": f"{factors.latent_layer_s * 1e6:.1f}",
        "linear_layer_us": f"{factors.linear_layer_s * 1e6:.1f}",
        "routing_row_us": f"{factors.routing_row_s * 1e6:.3f}",
        "score_bytes": f"{factors.score_bytes:.0f}",
        "bus_efficiency": f"{factors.bus_efficiency:.3f}",
        "card_speed": f"{factors.card_speed:.3f}",
        "decode_spread": f"{spreads[name, False]:.3f}",
        "prefill_spread": f"{spreads[name, True]:.3f}",
        "decode_rows": str(counts[name, False]),
        "prefill_rows": str(counts[name, True]),
        "source": f"fitted: {name}",
    }


def _engine_lines(traits: Mapping, rows: Sequence[Measurement]) -> list[Mapping[str, str]]:
    lines = []
    for row in table_rows("engines"):
        trait = traits[row["name"]]
        count = sum(one.engine == trait.name and one.devices > 1 for one in rows)
        lines.append(
            {**row, "hop_us": f"{trait.hop_s * 1e6:.4g}", "overlap": f"{trait.overlap:.3g}",
             "exchange_us": f"{trait.exchange_s * 1e6:.4g}",
             "sharded_overhead": f"{trait.sharded_overhead:.3g}", "rows": str(count)}
        )  # fmt: skip
    return lines


def _range_lines(unseen: Sequence[Unseen]) -> list[Mapping[str, str]]:
    lines = []
    for split in KINDS:
        counts = [sum(one.reading == reading and one.row.split == split for one in unseen)
                  for reading in (False, True)]  # fmt: skip
        lines.append(
            {
                "split": split,
                "decode": f"{power_of(unseen, split, reading=False):.3f}",
                "prefill": f"{power_of(unseen, split, reading=True):.3f}",
                "decode_rows": str(counts[0]),
                "prefill_rows": str(counts[1]),
                "source": "calibration: unseen machines",
            }
        )
    return lines


def _text(name: str, lines: Sequence[Mapping[str, str]]) -> str:
    buffer = io.StringIO()
    header = (DATA / f"{name}.csv").read_text("utf-8").splitlines()[0].split(",")
    writer = csv.DictWriter(buffer, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
