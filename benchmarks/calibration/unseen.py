"""Predictions of rows by fits that did not see their machine, and the ranges that follow. Pure but
for the file ``unseen.csv``, where they are kept: a fit for every fold takes minutes.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bandweave.planning.costs.cost import decode_step, prefill
from bandweave.planning.costs.deployment import EngineTraits
from bandweave.planning.costs.efficiency import Factors
from benchmarks.calibration.fit import (
    BESIDE_CLASSES,
    Fitted,
    Residual,
    class_of,
    fit,
    node_of,
    residuals,
    spread,
)
from benchmarks.calibration.measurements import (
    Measurement,
    deployment_of,
    measurements,
    workload_of,
)

TABLE = Path(__file__).with_name("unseen.csv")
FOLDS = 6
_FEW_MACHINES = 3
# Of rows that a range is made for. Of those from sources that no fit had seen some 6 % fewer lay
# inside than of machines left out of it.
_INSIDE = 0.86
_FEW_ROWS = 20  # of a kind: with fewer all kinds together count
_COLUMNS = ("id", "figure", "measured", "predicted", "low", "high")


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """One figure of a row, predicted by a fit that did not see its machine. ``low``, ``high``: the
    range of its class, as long as no kind of split widens it."""

    row: Measurement
    reading: bool
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        return abs(self.predicted / self.measured - 1)

    @property
    def power(self) -> float:
        """What the logarithm of its range must be multiplied by to reach the measured figure."""
        if self.measured < self.predicted:
            return math.log(self.predicted / self.measured) / math.log(self.predicted / self.low)
        return math.log(self.measured / self.predicted) / math.log(self.high / self.predicted)


def predict_unseen(
    rows: Sequence[Measurement], engines: Mapping[str, EngineTraits], pool: Executor | None = None
) -> list[Unseen]:
    """Every figure of every row, by a fit to the rows of other machines; in classes of fewer than
    three machines by one that did not see the row. ``pool``: who fits."""
    folds, found = _folds(rows), []
    seen = [[row for row in rows if folds[row.id] != fold] for fold in range(FOLDS)]
    fits = list((map if pool is None else pool.map)(fit, seen, [engines] * FOLDS))
    for fold in range(FOLDS):
        outside = [row for row in rows if folds[row.id] == fold]
        for reading in (False, True):
            found += residuals(outside, fits[fold], reading=reading)
    common = {reading: spread([one for one in found if one.reading == reading], None)
              for reading in (False, True)}  # fmt: skip
    return [_ranged(one, found, common, fits[folds[one.row.id]]) for one in found]


def _ranged(
    one: Residual, found: Iterable[Residual], common: Mapping[bool, float], fitted: Fitted
) -> Unseen:
    factors, engines = fitted
    others = [
        other
        for other in found
        if other.reading == one.reading
        and _group(other.row) == _group(one.row)
        and other.row.machine != one.row.machine
    ]
    width = spread(others, common[one.reading])
    changed = {"prefill_spread" if one.reading else "decode_spread": width}
    own = dataclasses.replace(factors[class_of(one.row)], **changed)  # type: ignore[arg-type]
    cards = {name: dataclasses.replace(each, **changed) for name, each in factors.items()}  # type: ignore[arg-type]
    ends = [
        _rate(one.row, cards, own, engines[one.row.engine], case, reading=one.reading)
        for case in ("slow", "fast")
    ]
    return Unseen(
        row=one.row,
        reading=one.reading,
        measured=one.measured,
        predicted=one.predicted,
        low=min(ends[0], one.predicted * 0.99),
        high=max(ends[1], one.predicted * 1.01),
    )


def _group(row: Measurement) -> str:
    """Rows whose errors count together for a spread: those of a class; with cards beside memory,
    of whose classes each has few rows, all of them."""
    return "beside" if row.split == "beside" else class_of(row)


def _rate(
    row: Measurement,
    factors: Mapping[str, Factors],
    own: Factors,
    engine: EngineTraits,
    case: str,
    *,
    reading: bool,
) -> float:
    deployment = deployment_of(row, node_of(row, factors, own), engine)
    workload = workload_of(row, prefill=reading)
    if reading:
        return prefill(deployment, workload, case).tokens_per_s
    return decode_step(deployment, workload, case).tokens_per_s


def _folds(rows: Sequence[Measurement]) -> Mapping[str, int]:
    machines: dict[str, set[str]] = {}
    for row in rows:
        machines.setdefault(class_of(row), set()).add(row.machine)
    result = {}
    for row in rows:
        many = len(machines[class_of(row)]) >= _FEW_MACHINES
        key = row.machine if many else row.id
        result[row.id] = hashlib.sha256(key.encode()).digest()[0] % FOLDS
    return result


def power_of(found: Sequence[Unseen], split: str, *, reading: bool) -> float:
    """What ranges of a kind of split grow by, so that of these figures as many lie inside as
    should."""
    own = [one for one in found if one.reading == reading and one.row.split == split]
    if len(own) < _FEW_ROWS:
        own += [one for one in found if one.reading == reading and one.row.split != split]
    powers = sorted(one.power for one in own)
    return powers[min(len(powers) - 1, math.ceil(_INSIDE * len(powers)) - 1)]


def inside(found: Sequence[Unseen], split: str, *, reading: bool) -> list[bool]:
    """Of each figure of a kind of split, whether it lies inside the range that figures of all other
    machines give."""
    result = []
    own = [one for one in found if one.reading == reading and one.row.split == split]
    for machine in dict.fromkeys(one.row.machine for one in own):
        power = power_of([one for one in found if one.row.machine != machine], split,
                         reading=reading)  # fmt: skip
        result += [one.power <= power for one in own if one.row.machine == machine]
    return result


def class_spreads(found: Sequence[Unseen], names: Iterable[str]) -> dict[tuple[str, bool], float]:
    """The printed spread of each class, by class and whether it is a prefill's."""
    plain = [
        Residual(row=one.row, reading=one.reading, predicted=one.predicted, measured=one.measured)
        for one in found
    ]
    result = {}
    for reading in (False, True):
        figures = [one for one in plain if one.reading == reading]
        common = spread(figures, None)
        for name in names:
            group = "beside" if name in BESIDE_CLASSES else name
            result[name, reading] = spread([one for one in figures if _group(one.row) == group],
                                           common)  # fmt: skip
    return result


def table_text(found: Sequence[Unseen]) -> str:
    """As the file keeps it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in sorted(found, key=lambda one: (int(one.row.id), one.reading)):
        figures = (one.measured, one.predicted, one.low, one.high)
        writer.writerow([one.row.id, "prefill" if one.reading else "decode",
                         *(f"{figure:.5g}" for figure in figures)])  # fmt: skip
    return buffer.getvalue()


@lru_cache(maxsize=1)
def kept() -> tuple[Unseen, ...]:
    """What the file keeps."""
    rows = {row.id: row for row in measurements()}
    return tuple(
        Unseen(
            row=rows[line["id"]],
            reading=line["figure"] == "prefill",
            **{name: float(line[name]) for name in _COLUMNS[2:]},
        )
        for line in csv.DictReader(io.StringIO(TABLE.read_text("utf-8")))
    )
