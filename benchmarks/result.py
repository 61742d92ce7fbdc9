"""Result: what an experiment found, as data: figures with their bounds, and series of points.

Knows no contestants and no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from benchmarks.statistics import Estimate

SETTLED = 0.05  # an interval's bad end may lie so far from the median, relative to it
_FEWEST = 5  # rounds; the interval of fewer says little


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number: ``unit`` is ``"x"`` for a ratio, else ``"%"``, ``"us"``, ``"s"``, ``"GB/s"`` or
    ``"tokens/s"``; ``at_least`` or ``at_most`` is what it should be, where something is asked."""

    title: str
    estimate: Estimate
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median is as asked; None where nothing is."""
        if self.at_least is not None:
            return self.estimate.median >= self.at_least
        return None if self.at_most is None else self.estimate.median <= self.at_most

    @property
    def settled(self) -> bool:
        """Whether the interval, of enough rounds, has its bad end within 5% of the median."""
        median = self.estimate.median
        worst = self.estimate.high if self.at_most is not None else self.estimate.low
        near = abs(worst - median) <= SETTLED * abs(median)
        return near and self.estimate.count >= _FEWEST

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            **self.estimate.to_json(),
            "unit": self.unit,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "met": self.met,
            "settled": self.settled,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            title=value["title"],
            estimate=_estimate(value),
            unit=value["unit"],
            at_least=value["at_least"],
            at_most=value["at_most"],
        )


@dataclass(frozen=True, kw_only=True)
class Point:
    """A figure of a contestant ``name`` at ``x``: a number, or the name of a link or a model."""

    name: str
    x: float | str
    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "x": self.x, **self.estimate.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(name=value["name"], x=value["x"], estimate=_estimate(value))


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points to be seen together: ``axis`` says what x is, ``unit`` what the figures are."""

    title: str
    axis: str
    unit: str
    points: tuple[Point, ...]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(point.name for point in self.points))

    @property
    def places(self) -> list[float | str]:
        return list(dict.fromkeys(point.x for point in self.points))

    def at(self, name: str, x: float | str) -> Estimate | None:
        found = (p.estimate for p in self.points if p.name == name and p.x == x)
        return next(found, None)

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "axis": self.axis,
            "unit": self.unit,
            "points": [point.to_json() for point in self.points],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        points = tuple(map(Point.from_json, value["points"]))
        return cls(title=value["title"], axis=value["axis"], unit=value["unit"], points=points)


@dataclass(frozen=True, kw_only=True)
class Result:
    """``experiment`` is its command's word; ``rounds`` everything measured, for those who want to
    compute something else; ``notes`` sentences that a reader of the figures needs."""

    experiment: str
    title: str
    figures: Sequence[Figure] = ()
    series: Sequence[Series] = ()
    notes: Sequence[str] = ()
    rounds: Sequence[Any] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "title": self.title,
            "figures": [figure.to_json() for figure in self.figures],
            "series": [series.to_json() for series in self.series],
            "notes": list(self.notes),
            "rounds": list(self.rounds),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            experiment=value["experiment"],
            title=value["title"],
            figures=tuple(map(Figure.from_json, value["figures"])),
            series=tuple(map(Series.from_json, value["series"])),
            notes=tuple(value["notes"]),
        )


def _estimate(value: Mapping[str, Any]) -> Estimate:
    return Estimate(
        median=value["median"], low=value["low"], high=value["high"], count=value["rounds"]
    )
