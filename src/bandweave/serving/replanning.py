"""Replanner: how a model is divided among the machines of a cluster that are left, and why.

By what was measured of them when they were gathered. Who takes part is not its business. Knows a
model's needs; connects to nobody.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.engine.options import EngineOptions
from bandweave.serving.cluster_problem import ClusterProblem
from bandweave.serving.group_planner import GroupPlanner, PlannedGroup

_LEAST_GAIN = 1.1  # for which other stages than before are worth it: they load the model anew

_KEPT = ("The shares are in proportion to those of the start.",)


@dataclass(frozen=True, kw_only=True)
class _Division:
    shares: tuple[Fraction, ...]
    stages: int
    why: tuple[str, ...]


class Replanner:
    """Any thread may ask. ``problem``: of the machines that were there at the start; others were
    not measured."""

    def __init__(self, problem: ClusterProblem) -> None:
        self._problem = problem
        self._names = {
            address: name
            for name, one in zip(problem.names, problem.machines, strict=True)
            for address in one.addresses
        } | {name: name for name in problem.names}
        self._found: dict[tuple[str, ...], _Division] = {}
        self._lock = threading.Lock()

    def keep(self, options: EngineOptions, why: tuple[str, ...]) -> None:
        """Hosts are divided so from the start."""
        division = _Division(shares=options.shares, stages=options.stages, why=why)
        with self._lock:
            self._found[self._key(options)] = division

    def choose(self, options: EngineOptions) -> EngineOptions:
        """The options, with the shares and stages that are quickest on just those hosts; as they
        are where that is not known."""
        found = self._division(options)
        return options if found is None else replace(
            options, shares=found.shares, stages=found.stages
        )  # fmt: skip

    def why(self, options: EngineOptions) -> tuple[str, ...]:
        """Why hosts are divided so, in sentences."""
        with self._lock:
            found = self._found.get(self._key(options))
        return _KEPT if found is None else found.why

    def _key(self, options: EngineOptions) -> tuple[str, ...]:
        """The hosts, whichever of their addresses they were reached at."""
        return tuple(self._names.get(host, host) for host in options.hosts)

    def _division(self, options: EngineOptions) -> _Division | None:
        names = self._key(options)
        with self._lock:
            if names in self._found:
                return self._found[names]
        if not set(self._problem.names) >= set(names) or len(set(names)) < len(names):
            return None
        planner, wanted = GroupPlanner(self._problem.among(names)), self._problem.wish.stages
        best = planner.layout(wanted and min(wanted, len(names)))
        if best is None:
            return None
        if best.stages != options.stages and wanted is None:
            best = _better(planner.layout(options.stages), best)
        division = _Division(shares=best.shares, stages=best.stages, why=best.why)
        with self._lock:
            self._found[names] = division
        return division


def _better(as_before: PlannedGroup | None, other: PlannedGroup) -> PlannedGroup:
    """``other`` where that is worth loading the model anew."""
    if as_before is None or not as_before.tokens_per_s:
        return other
    worth = (other.tokens_per_s or 0.0) >= _LEAST_GAIN * as_before.tokens_per_s
    return other if worth else as_before
