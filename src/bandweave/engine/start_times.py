"""StartTimes: where the time of a start went, as the controller waited. Knows seconds alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StartTimes:
    """Seconds, one after the other: until all nodes' processes were ready (``nodes``), until all
    had found their copies of the model (``model``), until all had met and loaded (``weights``), and
    until their copies were compared (``comparison``)."""

    nodes: float = 0.0
    model: float = 0.0
    weights: float = 0.0
    comparison: float = 0.0
