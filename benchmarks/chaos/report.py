"""What a trial found, for people at 80 columns and for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.chaos.foretold import both
from benchmarks.chaos.silences import PARTS, Felt, parts_of
from benchmarks.chaos.trial import Found

_SHOWN = 12


def lines(found: Found) -> Iterator[str]:
    """The report."""
    yield ""
    yield "fault          times   next token, s       in parts, medians of the server's, s"
    yield "                       median   worst   notice     plan     load  prefill"
    yield "-" * 72
    for kind, felt in _by_kind(found.felt):
        yield _row(kind, felt)
    if len(_by_kind(found.felt)) > 1:
        yield _row("all", found.felt)
    for kind, (half, nearly) in foretold(found).items():
        yield f"{'simulated ' + kind:20}{half:9.2f}{nearly:9.2f} (99 %)"
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
        "kinds": {kind: _figures(felt) for kind, felt in _by_kind(found.felt)},
        "all": _figures(found.felt),
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


def _figures(felt: Sequence[Felt]) -> dict[str, Any]:
    silences = [one for each in felt for one in each.silences]
    return {
        "times": len(felt),
        "median_s": statistics.median(silences) if silences else None,
        "worst_s": max(silences, default=None),
        **parts_of([one for each in felt for one in each.recoveries]),
    }


def _row(title: str, felt: Sequence[Felt]) -> str:
    figures = _figures(felt)

    def cell(name: str) -> str:
        value = figures.get(name)
        return f"{'-' if value is None else format(value, '.2f'):>9}"

    cells = "".join(cell(name) for name in ("median_s", "worst_s", *PARTS))
    return f"{title:15}{len(felt):5}{cells}"
