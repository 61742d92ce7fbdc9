"""Fits the planner's factors to published measurements again, and writes them into the package.

``python -m benchmarks.calibration`` takes some minutes. Rows that ``held_out_ids`` names are never
fitted to. Spreads come from rows of machines that a fit did not see. ``--check`` writes nothing
and fails where the package holds other numbers.
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bandweave.planning.costs.efficiency import Factors
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.machines.tables import rows as table_rows
from benchmarks.calibration.fit import CLASSES, Residual, class_of, fit, residuals, spread
from benchmarks.calibration.measurements import Measurement, held_out_ids, measurements

DATA = Path(__file__).parents[2] / "src" / "bandweave" / "planning" / "data"
FOLDS = 4
_FEW_MACHINES = 3


def main() -> None:
    check = "--check" in sys.argv[1:]
    held = held_out_ids()
    used = [row for row in measurements() if row.id not in held]
    engines = {row["name"]: find_engine(row["name"]) for row in table_rows("engines")}
    factors, traits = fit(used, engines)
    unseen = unseen_residuals(used)
    everything = {reading: spread(unseen[reading], None) for reading in (False, True)}
    lines = []
    for name, kinds in CLASSES.items():
        counted: dict[bool, int] = {}
        widths: dict[bool, float] = {}
        for reading in (False, True):
            own = [one for one in unseen[reading] if class_of(one.row) == name]
            counted[reading] = len(own)
            widths[reading] = spread(own, everything[reading])
        for kind in kinds:
            lines.append(_factor_line(kind, name, factors[name], counted, widths))
    kept = [row for row in table_rows("efficiency") if row["name"].startswith("bandweave/")]
    efficiency = _text("efficiency", lines + [dict(row) for row in kept])
    engine_lines = []
    for row in table_rows("engines"):
        trait = traits[row["name"]]
        count = sum(1 for used_row in used if used_row.engine == trait.name
                    and used_row.devices > 1)  # fmt: skip
        engine_lines.append(
            {**row, "hop_us": f"{trait.hop_s * 1e6:.4g}",
             "exchange_us": f"{trait.exchange_s * 1e6:.4g}",
             "sharded_overhead": f"{trait.sharded_overhead:.3g}", "rows": str(count)}
        )  # fmt: skip
    for name, text in (("efficiency", efficiency), ("engines", _text("engines", engine_lines))):
        path = DATA / f"{name}.csv"
        if check:
            if path.read_text("utf-8") != text:
                sys.exit(
                    f"{path} differs from what a fit gives; run python -m benchmarks.calibration"
                )
        else:
            path.write_text(text, "utf-8")
    if not check:
        # In a new process: this one has read the tables that were.
        command = "from benchmarks.calibration.document import write; write()"
        subprocess.run([sys.executable, "-c", command], check=True)


def unseen_residuals(used: Sequence[Measurement]) -> dict[bool, list[Residual]]:
    """Residuals, of decoding and (True) of prefill, of each row under a fit that saw none of its
    machine's rows; in classes of fewer than three machines, under one that did not see the row."""
    engines = {row["name"]: find_engine(row["name"]) for row in table_rows("engines")}
    result: dict[bool, list[Residual]] = {False: [], True: []}
    folds = _folds(used)
    for fold in range(FOLDS):
        outside = [row for row in used if folds[row.id] == fold]
        fitted = fit([row for row in used if folds[row.id] != fold], engines)
        for reading, found in result.items():
            found += residuals(outside, fitted, reading=reading)
    return result


def _folds(used: Sequence[Measurement]) -> Mapping[str, int]:
    machines: dict[str, set[str]] = {}
    for row in used:
        machines.setdefault(class_of(row), set()).add(row.hardware.name)
    result = {}
    for row in used:
        many = len(machines[class_of(row)]) >= _FEW_MACHINES
        key = row.hardware.name if many else row.id
        result[row.id] = hashlib.sha256(key.encode()).digest()[0] % FOLDS
    return result


def _factor_line(
    kind: str,
    name: str,
    factors: Factors,
    counted: Mapping[bool, int],
    widths: Mapping[bool, float],
) -> dict[str, str]:
    return {
        "name": kind,
        "weight_efficiency": f"{factors.weight_efficiency:.3f}",
        "kv_efficiency": f"{factors.kv_efficiency:.3f}",
        "compute_efficiency": f"{factors.compute_efficiency:.3f}",
        "compute_16_efficiency": f"{factors.compute_16_efficiency:.3f}",
        "expert_compute_efficiency": f"{factors.expert_compute_efficiency:.3f}",
        "attention_efficiency": f"{factors.attention_efficiency:.3f}",
        "layer_us": f"{factors.layer_s * 1e6:.1f}",
        "expert_layer_us": f"{factors.expert_layer_s * 1e6:.1f}",
        "latent_layer_us": f"{factors.latent_layer_s * 1e6:.1f}",
        "decode_spread": f"{widths[False]:.3f}",
        "prefill_spread": f"{widths[True]:.3f}",
        "decode_rows": str(counted[False]),
        "prefill_rows": str(counted[True]),
        "source": f"fitted: {name}",
    }


def _text(name: str, lines: Sequence[Mapping[str, str]]) -> str:
    buffer = io.StringIO()
    header = (DATA / f"{name}.csv").read_text("utf-8").splitlines()[0].split(",")
    writer = csv.DictWriter(buffer, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
