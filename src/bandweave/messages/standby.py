"""What a node holds ready beside its share, for the loss of another one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bandweave.messages.message import Message, Question
from bandweave.run_options import MAX_NODES


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """The share that a node would have in another split of the model."""

    shares: tuple[Fraction, ...]
    stages: int
    rank: int

    def __post_init__(self) -> None:
        """``ValueError`` for what contradicts itself."""
        nodes = len(self.shares)
        for name, value, least, most in (
            ("nodes", nodes, 1, MAX_NODES),
            ("as the node's rank", self.rank, 0, nodes - 1),
            ("stages", self.stages, 1, nodes),
        ):
            if not least <= value <= most:
                raise ValueError(f"{value} {name}; there may be {least} to {most}")


@dataclass(frozen=True, kw_only=True)
class Standby(Message, type="standby"):
    """What a node is to hold ready beside its work: all that it would need in any of the
    ``alternatives``, in memory, or ``on_disk``, in its cache of packed weights. ``sharers``: nodes
    that share its machine's memory and do the same, with itself."""

    alternatives: tuple[Alternative, ...]
    on_disk: bool = False
    sharers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.sharers <= MAX_NODES:
            raise ValueError(f"{self.sharers} nodes share a memory; 1 to {MAX_NODES} may")
        if len(self.alternatives) > MAX_NODES:
            raise ValueError(f"{len(self.alternatives)} alternatives; there may be {MAX_NODES}")


@dataclass(frozen=True, kw_only=True)
class StandbyState(Message, type="standby_state"):
    """Of what a node holds ready beside its share: packed ``num_bytes``, once it is ``over``, and
    the ``seconds`` that took; ``reason``: why there is not all that was wanted."""

    num_bytes: int
    seconds: float
    over: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class AskStandby(Question[StandbyState], type="ask_standby"):
    """Asks for a ``StandbyState``."""
