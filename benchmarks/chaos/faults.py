"""Faults: what happens to which node, and when. Pure, but for who inflicts them.

A story is drawn from a seed: the same seed gives the same faults with the same pauses. A fault
begins ``pause_s`` after the streams have come back from the one before, lasts ``hold_s``, and is
undone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

#: What can happen to a process. "slow": it is stopped half of the time.
PROCESS = ("kill", "stop", "slow")
#: What can happen to a machine beside that. "power": it goes with all that runs there, without a
#: word, and is started again; "cut": nothing comes or goes; "cut in", "cut out": in one direction;
#: "drip": some bytes a second.
MACHINE = ("power", "cut", "cut in", "cut out", "drip")

_HOLDS = {"kill": (0.0, 0.0), "stop": (8.0, 14.0), "slow": (3.0, 6.0), "power": (1.0, 8.0),
          "cut": (8.0, 14.0), "cut in": (8.0, 14.0), "cut out": (8.0, 14.0),
          "drip": (8.0, 14.0)}  # fmt: skip
_TWO_AT_ONCE = 0.2
NOTHING = "nothing"  # of a moment at which no fault happens, to compare with


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One node's part of a fault."""

    kind: str
    node: int


@dataclass(frozen=True, kw_only=True)
class Fault:
    blows: tuple[Blow, ...]
    pause_s: float
    hold_s: float

    @property
    def title(self) -> str:
        return " + ".join(f"{blow.kind} {blow.node}" for blow in self.blows) or NOTHING

    @property
    def kind(self) -> str:
        kinds = [blow.kind for blow in self.blows] or [NOTHING]
        return kinds[0] if len(kinds) == 1 else "two at once"


class Target(Protocol):
    """What faults happen to: nodes by their places, 0 to ``count`` - 1."""

    @property
    def count(self) -> int: ...
    def strike(self, blow: Blow) -> None:
        """Begins it. Does not wait."""
        ...

    def undo(self, blow: Blow) -> None:
        """Ends it: what was stopped goes on, what is gone is started where nobody else does."""
        ...


def story(seed: int, nodes: int, kinds: Sequence[str], *, pauses: tuple[float, float],
          pairs: bool = True) -> Iterator[Fault]:  # fmt: skip
    """Faults without end. The first ones are one of each kind, in a drawn order; ``pairs``: some
    hit two nodes at once, where at least two are left."""
    draw = random.Random(seed)
    first = draw.sample(list(kinds), len(kinds))
    number = 0
    while True:
        kind = first.pop() if first else draw.choice(list(kinds))
        blows = [Blow(kind=kind, node=draw.randrange(nodes))]
        number += 1
        if pairs and nodes > 3 and (number == 3 or (not first and draw.random() < _TWO_AT_ONCE)):
            others = [node for node in range(nodes) if node != blows[0].node]
            blows.append(Blow(kind=draw.choice(list(kinds)), node=draw.choice(others)))
        low = max(_HOLDS[blow.kind][0] for blow in blows)
        high = max(_HOLDS[blow.kind][1] for blow in blows)
        yield Fault(blows=tuple(blows), pause_s=draw.uniform(*pauses),
                    hold_s=draw.uniform(low, high))  # fmt: skip
