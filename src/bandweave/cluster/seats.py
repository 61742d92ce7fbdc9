"""Seats: where each node of a cluster stands, and so whose share it has. Knows no engines."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from bandweave.nodes.node_handle import NodeHandle


class Seats:
    """``wanted``: the shares of the nodes as they were started, by their places."""

    def __init__(self, numbers: Sequence[int], shares: Sequence[Fraction]) -> None:
        """Of nodes with these numbers, which are their places."""
        self.wanted: dict[int, Fraction] = dict(zip(numbers, shares, strict=True))
        self._places = {number: number for number in numbers}

    def of(self, handle: NodeHandle) -> int:
        """Where a node stands among all: at its number, or where one was that failed, whose share
        it has. So the others keep theirs."""
        return self._places.get(handle.node, handle.node)

    def seat(self, newcomers: Sequence[NodeHandle], staying: Sequence[NodeHandle]) -> None:
        """Gives newcomers their places: their own numbers where nobody is, else the first that is
        free, else new ones."""
        taken = {self.of(one) for one in staying}
        for handle in newcomers:
            free = [place for place in sorted(self.wanted) if place not in taken]
            place = handle.node
            if free and place not in free:
                place = free[0]
            elif place in taken:
                place = max((*taken, *self.wanted)) + 1
            self._places[handle.node] = place
            taken.add(place)
