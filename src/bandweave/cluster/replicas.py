"""Replicas: several clusters, each of which holds the whole model, as one engine.

A request goes to the group that has read its beginning before, or has least to do. Where a group
loses a node its streams go on at another at once, with the very same tokens, while it is rebuilt.
Knows tokens, not text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

from bandweave.checkpoints.folder import Folder
from bandweave.cluster.carried import Carried
from bandweave.cluster.cluster import Cluster, Tell
from bandweave.cluster.group_router import GroupRouter
from bandweave.cluster.group_start import GroupStart, check_groups_memory, side_by_side
from bandweave.cluster.groups import group_options
from bandweave.cluster.health import ClusterHealth, NodeHealth, Outage
from bandweave.cluster.joint_call import JointCall
from bandweave.cluster.recoveries import Recovery
from bandweave.cluster.standby import StandbySummary
from bandweave.cluster.takeover import Choose, keep_options
from bandweave.engine.asking import Asking
from bandweave.engine.engine import NodeStatistics
from bandweave.engine.lineup import HasLineup, Lineup
from bandweave.engine.loading_nodes import OnProgress
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import make_launcher, settle_format
from bandweave.executors.executor import PAGE_SIZE, StepError
from bandweave.generation.request import USUAL, CallOptions, Request
from bandweave.messages import EngineState
from bandweave.nodes.host_launcher import OnWaiting
from bandweave.nodes.launcher import Launcher
from bandweave.routing.call import Cancel, Deliver

_SUMS = (
    "running", "waiting", "pages", "free_pages", "kept_pages", "preempted", "steps", "seconds",
    "read", "written", "ended", "in_flight",
)  # fmt: skip

MakeLauncher = Callable[[EngineOptions], Launcher]


class Replicas(Asking, HasLineup):
    """A loaded model, as often as there are ``groups``. A context manager; ``close`` ends every
    node.

    What is told of nodes, shares and accounts is the first group's that serves; ``groups`` tells of
    each. Errors are those of ``Cluster``.
    """

    def __init__(self, groups: Sequence[Cluster]) -> None:
        """Over clusters of one model, which this owns. See ``start``."""
        self.groups = tuple(groups)
        run, context = self.groups[0].options.run, self.groups[0].context
        self._router = GroupRouter(self.groups, pages=run.streams * -(-context // PAGE_SIZE))

    @classmethod
    def start(
        cls,
        folder: Folder,
        options: EngineOptions,
        on_progress: OnProgress = lambda progress: None,
        *,
        make: MakeLauncher | None = None,
        on_waiting: OnWaiting = lambda name: None,
        choose: Choose = keep_options,
        tell: Tell = lambda sentence: None,
    ) -> Replicas:
        """Divides the nodes of the ``options`` into groups, which load side by side. ``make``: what
        starts a group's nodes. The others, and the errors, are those of ``Cluster.start``."""
        options = settle_format(folder, options)
        each = [choose(one) if one.hosts else one for one in group_options(options)]
        if not options.hosts:
            check_groups_memory(folder, each)
        launchers = [make_launcher(one, on_waiting) if make is None else make(one) for one in each]
        return cls.start_each(folder, each, launchers, on_progress, choose=choose, tell=tell)

    @classmethod
    def start_each(
        cls,
        folder: Folder,
        each: Sequence[EngineOptions],
        launchers: Sequence[Launcher],
        on_progress: OnProgress,
        *,
        choose: Choose = keep_options,
        tell: Tell = lambda sentence: None,
    ) -> Replicas:
        """Groups whose nodes are settled: the options of ``each``, whose nodes its launcher
        starts."""
        start = GroupStart(folder, launchers, on_progress, choose, tell)
        return cls(start.run(each))

    # --- what is told of it ---

    @property
    def _first(self) -> Cluster:
        """A group that serves, or the first."""
        return next((group for group in self.groups if group.serves), self.groups[0])

    @property
    def lineup(self) -> Lineup:
        """Of a group that serves."""
        return self._first.lineup

    @property
    def generation(self) -> int:
        """Goes up whenever any group's does."""
        return sum(group.generation for group in self.groups)

    def statistics(self) -> list[NodeStatistics]:
        return self._first.statistics()

    # --- requests ---

    def submit(
        self,
        requests: Sequence[Request],
        deliver: Deliver,
        options: CallOptions = USUAL,
    ) -> Cancel:
        """Those with one prompt are answered by one group."""
        together: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for index, request in enumerate(requests):
            together.setdefault((request.salt, request.tokens), []).append(index)
        parts = list(together.values())
        if len(parts) < 2:
            return self._router.submit(requests, deliver, options).cancel
        calls: list[tuple[Carried, list[int]]] = []

        def cancel(index: int | None = None) -> None:
            for call, indices in list(calls):
                if index is None:
                    call.cancel()
                elif index in indices:
                    call.cancel(indices.index(index))

        joint = JointCall(deliver, len(requests), cancel)
        try:
            for indices in parts:
                own = [requests[index] for index in indices]
                call = self._router.submit(own, joint.part(indices), options)
                calls.append((call, indices))
        except BaseException:
            cancel()
            raise
        return cancel

    def learn(self, texts: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        """Tells all groups; those that serve at once, the others once they do. ``ValueError`` where
        one cannot keep to any grammar."""
        outcomes: list[Exception] = []

        def tell(group: Cluster) -> None:
            try:
                group.learn(texts, end_tokens)
            except Exception as error:
                outcomes.append(error)

        threads = []
        for group in self.groups:
            thread = threading.Thread(target=tell, args=(group,), name="learning", daemon=True)
            thread.start()
            threads.append((group, thread))
        while any(thread.is_alive() and group.serves for group, thread in threads):
            for _, thread in threads:
                thread.join(0.02)
        wrong = [one for one in outcomes if isinstance(one, ValueError)]
        if wrong or len(outcomes) == len(self.groups):
            raise (wrong or outcomes)[0]

    def cancel(self) -> None:
        """Ends all answers under way, from any thread."""
        for call in self._router.calls():
            call.cancel()

    def state(self) -> EngineState:
        """Of all groups together."""
        states, errors = [], []
        for group in self.groups:
            try:
                states.append(group.state())
            except StepError as error:
                errors.append(error)
        if not states:
            raise errors[0]
        sums = {name: sum(getattr(one, name) for one in states) for name in _SUMS}
        durations = tuple(map(sum, zip(*(one.durations for one in states), strict=True)))
        return replace(states[0], durations=durations, **sums)

    # --- failures ---

    @property
    def standby(self) -> StandbySummary | None:
        """What nodes of all groups hold ready; None where they are to hold nothing."""
        found = [one for group in self.groups if (one := group.standby) is not None]
        if not found:
            return None
        return StandbySummary(
            where=found[0].where,
            num_bytes=[size for one in found for size in one.num_bytes],
            seconds=max(one.seconds for one in found),
            over=all(one.over for one in found),
            reasons=[
                _named(number, reason) for number, one in enumerate(found) for reason in one.reasons
            ],
        )

    def recoveries(self) -> Sequence[Recovery]:
        """Of all groups, and how streams went from one to another; oldest first."""
        found = [*self._router.recoveries.all()]
        for number, group in enumerate(self.groups):
            found += [
                replace(one, node=_named(number, one.node)) if one.node else one
                for one in group.recoveries()
            ]
        return sorted(found, key=lambda one: one.at)

    @property
    def num_recoveries(self) -> int:
        own = sum(group.num_recoveries for group in self.groups)
        return own + self._router.recoveries.count

    @property
    def outage(self) -> Outage | None:
        """Why answers wait, where no group can compute them: of the group that is back first."""
        outages = [group.outage for group in self.groups if not group.closed]
        found = [one for one in outages if one is not None]
        if len(found) < len(outages):
            return None
        return min(found, key=lambda one: (one.over_patience, one.retry), default=None)

    def health(self) -> ClusterHealth:
        """Of all nodes; their numbers are those in their groups."""
        nodes: list[NodeHealth] = []
        for number, group in enumerate(self.groups):
            nodes += [
                replace(one, name=_named(number, one.name), group=number)
                for one in group.health().nodes
            ]
        return ClusterHealth(nodes=nodes, outage=self.outage, generation=self.generation)

    def group_states(self) -> list[dict[str, Any]]:
        """What each group has and does, for reports. Never waits."""
        return [
            {
                "group": number,
                "serves": load.serves,
                "streams": load.streams,
                "unread_tokens": load.unread,
                "nodes": [node.name for node in group.nodes],
                "recoveries_total": group.num_recoveries,
                "reason": "" if group.outage is None else group.outage.reason,
            }
            for number, (group, load) in enumerate(
                zip(self.groups, self._router.loads(), strict=True)
            )
        ]

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        self._router.close()
        side_by_side([group.close for group in self.groups])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _named(group: int, node: str) -> str:
    return f"group {group}, {node}"
