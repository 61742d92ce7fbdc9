"""Failure: that a node does not do what it must, whose fault that is, and how long it took to see.

Plain data, and the rule that finds names in what nodes say of each other. Knows no messages.
"""

from __future__ import annotations

from collections.abc import Sequence

from bandweave.executors.executor import StepError


class NodeFailure(StepError):
    """``culprit``: the place in its group of the node that failed, None where no node is to blame;
    ``gone``: it has ended, or does not answer, so that nobody need ask it; ``noticed``: seconds
    from its last sign of life, or from the end of its connection, to this verdict."""

    def __init__(
        self, sentence: str, *, culprit: int | None = None, gone: bool = False, noticed: float = 0.0
    ) -> None:
        super().__init__(sentence)
        self.culprit, self.gone, self.noticed = culprit, gone, noticed


class NodeMistake(ValueError):
    """What a node was given cannot be used there: it has said so, and has ended. ``node``: its
    place in its group."""

    def __init__(self, sentence: str, *, node: int) -> None:
        super().__init__(sentence)
        self.node = node


def accused(reason: str, names: Sequence[str]) -> int | None:
    """Whom a node's complaint is about: the node whose name comes first in it. None where it names
    nobody."""
    places = {reason.find(name): node for node, name in enumerate(names) if name in reason}
    return places[min(places)] if places else None


def is_stall(reason: str) -> bool:
    """Whether a complaint is about a node that does nothing, and would answer nobody."""
    return " made no progress for " in reason
