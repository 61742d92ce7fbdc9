"""Engine: a model on N nodes, as the commands see it. The process that owns it holds no weights.

Starts nodes through a launcher, gives each its share to hold, lets them join, and turns requests
into results. Knows tokens, not text.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

from bandweave.checkpoints.folder import Folder
from bandweave.collection import no_collection
from bandweave.engine.asking import Asking
from bandweave.engine.division import Divide, Division
from bandweave.engine.lineup import HasLineup, Lineup
from bandweave.engine.loading_nodes import Loading, OnProgress, describe_hosts
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import (
    check_local_memory,
    fit_to_hosts,
    make_assignments,
    make_join,
    make_launcher,
    resolve_context,
    settle_format,
)
from bandweave.executors.executor import StepError
from bandweave.generation.request import USUAL, CallOptions, Request
from bandweave.messages import (
    Alternative,
    AskStandby,
    AskState,
    AskStatistics,
    EngineState,
    Standby,
    StandbyState,
    Vocabulary,
)
from bandweave.models.registry import require_further
from bandweave.nodes.launcher import Launcher
from bandweave.nodes.node_group import NodeGroup
from bandweave.nodes.node_handle import NodeHandle
from bandweave.programs.split import make_split
from bandweave.routing.call import Cancel, Deliver
from bandweave.routing.router import Router
from bandweave.sharing.source import FileSource
from bandweave.weights.panel_cache import open_cache

_LOADING_PATIENCE = 0.1  # a node that loads does not listen
_TEXTS = 32_768  # of the vocabulary, in one message


@dataclass(frozen=True, kw_only=True)
class NodeStatistics:
    """A node's bills since its start, of prefill steps and of decode steps (seconds and counts;
    native/executor/executor.h), and its peak resident memory."""

    name: str
    prefill: dict[str, float]
    decode: dict[str, float]
    peak_rss_bytes: int


class Engine(Asking, HasLineup):
    """A loaded model. A context manager; ``close`` ends every node.

    Any number of threads and asyncio tasks may ask at a time; their requests share the steps.
    """

    def __init__(self, folder: Folder, options: EngineOptions, launcher: Launcher) -> None:
        """Use ``start``."""
        self._folder, self._launcher = folder, launcher
        self.generation = 0
        if options.run.further:
            require_further(folder.spec)
        self._lineup = Lineup(
            spec=folder.spec,
            context=resolve_context(folder, options),
            options=options,
            split=make_split(folder.spec, options.shares, stages=options.stages),
        )
        self._started, self._loading = options, False
        self.on_failure: Callable[[], None] = lambda: None
        """Called in a thread of the engine's when its nodes have failed; must not wait."""

    @property
    def lineup(self) -> Lineup:
        return self._lineup

    @classmethod
    def start(
        cls,
        folder: Folder,
        options: EngineOptions,
        launcher: Launcher | None = None,
        on_progress: OnProgress = lambda progress: None,
    ) -> Engine:
        """Starts the nodes and loads the model. The engine owns the ``launcher``; without one the
        nodes start where ``options`` say. ``folder`` stays open as long as the engine is used.

        ``ValueError`` for a request that makes no sense, ``MemoryError`` where it does not fit,
        ``OSError`` where a node cannot be started or reached, ``StepError`` where one fails.
        """
        options = settle_format(folder, options)
        launcher = launcher or make_launcher(options)
        engine = cls(folder, options, launcher)
        begun = time.perf_counter()
        try:
            if launcher.local:
                launcher.begin(engine.split.num_nodes)  # they come up meanwhile
                with no_collection():
                    check_local_memory(folder, engine.split, options, engine.context)
            handles = launcher.start(engine.split.num_nodes)
            ready = time.perf_counter() - begun
            engine._gather(handles)
            engine._join(handles, options, on_progress)
            times = replace(engine.lineup.start_times, nodes=ready)
            engine._lineup = replace(engine.lineup, start_times=times)
            return engine
        except BaseException:
            launcher.stop(patience=_LOADING_PATIENCE)
            raise

    def rejoin(
        self,
        divide: Sequence[Fraction] | Divide | None = None,
        on_progress: OnProgress = lambda progress: None,
        *,
        newcomers: Sequence[NodeHandle] = (),
        retired: Sequence[NodeHandle] = (),
        place: Callable[[NodeHandle], int] = lambda handle: handle.node,
        on_planned: Callable[[], None] = lambda: None,
    ) -> None:
        """Goes on with the nodes that are left, after a ``StepError`` or in the midst of work,
        without those that are ``retired``, and with ``newcomers``: divided as what is called with
        them says, or in shares that are given, equal ones where there are none, and in as many
        stages as at the start. ``place`` says in which order they stand. Nodes keep what they can
        of what they hold, and read the rest. ``on_planned`` is called when all is settled, before
        they are told.

        All requests have failed, and the KV cache is empty. Errors as ``start``, after which it may
        be called again; ``NodeMistake`` where a node has ended for what it was told;
        ``StepError`` where no node is left.
        """
        self._router.close()
        loading, self._loading = self._loading, False
        for handle in retired:
            self._launcher.dismiss(handle)
        left = [*self._group.survivors(loading=loading), *newcomers]
        handles = sorted(left, key=place)
        self._gather(handles)
        if not handles:
            raise StepError("no node is left")
        if callable(divide):
            division = divide(handles)
        else:
            equal = (Fraction(1),) * len(handles)
            stages = min(self._started.stages, len(handles))
            division = Division(shares=tuple(divide or equal), stages=stages)
        hosts = tuple(handle.host for handle in handles) if self.options.hosts else ()
        options = replace(
            self.options,
            shares=division.shares,
            hosts=hosts,
            stages=division.stages,
            emulate=self._started.emulate if len(handles) > 1 else None,
            fit=True,
        )
        self._join(handles, options, on_progress, on_planned)

    def _gather(self, handles: Sequence[NodeHandle]) -> None:
        """These are the nodes now, whatever becomes of them."""
        stall = self.options.stall_seconds
        self._group = NodeGroup(self._launcher, handles, stall_seconds=stall)

    def _join(
        self,
        handles: Sequence[NodeHandle],
        options: EngineOptions,
        on_progress: OnProgress,
        on_planned: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes a generation of these nodes."""
        folder, launcher, group = self._folder, self._launcher, self._group
        if len(handles) != len(options.shares):
            raise ValueError(f"{len(options.shares)} shares for {len(handles)} nodes")
        descriptions = [] if launcher.local else describe_hosts(group)
        if not launcher.local:
            options = fit_to_hosts(folder, options, self.context, descriptions, group.names)
        split = make_split(folder.spec, options.shares, stages=options.stages)
        if launcher.local and self.generation:
            held = {info.name: info.weight_bytes for info in self.nodes}
            kept = sum(held.get(handle.name, 0) for handle in handles)
            check_local_memory(folder, split, options, self.context, kept=kept)
        assignments = make_assignments(folder, options, launcher, self.context, descriptions)
        self.generation += 1
        join = make_join(options, handles, self.generation, launcher.link_encryption())
        cache = open_cache(options.cache_folder if options.cache else "")
        further = options.run.further
        on_planned()
        self._loading = True
        with ExitStack() as stack:
            if not launcher.local and folder.has_weights:
                secret, session = launcher.secret, launcher.session
                source = FileSource(folder, handles, secret, session, launcher.encryption)
                stack.enter_context(source)
            loading = Loading(group, split, folder, cache, further=further)
            stack.enter_context(loading)
            nodes, agreement = loading.run(assignments, join, on_progress)
        self._loading = False
        self._lineup = replace(
            self._lineup,
            options=options,
            split=split,
            nodes=nodes,
            agreement=agreement,
            start_times=loading.times,
        )
        self._router = Router(group, lambda: self.on_failure())
        self._router.start()

    @property
    def handles(self) -> Sequence[NodeHandle]:
        """Its nodes, in the order of their ranks."""
        return self._group.handles

    @property
    def failure(self) -> StepError | None:
        """What ended the work of its nodes, a ``NodeFailure`` where that is known; None where
        nothing has."""
        return self._group.failure or self._router.failure

    def silences(self) -> list[float]:
        """Seconds since each node last gave a sign of life, while it is not loading."""
        return self._group.silences()

    def submit(
        self,
        requests: Sequence[Request],
        deliver: Deliver,
        options: CallOptions = USUAL,
    ) -> Cancel:
        """Asks for answers and returns at once; ``deliver`` hears of them in a thread of the
        engine's, and must not wait. What comes back cancels one of them, or all, from any
        thread."""
        router = self._router
        ids = router.submit(requests, deliver, options)

        def cancel(index: int | None = None) -> None:
            router.cancel(ids if index is None else [ids[index]])

        return cancel

    def state(self) -> EngineState:
        """What goes on, as of the end of the step at hand."""
        return self._router.ask(0, AskState())

    def stand_by(self, divide: Divide, *, on_disk: bool = False) -> None:
        """Has every node hold ready what it would need if any one of the others were gone, when
        the model would be divided so. Returns at once; see ``standby_states``."""
        handles = self.handles
        lists: list[list[Alternative]] = [[] for _ in handles]
        for gone in range(len(handles)):
            left = [rank for rank in range(len(handles)) if rank != gone]
            if not left:
                continue
            own = divide([handles[rank] for rank in left])
            for place, rank in enumerate(left):
                lists[rank].append(Alternative(shares=own.shares, stages=own.stages, rank=place))
        hosts = [handle.host_id for handle in handles]
        for rank, alternatives in enumerate(lists):
            asked = Standby(
                alternatives=tuple(alternatives),
                on_disk=on_disk,
                sharers=max(hosts.count(hosts[rank]), self.options.all_nodes),
            )
            self._router.tell(rank, asked)

    def standby_states(self) -> list[StandbyState]:
        """What every node holds ready beside its share. ``StepError`` where one fails."""
        return [self._router.ask(rank, AskStandby()) for rank in range(len(self.handles))]

    def learn(self, texts: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        """Tells node 0 the bytes of every token, so that requests may have grammars. ``ValueError``
        where it cannot keep to any."""
        encoded = [base64.b64encode(text).decode() for text in texts]
        for first in range(0, len(encoded), _TEXTS):
            part = Vocabulary(
                first=first,
                texts=tuple(encoded[first : first + _TEXTS]),
                end_tokens=tuple(end_tokens),
                last=first + _TEXTS >= len(encoded),
            )
            if part.last:
                learnt = self._router.ask(0, part)
                if learnt.reason:
                    raise ValueError(learnt.reason)
            else:
                self._router.tell(0, part)

    def cancel(self) -> None:
        """Ends all answers under way, from any thread; they come back as ``"cancelled"``.

        Does nothing where none is, or where the nodes have gone.
        """
        self._router.cancel_all()

    def statistics(self) -> list[NodeStatistics]:
        """What every node has counted since its start."""
        result = []
        for node, name in enumerate(self._group.names):
            counted = self._router.ask(node, AskStatistics())
            result.append(
                NodeStatistics(
                    name=name,
                    prefill=dict(counted.prefill),
                    decode=dict(counted.decode),
                    peak_rss_bytes=counted.peak_rss_bytes,
                )
            )
        return result

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        self._router.close()
        self._group.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
