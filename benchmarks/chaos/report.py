"""What a trial found, for people at 80 columns and for programs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.chaos.faults import NOTHING
from benchmarks.chaos.foretold import both
from benchmarks.chaos.silences import REST, Felt
from benchmarks.chaos.trial import Found

_SHOWN = 12
#: The parts of a recovery, as people are told of them.
PART_NAMES = {"noticed": "notice", "planned": "plan", "loaded": "load", "prefilled": "prefill",
              REST: "rest"}  # fmt: skip


def lines(found: Found) -> Iterator[str]:
    """The report."""
    kinds = _by_kind(found.felt)
    if len(kinds) > 1:
        kinds.append(("all", [one for one in found.felt if one.kind != NOTHING]))
    yield ""
    yield "                     next token, s, of streams      and of those that"
    yield "fault          times that spoke: median   worst     waited: median   worst"
    yield "-" * 72
    for kind, felt in kinds:
        figures = figures_of(felt)
        cells = [_cell(figures[name], width) for name, width in
                 (("median_s", 19), ("worst_s", 8), ("waited_median_s", 19),
                  ("waited_worst_s", 8))]  # fmt: skip
        yield f"{kind:15}{len(felt):5}{''.join(cells)}"
    for kind, (half, nearly) in foretold(found).items():
        yield f"{'simulated ' + kind:20}{half:9.2f}{nearly:9.2f} (99 %)"
    yield ""
    yield "recoveries in parts, s (median, worst)"
    yield f"{'':13}" + "".join(f"{name:>13}" for name in PART_NAMES.values())
    yield "-" * 78
    for kind, felt in kinds:
        parts = figures_of(felt)["parts"]
        if parts:
            cells = (f"{_cell(half, 7)}{_cell(most, 6)}" for half, most in parts.values())
            yield f"{kind:13}{''.join(cells)}"
    yield ""
    yield (f"{found.asked} answers, {len(found.lost)} lost, {len(found.changed)} changed; "
           f"{found.nodes[0]} nodes before, {found.nodes[1]} after")  # fmt: skip
    if found.before and found.after:
        yield (f"the server: {found.before.mib:.0f} MiB, {found.before.descriptors} descriptors "
               f"and {found.before.threads} threads before;")  # fmt: skip
        yield (f"  {found.after.mib:.0f} MiB, {found.after.descriptors} descriptors and "
               f"{found.after.threads} threads after")  # fmt: skip
    for title, all_said in (("lost", found.lost), ("changed", found.changed),
                            ("left over", found.left)):  # fmt: skip
        for said in all_said[:_SHOWN]:
            yield f"{title}: {said}"
        if len(all_said) > _SHOWN:
            yield f"{title}: {len(all_said) - _SHOWN} more"
    if not found.felt:
        yield "no fault was inflicted: nothing was tried"
    yield "nothing lost, nothing changed, nothing left over" if found.fine else "FAILED"


def as_json(found: Found) -> dict[str, Any]:
    return {
        "fine": found.fine,
        "asked": found.asked,
        "lost": found.lost,
        "changed": found.changed,
        "left": found.left,
        "nodes": found.nodes,
        "faults": [asdict(one) for one in found.felt],
        "kinds": {kind: figures_of(felt) for kind, felt in _by_kind(found.felt)},
        "all": figures_of([one for one in found.felt if one.kind != NOTHING]),
        "simulated": foretold(found),
    }


def foretold(found: Found) -> dict[str, tuple[float, float]]:
    """What the planner's simulation says of kills and stops; nothing where it cannot know."""
    if found.pace is None or not found.felt or not found.nodes[0]:
        return {}
    return both(found.pace, found.nodes[0], found.streams, found.weight_bytes, anew=found.anew)


def _by_kind(felt: Sequence[Felt]) -> list[tuple[str, list[Felt]]]:
    kinds = sorted({one.kind for one in felt})
    return [(kind, [one for one in felt if one.kind == kind]) for kind in kinds]


def figures_of(felt: Sequence[Felt]) -> dict[str, Any]:
    """Of faults of one kind: medians and the worst of all streams that spoke, of those that did
    not, and of each part of the recoveries; None where there were none."""
    spoken = [one for each in felt for one in each.spoke]
    waited = [one for each in felt for one in waiting(each)]
    parts = [found for each in felt if (found := each.parts()) is not None]
    return {
        "times": len(felt),
        "median_s": statistics.median(spoken) if spoken else None,
        "worst_s": max(spoken, default=None),
        "waited_median_s": statistics.median(waited) if waited else None,
        "waited_worst_s": max(waited, default=None),
        "parts": {
            name: (statistics.median(one[name] for one in parts), max(one[name] for one in parts))
            for name in PART_NAMES
        }
        if parts
        else {},
    }


def waiting(felt: Felt) -> list[float]:
    """The silences of streams that had not just spoken."""
    left = Counter(felt.silences)
    left.subtract(felt.spoke)
    return [*left.elements()]


def _cell(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.2f'):>{width}}"
