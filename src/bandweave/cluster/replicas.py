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
from bandweave.cluster.gathering import Gathering
from bandweave.cluster.group_router import GroupRouter
from bandweave.cluster.groups import group_options
from bandweave.cluster.health import ClusterHealth, NodeHealth, Outage
from bandweave.cluster.recoveries import Recovery
from bandweave.cluster.standing import StandbySummary
from bandweave.cluster.takeover import Choose, keep_options
from bandweave.engine.asking import Asking
from bandweave.engine.engine import NodeStatistics
from bandweave.engine.lineup import HasLineup, Lineup
from bandweave.engine.loading_nodes import OnProgress
from bandweave.engine.memory import check_memory
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import make_launcher, node_needs, resolve_context, settle_format
from bandweave.executors.executor import PAGE_SIZE, StepError
from bandweave.generation.request import USUAL, CallOptions, Request
from bandweave.host.machine import available_memory_bytes
from bandweave.messages import EngineState
from bandweave.nodes.host_launcher import OnWaiting
from bandweave.nodes.launcher import Launcher
from bandweave.programs.split import make_split
from bandweave.routing.call import Cancel, Deliver

_STOPPING_PATIENCE = 0.1  # a node that loads does not listen
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
            _check_memory(folder, each)
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
        starting = _Starting(folder, launchers, on_progress, choose, tell)
        return cls(starting.run(each))

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

        gathering = Gathering(deliver, len(requests), cancel)
        try:
            for indices in parts:
                own = [requests[index] for index in indices]
                call = self._router.submit(own, gathering.part(indices), options)
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
        _side_by_side([group.close for group in self.groups])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Starting:
    """Groups that load, each in a thread of its own."""

    def __init__(
        self,
        folder: Folder,
        launchers: Sequence[Launcher],
        on_progress: OnProgress,
        choose: Choose,
        tell: Tell,
    ) -> None:
        self._folder, self._launchers = folder, launchers
        self._on_progress, self._choose, self._tell = on_progress, choose, tell
        self._progress: list[Sequence[tuple[int, int]]] = [((0, 0),)] * len(launchers)
        self._started: dict[int, Cluster] = {}
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()

    def run(self, each: Sequence[EngineOptions]) -> list[Cluster]:
        """All of them, or none: then the first error."""
        threads = [
            threading.Thread(target=self._start, args=(number, options), daemon=True)
            for number, options in enumerate(each)
        ]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and not self._errors:
                for thread in threads:
                    thread.join(0.05)
            if self._errors:
                raise self._errors[0]
        except BaseException:
            _side_by_side([lambda one=one: one.stop(patience=_STOPPING_PATIENCE)
                           for one in self._launchers])  # fmt: skip
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            _side_by_side([group.close for group in self._started.values()])
            raise
        return [self._started[number] for number in range(len(each))]

    def _start(self, number: int, options: EngineOptions) -> None:
        def tell(sentence: str) -> None:
            self._tell(f"group {number}: {sentence}")

        try:
            self._started[number] = Cluster.start(
                self._folder,
                options,
                self._launchers[number],
                lambda progress: self._note(number, progress),
                choose=self._choose,
                tell=tell,
            )
        except BaseException as error:
            self._errors.append(error)

    def _note(self, number: int, progress: Sequence[tuple[int, int]]) -> None:
        with self._lock:
            self._progress[number] = progress
            self._on_progress([pair for group in self._progress for pair in group])


def _check_memory(folder: Folder, each: Sequence[EngineOptions]) -> None:
    """``MemoryError`` where this machine cannot hold all groups together."""
    needs = [
        need
        for options in each
        for need in node_needs(
            folder,
            make_split(folder.spec, options.shares, stages=options.stages),
            options,
            resolve_context(folder, options),
        )
    ]
    whole = needs[0]
    for need in needs[1:]:
        whole += need
    who = f"{folder.path.name}, {len(each)} times on {len(needs)} nodes together,"
    check_memory(who, whole, available_memory_bytes())


def _side_by_side(work: Sequence[Callable[[], object]]) -> None:
    """Each takes seconds at worst, and none fails."""
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _named(group: int, node: str) -> str:
    return f"group {group}, {node}"
