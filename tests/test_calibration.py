"""Predictions against published measurements of machines that no fit saw."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pytest
from benchmarks.calibration import document as calibration_document
from benchmarks.calibration import fit as calibration
from benchmarks.calibration.document import packaged
from benchmarks.calibration.fit import CLASSES, NEAREST, class_of, fit, residuals, search, spread
from benchmarks.calibration.measurements import left_out, measured_rows, measurements
from benchmarks.calibration.unseen import (
    class_spreads,
    inside,
    kept,
    power_of,
    predict_unseen,
)

from bandweave.planning.costs.efficiency import factors
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.costs.ranges import KINDS
from bandweave.planning.machines.tables import rows as table_rows

ENGINES = {row["name"]: find_engine(row["name"]) for row in table_rows("engines")}


def test_rows_have_sources_and_classes() -> None:
    rows = measurements()
    assert len(rows) > 450
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.source and class_of(row) in CLASSES
        assert row.decode_tokens_per_s or row.prefill_tokens_per_s
        assert (row.devices == 1) == (row.link == "")
        assert bool(row.hardware.cards) == (row.split == "beside")
    assert sum(left_out().values()) + len(rows) == len(measured_rows())
    order = list(CLASSES)
    assert all(order.index(near) < order.index(name) for name, near in NEAREST.items())


@pytest.mark.parametrize(("reading", "goal"), [(False, 0.10), (True, 0.15)])
def test_unseen_machines(reading: bool, goal: float) -> None:
    found = [one for one in kept() if one.reading == reading]
    assert len(found) >= 240
    median = statistics.median(one.error for one in found)
    print(f"{'prefill' if reading else 'decode'}: {len(found)} rows, median error {median:.1%}")
    assert median < goal
    lean = statistics.median(math.log(one.predicted / one.measured) for one in found)
    assert abs(lean) < 0.05


@pytest.mark.parametrize("split", KINDS)
@pytest.mark.parametrize("reading", [False, True])
def test_ranges_hold_what_they_promise(split: str, reading: bool) -> None:
    """Four in five, for every kind of split of which there are enough rows: a range comes from the
    rows of all other machines."""
    flags = inside(kept(), split, reading=reading)
    if len(flags) < 20:
        return
    print(f"{split}: {sum(flags)} of {len(flags)} inside")
    assert 0.75 <= sum(flags) / len(flags) <= 0.90


def test_the_kept_predictions_are_those_of_the_rows() -> None:
    rows = {row.id: row for row in measurements()}
    figures = {(one.row.id, one.reading) for one in kept()}
    for row in rows.values():
        assert ((row.id, False) in figures) == (row.decode_tokens_per_s is not None)
        assert ((row.id, True) in figures) == (row.prefill_tokens_per_s is not None)
    for one in kept():
        assert one.low < one.predicted < one.high


def test_the_package_holds_the_spreads_and_powers_that_follow() -> None:
    spreads = class_spreads(kept(), CLASSES)
    for name, kinds in CLASSES.items():
        known = factors(*kinds[0].split("/", 1))
        assert known.decode_spread == pytest.approx(spreads[name, False], abs=0.002)
        assert known.prefill_spread == pytest.approx(spreads[name, True], abs=0.002)
    for row in table_rows("ranges"):
        for reading, column in ((False, "decode"), (True, "prefill")):
            power = power_of(kept(), row["split"], reading=reading)
            assert float(row[column]) == pytest.approx(power, abs=0.02)


@pytest.mark.parametrize("name", ["llama.cpp 2023, Apple GPU", "gpt-fast, data centre"])
def test_packaged_factors_are_what_the_fit_gives(name: str) -> None:
    used = [row for row in measurements() if class_of(row) == name]
    found, traits = fit(used, ENGINES)
    known = factors(*CLASSES[name][0].split("/", 1))
    for field in ("weight_efficiency", "kv_efficiency", "compute_efficiency", "layer_s",
                  "expert_layer_s", "attention_efficiency"):  # fmt: skip
        assert getattr(found[name], field) == pytest.approx(getattr(known, field), rel=0.01), field
    if name.startswith("gpt-fast"):
        assert traits["gpt-fast"].exchange_s == pytest.approx(
            find_engine("gpt-fast").exchange_s, rel=0.01
        )


def test_a_machine_is_predicted_by_the_others() -> None:
    """A row that is ten times too slow, on a machine of its own, changes nothing about it."""
    name = "llama.cpp 2023, Apple GPU"
    rows = [row for row in measurements() if class_of(row) == name and row.split == "one"][:9]
    machine = rows[0].machine
    wrong = [
        dataclasses.replace(row, decode_tokens_per_s=row.decode_tokens_per_s / 10)
        if row.machine == machine and row.decode_tokens_per_s
        else row
        for row in rows
    ]
    plain = {one.row.id: one.predicted for one in predict_unseen(rows, ENGINES) if not one.reading}
    found = {one.row.id: one.predicted for one in predict_unseen(wrong, ENGINES) if not one.reading}
    for row in rows:
        if row.machine == machine:
            assert found[row.id] == pytest.approx(plain[row.id])


def test_the_fit_finds_factors_that_rows_were_made_with() -> None:
    name = "llama.cpp 2023, Apple GPU"
    rows = [row for row in measurements() if class_of(row) == name and row.split == "one"]
    true = dataclasses.replace(
        factors("llama.cpp-2023", "apple"),
        weight_efficiency=0.6,
        layer_s=3e-4,
        compute_efficiency=0.3,
    )
    made = [
        dataclasses.replace(
            row,
            decode_tokens_per_s=calibration.predicted(
                row, {name: true}, ENGINES[row.engine], reading=False
            ),
            prefill_tokens_per_s=calibration.predicted(
                row, {name: true}, ENGINES[row.engine], reading=True
            ),
        )
        for row in rows[:24]
    ]
    found = fit(made, ENGINES)[0][name]
    assert found.weight_efficiency == pytest.approx(0.6, rel=0.06)
    assert found.layer_s == pytest.approx(3e-4, rel=0.15)
    assert found.compute_efficiency == pytest.approx(0.3, rel=0.06)


def test_the_packaged_factors_fit() -> None:
    found = residuals(measurements(), packaged(), reading=False)
    assert statistics.median(one.error for one in found) < 0.08


def test_how_a_prompt_was_read_counts() -> None:
    """A source that says in what chunks a prompt was read, or that weights lay as cards do not
    read them, is predicted so."""
    row = next(row for row in measurements() if row.split == "beside" and row.chunk == 4096
               and row.engine == "llama.cpp-beside")  # fmt: skip
    own = factors(row.engine, row.hardware.kind)
    by_class, traits = packaged()

    def time(**changes: object) -> float:
        changed = dataclasses.replace(row, prompt=4096, **changes)  # type: ignore[arg-type]
        return 4096 / calibration.predicted(
            changed, by_class, traits[row.engine], reading=True, own=own
        )

    # Every chunk carries the experts again.
    assert time(chunk=512) > 2 * time(chunk=4096)
    assert time(carries=False) != pytest.approx(time(carries=True), rel=0.01)
    stated = [row for row in measured_rows() if row["reading"]]
    assert stated and all(row["prompt"] for row in stated)


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
