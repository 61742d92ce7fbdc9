"""The part of ``docs/prediction.md`` that says how far predictions are off, made from the packaged
factors and measurements. Knows no fitting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bandweave.planning.costs.efficiency import factors
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.costs.ranges import KINDS
from benchmarks.calibration.fit import CLASSES, Fitted, class_of
from benchmarks.calibration.measurements import left_out, measurements
from benchmarks.calibration.unseen import Unseen, inside, kept

DOCUMENT = Path(__file__).parents[2] / "docs" / "prediction.md"
_BEGIN, _END = "<!-- calibration: begin -->\n", "<!-- calibration: end -->\n"
_WORST = 10
_SPLITS = {"one": "one machine", "tensor": "tensor split", "stages": "stages",
           "beside": "cards beside memory"}  # fmt: skip

# What is known of rows that are far off; a row without an entry is not explained.
_REASONS: Mapping[str, str] = {
    "99": "two rows are all that there is of its kind",
    "100": "two rows are all that there is of its kind",
    "114": "the first build for this machine; later ones are 1.65 times quicker",
    "245": "16-bit weights over several cards: half as quick as 4-bit ones in its own table",
    "275": "16-bit weights over several cards: a third of 4-bit ones in its own table",
    "276": "16-bit weights over several cards: half as quick as 4-bit ones in its own table",
    "278": "no overlap of the cards shows in it: slower than its 512-token prompt",
    "248": "no overlap of the cards shows in it",
    "291": "16-bit weights over several cards: 626 where 4-bit weights give 4851",
    "292": "16-bit weights over several cards: 1612 where 4-bit weights give 11536",
    "384": "reads 28 % of the memory's peak; its class reads more",
    "438": "192 cores: 3B in 42 ms, eight times what its memory takes; bound by something else",
    "624": "a peak value of its source; its class was fitted to slower builds",
    "606": "500 GB/s measured on it, twice what its class reads",
    "562": "AMX: its class was fitted to processors without it",
    "1179": "a card of 2016; the others of its class have matrix units",
    "1180": "a card of 2016; the others of its class have matrix units",
    "1181": "a card of 2016; the others of its class have matrix units",
    "912": "the first week of this model; mmap",
    "572": "read by the processor, whose FP8 is three times slower than the other's of its table",
    "918": "read by the processor, as row 572",
    "578": "read by the processor, whose FP8 is three times quicker than the other's of its table",
    "921": "read by the processor, as row 578",
    "585": "read by the processor, as row 578",
    "584": "read by the processor, as row 578",
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


def text() -> str:
    """The generated part, markers left out."""
    lines = [*_by_split(), "", *_by_class()]
    for reading, what in ((False, "decoding"), (True, "prefill")):
        lines += ["", f"The ten worst of {what}:", "",
                  "| row | machine | model | engine | predicted | measured | why |",
                  "| --- | --- | --- | --- | ---: | ---: | --- |"]  # fmt: skip
        found = [one for one in kept() if one.reading == reading]
        worst = sorted(found, key=lambda one: -abs(math.log(one.predicted / one.measured)))
        lines += [_worst_line(one) for one in worst[:_WORST]]
    lines += ["", "Rows that are not predicted, by reason:", ""]
    lines += [f"- {count}: {reason}" for reason, count in sorted(left_out().items())]
    return "\n".join(lines) + "\n"


def _by_split() -> list[str]:
    """Errors and ranges of rows by kind of split, all of them of machines that no fit saw."""
    lines = ["| | rows | machines | median error | 80 % within | 90 % within | inside the range |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for reading, what in ((False, "decoding"), (True, "prefill")):
        every: list[bool] = []
        for split in KINDS:
            group = [one for one in kept() if one.reading == reading and one.row.split == split]
            flags = inside(kept(), split, reading=reading)
            every += flags
            if group:
                lines.append(_split_line(f"{what}, {_SPLITS[split]}", group, flags))
        group = [one for one in kept() if one.reading == reading]
        lines.append(_split_line(f"**{what}, all**", group, every))
    return lines


def _split_line(title: str, group: Sequence[Unseen], flags: Sequence[bool]) -> str:
    errors = sorted(one.error for one in group)
    machines = len({one.row.machine for one in group})
    return (
        f"| {title} | {len(group)} | {machines} | {_percent(statistics.median(errors))} | "
        f"{_percent(_quantile(errors, 0.8))} | {_percent(_quantile(errors, 0.9))} | "
        f"{_percent(sum(flags) / len(flags))} |"
    )


def _by_class() -> list[str]:
    lines = ["By class (median error of rows of machines that no fit saw; spread: the range of one "
             "machine, a factor up and down):", "",
             "| class | decode rows | machines | error | spread | prefill rows | error | spread |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    known = packaged()[0]
    for name in CLASSES:
        cells = [name]
        for reading in (False, True):
            own = [one for one in kept() if one.reading == reading and class_of(one.row) == name]
            error = _percent(statistics.median(one.error for one in own)) if own else "-"
            width = known[name].prefill_spread if reading else known[name].decode_spread
            machines = [] if reading else [str(len({one.row.machine for one in own}))]
            cells += [str(len(own)), *machines, error, f"{width:.2f}" if own else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write() -> None:
    """Puts the generated part into the document."""
    before, _, rest = DOCUMENT.read_text("utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    DOCUMENT.write_text(before + _BEGIN + text() + _END + after, "utf-8")


def is_current() -> bool:
    return _BEGIN + text() + _END in DOCUMENT.read_text("utf-8")


def _worst_line(one: Unseen) -> str:
    row = one.row
    count = f"{row.devices} x " if row.devices > 1 else ""
    return (
        f"| {row.id} | {count}{row.hardware.name} | {row.model.name} {row.weights.name} | "
        f"{row.engine} | {one.predicted:.1f} | {one.measured:.1f} | "
        f"{_REASONS.get(row.id, 'not explained')} |"
    )


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
