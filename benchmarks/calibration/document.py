"""The part of ``docs/prediction.md`` that says how far predictions are off, made from the packaged
factors and measurements. Knows no fitting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bandweave.planning.costs.efficiency import factors
from bandweave.planning.costs.engines import find_engine
from benchmarks.calibration.fit import CLASSES, Fitted, Residual, class_of, residuals
from benchmarks.calibration.measurements import held_out_ids, left_out, measurements

DOCUMENT = Path(__file__).parents[2] / "docs" / "prediction.md"
_BEGIN, _END = "<!-- calibration: begin -->\n", "<!-- calibration: end -->\n"
_WORST = 10

# What is known of rows that are far off; a row without an entry is not explained.
_REASONS: Mapping[str, str] = {
    "92": "NVIDIA through Vulkan, in the class of Radeon and Arc",
    "94": "several makers' cards share a class",
    "99": "several makers' cards share a class",
    "100": "several makers' cards share a class",
    "114": "the first build for this machine; later ones are 1.65 times quicker",
    "245": "16-bit weights over several cards: half as quick as 4-bit ones in its own table",
    "275": "16-bit weights over several cards: a third of 4-bit ones in its own table",
    "276": "16-bit weights over several cards: half as quick as 4-bit ones in its own table",
    "278": "no overlap of the cards shows in it: slower than its 512-token prompt",
    "248": "no overlap of the cards shows in it",
    "291": "16-bit weights over several cards: 626 where 4-bit weights give 4851",
    "292": "16-bit weights over several cards: 1612 where 4-bit weights give 11536",
    "384": "reads 28 % of the memory's peak; its class reads more",
    "456": "faster than one stream through ten boards in turn can be at their full memory rate: "
    "split otherwise than stated",
    "506": "eight boards on a cheap switch: 4.5 ms an exchange by its source",
    "509": "eight boards on a cheap switch: 8 ms an exchange by its source",
    "510": "eight boards on a cheap switch, as rows 506 and 509",
    "521": "a Raspberry Pi 5 in a class fitted mostly to the Pi 4",
    "522": "a Raspberry Pi 5 in a class fitted mostly to the Pi 4",
    "557": "llama.cpp before latent attention was absorbed: 70 times the cache",
    "599": "reads nearly all that one socket's memory gives; its class reads half",
    "601": "128 cores in three clusters: its source finds it bound by unpacking",
    "603": "2-bit weights: by its source no faster than 4 bits, bound by unpacking",
    "693": "an early ROCm build; the class's other rows are quicker builds",
}


def packaged() -> Fitted:
    """The factors and traits in the package."""
    by_class = {name: factors(*kinds[0].split("/", 1)) for name, kinds in CLASSES.items()}
    names = sorted({row.engine for row in measurements()})
    return by_class, {name: find_engine(name) for name in names}


def within_spread(found: Sequence[Residual], fitted: Fitted) -> float:
    """The part of residuals that lies within the range that is printed."""
    inside = 0
    for one in found:
        known = fitted[0][class_of(one.row)]
        width = known.prefill_spread if one.reading else known.decode_spread
        inside += abs(one.log_ratio) <= math.log(width)
    return inside / len(found)


def text() -> str:
    """The generated part, markers left out."""
    fitted, held = packaged(), held_out_ids()
    rows = measurements()
    found = {reading: residuals(rows, fitted, reading=reading) for reading in (False, True)}
    lines = ["| | rows | median | 80 % within | 90 % within | in the printed range |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for reading, what in ((False, "decoding"), (True, "prefill")):
        for out, which in ((True, "held out"), (False, "fitted")):
            group = [one for one in found[reading] if (one.row.id in held) == out]
            errors = sorted(one.error for one in group)
            lines.append(
                f"| {what}, {which} | {len(group)} | {_percent(statistics.median(errors))} | "
                f"{_percent(_quantile(errors, 0.8))} | {_percent(_quantile(errors, 0.9))} | "
                f"{_percent(within_spread(group, fitted))} |"
            )
    lines += ["", "By class (median error of rows that were held out; spread: the printed range, a "
              "factor up and down):", "",
              "| class | decode rows | held out | error | spread | prefill rows | held out | error "
              "| spread |",
              "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name in CLASSES:
        known = fitted[0][name]
        cells = [name]
        for reading in (False, True):
            own = [one for one in found[reading] if class_of(one.row) == name]
            outside = [one.error for one in own if one.row.id in held]
            error = _percent(statistics.median(outside)) if outside else "-"
            width = known.prefill_spread if reading else known.decode_spread
            cells += [str(len(own)), str(len(outside)), error, f"{width:.2f}" if own else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    for reading, what in ((False, "decoding"), (True, "prefill")):
        lines += ["", f"The ten worst of {what}:", "",
                  "| row | machine | model | engine | predicted | measured | why |",
                  "| --- | --- | --- | --- | ---: | ---: | --- |"]  # fmt: skip
        worst = sorted(found[reading], key=lambda one: -abs(one.log_ratio))[:_WORST]
        lines += [_worst_line(one, one.row.id in held) for one in worst]
    lines += ["", "Rows that are not predicted, by reason:", ""]
    lines += [f"- {count}: {reason}" for reason, count in sorted(left_out().items())]
    return "\n".join(lines) + "\n"


def write() -> None:
    """Puts the generated part into the document."""
    before, _, rest = DOCUMENT.read_text("utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    DOCUMENT.write_text(before + _BEGIN + text() + _END + after, "utf-8")


def is_current() -> bool:
    return _BEGIN + text() + _END in DOCUMENT.read_text("utf-8")


def _worst_line(one: Residual, held: bool) -> str:
    row = one.row
    count = f"{row.devices} x " if row.devices > 1 else ""
    return (
        f"| {row.id}{' (held out)' if held else ''} | {count}{row.hardware.name} | "
        f"{row.model.name} {row.weights.name} | {row.engine} | {one.predicted:.1f} | "
        f"{one.measured:.1f} | {_REASONS.get(row.id, 'not explained')} |"
    )


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
