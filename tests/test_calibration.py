"""Predictions against published measurements that no factor was fitted to."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pytest
from benchmarks.calibration import document as calibration_document
from benchmarks.calibration import fit as calibration
from benchmarks.calibration.document import packaged, within_spread
from benchmarks.calibration.fit import CLASSES, class_of, fit, residuals, search, spread
from benchmarks.calibration.measurements import held_out_ids, left_out, measured_rows, measurements

from bandweave.planning.costs.efficiency import factors
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.machines.tables import rows as table_rows

ENGINES = {row["name"]: find_engine(row["name"]) for row in table_rows("engines")}


def test_rows_have_sources_and_classes() -> None:
    rows = measurements()
    assert len(rows) > 350
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.source and class_of(row) in CLASSES
        assert row.decode_tokens_per_s or row.prefill_tokens_per_s
        assert (row.devices == 1) == (row.link == "")
    assert sum(left_out().values()) + len(rows) == len(measured_rows())


def test_a_third_of_each_class_is_held_out_and_values_play_no_part() -> None:
    held = held_out_ids()
    assert len(held) == pytest.approx(len(measurements()) / 3, rel=0.15)
    by_kind: dict[str, list[bool]] = {}
    for row in measurements():
        by_kind.setdefault(f"{row.kind} {row.split}", []).append(row.id in held)
    for flags in by_kind.values():
        assert sum(flags) == len(flags) // 3


@pytest.mark.parametrize(("reading", "goal"), [(False, 0.20), (True, 0.30)])
def test_held_out_error(reading: bool, goal: float) -> None:
    held, fitted = held_out_ids(), packaged()
    found = residuals([row for row in measurements() if row.id in held], fitted, reading=reading)
    assert len(found) >= 70
    median = statistics.median(one.error for one in found)
    print(f"{'prefill' if reading else 'decode'}: {len(found)} rows, median error {median:.1%}")
    assert median < goal
    # The printed ranges mean what they say: four in five.
    assert 0.7 < within_spread(found, fitted) < 0.95
    assert abs(statistics.median(one.log_ratio for one in found)) < 0.1  # no lean


@pytest.mark.parametrize("name", ["gpt-fast, data centre", "llama.cpp, GB10"])
def test_packaged_factors_are_what_the_fit_gives(name: str) -> None:
    held = held_out_ids()
    used = [row for row in measurements() if class_of(row) == name and row.id not in held]
    found, traits = fit(used, ENGINES)
    known = factors(*CLASSES[name][0].split("/", 1))
    for field in ("weight_efficiency", "kv_efficiency", "compute_efficiency", "layer_s",
                  "expert_layer_s", "attention_efficiency"):  # fmt: skip
        assert getattr(found[name], field) == pytest.approx(getattr(known, field), rel=0.01), field
    if name.startswith("gpt-fast"):
        assert traits["gpt-fast"].exchange_s == pytest.approx(
            find_engine("gpt-fast").exchange_s, rel=0.01
        )


def test_the_fit_finds_factors_that_rows_were_made_with() -> None:
    name = "llama.cpp, Apple GPU"
    rows = [row for row in measurements() if class_of(row) == name and row.split == "one"]
    true = dataclasses.replace(
        factors("llama.cpp", "apple"), weight_efficiency=0.6, layer_s=3e-4, compute_efficiency=0.3
    )
    made = [
        dataclasses.replace(
            row,
            decode_tokens_per_s=calibration.predicted(
                row, true, ENGINES[row.engine], reading=False
            ),
            prefill_tokens_per_s=calibration.predicted(
                row, true, ENGINES[row.engine], reading=True
            ),
        )
        for row in rows[:24]
    ]
    found = fit(made, ENGINES)[0][name]
    assert found.weight_efficiency == pytest.approx(0.6, rel=0.06)
    assert found.layer_s == pytest.approx(3e-4, rel=0.15)
    assert found.compute_efficiency == pytest.approx(0.3, rel=0.06)


def test_search_and_spread() -> None:
    found = search(lambda values: (values[0] - 1) ** 2 + (values[1] + 2) ** 4, [5.0, 5.0])
    assert found == pytest.approx([1, -2], abs=0.1)
    row = measurements()[0]
    ratios = [calibration.Residual(row=row, reading=False, predicted=math.exp(size), measured=1.0)
              for size in (0.0, 0.1, -0.2, 0.3, 0.9)]  # fmt: skip
    assert spread(ratios, None) == pytest.approx(math.exp(0.3))
    assert spread(ratios, 1.0) == pytest.approx(math.exp(0.15))
    assert spread([], 1.4) == 1.4


def test_the_document_is_current() -> None:
    assert calibration_document.is_current(), "run python -m benchmarks.calibration"
