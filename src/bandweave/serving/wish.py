"""Wish: what the user has settled of how a cluster's machines hold a model. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bandweave.handshake.encryption import AUTO


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user has settled: how many ``machines`` hold the model, their ``shares``, how many
    ``stages``; None for what the planner decides. ``replicas``: groups that each hold all of the
    model, 0 for as many as pay; ``spare`` machines are held ready beside those; ``encryption`` of
    what crosses between machines."""

    machines: int | None = None
    shares: tuple[Fraction, ...] | None = None
    stages: int | None = None
    replicas: int = 1
    spare: int = 0
    encryption: str = AUTO

    def __post_init__(self) -> None:
        """``ValueError`` for what no number of machines could mend."""
        needed = self.copies * (self.stages or 1)
        if self.machines is not None and self.machines < needed:
            copies = "1 copy" if self.copies == 1 else f"{self.copies} copies"
            stages = f" in {self.stages} stages" if (self.stages or 1) > 1 else ""
            verb = "needs" if self.copies == 1 else "need"
            raise ValueError(
                f"{copies} of the model{stages} {verb} {needed} machines at least, and there are "
                f"to be {self.machines}; give more --nodes or --shares, or fewer --replicas or "
                "--stages"
            )

    @property
    def copies(self) -> int:
        """Of the model, at least."""
        return max(1, self.replicas)

    @property
    def all_machines(self) -> int | None:
        """The spare ones too; None for any number."""
        return None if self.machines is None else self.machines + self.spare

    @property
    def least_machines(self) -> int:
        return self.all_machines or self.copies * (self.stages or 1) + self.spare
