"""Replanner: how a model is divided among the machines of a cluster that are left, and why.

By what was measured of them when they were gathered. Who takes part is not its business. Knows a
model's needs; connects to nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.engine.options import EngineOptions
from bandweave.membership.messages import Machine
from bandweave.planning.profile.profile import Profile
from bandweave.serving.cluster_plan import ClusterPlanner, PlannedGroup, Wish

_LEAST_GAIN = 1.1  # for which other stages than before are worth it: they load the model anew

_KEPT = ("The shares are in proportion to those of the start.",)


@dataclass(frozen=True, kw_only=True)
class _Division:
    shares: tuple[Fraction, ...]
    stages: int
    why: tuple[str, ...]


class Replanner:
    """Any thread may ask. ``names``: the addresses by which ``profile`` knows the ``machines`` that
    were there at the start; others were not measured."""

    def __init__(
        self,
        folder: Folder,
        options: EngineOptions,
        context: int,
        wish: Wish,
        machines: Sequence[Machine],
        names: Sequence[str],
        profile: Profile,
    ) -> None:
        self._folder, self._options, self._context, self._wish = folder, options, context, wish
        self._profile = profile
        self._machines = dict(zip(names, machines, strict=True))
        self._names = {
            address: name for name, one in self._machines.items() for address in one.addresses
        } | {name: name for name in names}
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
        if not self._machines.keys() >= set(names) or len(set(names)) < len(names):
            return None
        planner = ClusterPlanner(
            self._folder,
            self._options,
            self._context,
            self._wish,
            [self._machines[name] for name in names],
            names,
            self._profile,
        )
        best = planner.layout(self._wish.stages and min(self._wish.stages, len(names)))
        if best is None:
            return None
        if best.stages != options.stages and self._wish.stages is None:
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
