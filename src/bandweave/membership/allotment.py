"""Allotment: which of several groups of a cluster's machines each of them belongs to.

Every group has a launcher of its own, and no machine may be asked for by two. Knows machines; knows
no models.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bandweave.membership.messages import Machine


class Allotment:
    """``groups``: the machines that each was given at first. A machine stays with its group, after
    it has joined again too; one that comes later goes to the group that misses most. Any thread may
    ask."""

    def __init__(self, groups: Sequence[Sequence[Machine]]) -> None:
        self._sizes = [len(group) for group in groups]
        self._known = {
            machine.worker: (machine, number)
            for number, group in enumerate(groups)
            for machine in group
        }
        self._lock = threading.Lock()

    def group_of(self, machine: Machine, members: Sequence[Machine]) -> int:
        """The number of a machine's group; ``members``: who is there now."""
        with self._lock:
            known = self._known.get(machine.worker)
            if known is None:
                known = machine, self._group_for(machine, members)
                self._known[machine.worker] = known
            return known[1]

    def _group_for(self, machine: Machine, members: Sequence[Machine]) -> int:
        there = {member.worker for member in members}
        for worker, (before, number) in reversed(self._known.items()):
            if worker not in there and before.addresses == machine.addresses:
                del self._known[worker]
                return number
        numbers = range(len(self._sizes))
        present = [0 for _ in numbers]
        for worker, (_, number) in self._known.items():
            present[number] += worker in there
        return min(numbers, key=lambda one: (present[one] - self._sizes[one], present[one], one))
