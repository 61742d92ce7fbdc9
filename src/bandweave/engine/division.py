"""Division: how a model is divided among nodes. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from bandweave.nodes.node_handle import NodeHandle


@dataclass(frozen=True, kw_only=True)
class Division:
    """``shares`` of the nodes in order, in so many ``stages``."""

    shares: tuple[Fraction, ...]
    stages: int


Divide = Callable[[Sequence[NodeHandle]], Division]
