"""Cluster: an engine whose nodes may fail, leave, come back and join, and no answer shows it.

Keeps what every open request has said, and has the nodes that are left go on with it. Knows tokens,
not text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Self

from bandweave.checkpoints.folder import Folder
from bandweave.cluster.carried import Carried
from bandweave.cluster.counts import Counts
from bandweave.cluster.health import ClusterHealth, NodeHealth, Outage
from bandweave.cluster.keeper import Keeper
from bandweave.cluster.recoveries import Recovery
from bandweave.cluster.standby import StandbySummary
from bandweave.cluster.takeover import Choose, keep_options
from bandweave.engine.asking import Asking
from bandweave.engine.engine import Engine, NodeStatistics
from bandweave.engine.lineup import HasLineup, Lineup
from bandweave.engine.loading_nodes import OnProgress
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import make_launcher, settle_format
from bandweave.executors.executor import StepError
from bandweave.generation.request import USUAL, CallOptions, Request
from bandweave.messages import EngineState
from bandweave.nodes.launcher import Launcher
from bandweave.routing.call import Cancel, Deliver

Tell = Callable[[str], None]


class Cluster(Asking, HasLineup):
    """A loaded model. A context manager; ``close`` ends every node.

    ``StepError`` only where a request itself makes the nodes fail; ``Unavailable`` where the
    machines that are left cannot hold the model, and the patience is over.
    """

    def __init__(
        self,
        engine: Engine,
        launcher: Launcher,
        *,
        choose: Choose = keep_options,
        tell: Tell = lambda sentence: None,
    ) -> None:
        """Over an engine that has started; owns both. See ``start``."""
        self._engine = engine
        self._counts, self._counting = Counts(), threading.Lock()
        self._keeper = Keeper(engine, launcher, choose=choose, tell=tell)
        self._keeper.on_anew = self._count_anew
        self._keeper.start()

    @classmethod
    def start(
        cls,
        folder: Folder,
        options: EngineOptions,
        launcher: Launcher | None = None,
        on_progress: OnProgress = lambda progress: None,
        *,
        choose: Choose = keep_options,
        tell: Tell = lambda sentence: None,
    ) -> Cluster:
        """As ``Engine.start``. ``choose``: the shares of those that are left after a failure, which
        else stay in proportion; ``tell`` hears a sentence of each change, in another thread."""
        options = settle_format(folder, options)
        launcher = launcher or make_launcher(options)
        engine = Engine.start(folder, options, launcher, on_progress)
        try:
            return cls(engine, launcher, choose=choose, tell=tell)
        except BaseException:
            engine.close()
            raise

    @property
    def lineup(self) -> Lineup:
        """As it is now; another one after a recovery."""
        return self._engine.lineup

    @property
    def generation(self) -> int:
        """Goes up whenever other nodes, or the same ones in other shares, go on."""
        return self._engine.generation

    @property
    def standby(self) -> StandbySummary | None:
        """What nodes hold ready for the loss of one; None where they are to hold nothing."""
        return self._keeper.standby

    @property
    def serves(self) -> bool:
        """Whether answers are computed now. Never waits."""
        return not (self._keeper.interrupted or self._keeper.closed)

    @property
    def closed(self) -> bool:
        """Whether nobody will ever go on."""
        return self._keeper.closed

    def watch(self, on_lost: Callable[[float], None], on_back: Callable[[], None]) -> None:
        """Who is called when a node has failed, which took so many seconds to notice, before others
        go on, and when they do. In another thread, for which they must not wait."""
        self._keeper.on_lost, self._keeper.on_back = on_lost, on_back

    def submit(
        self,
        requests: Sequence[Request],
        deliver: Deliver,
        options: CallOptions = USUAL,
    ) -> Cancel:
        return self.carry(requests, deliver, options).cancel

    def carry(self, requests: Sequence[Request], deliver: Deliver, options: CallOptions) -> Carried:
        """As ``submit``, for whoever may take it away again."""
        keeper = self._keeper
        call = Carried(
            requests,
            deliver,
            options,
            on_over=keeper.forget,
            on_lost=keeper.note_lost,
            on_token=keeper.note_token,
        )
        keeper.submit(call)
        return call

    def state(self) -> EngineState:
        """What goes on. Counts go on over recoveries, in which all requests wait."""
        if not self._keeper.interrupted:
            try:
                state = self._engine.state()
                with self._counting:
                    return self._counts.note(state)
            except StepError:
                if self._keeper.closed:
                    raise
        self._keeper.check_closed()
        with self._counting:
            state = self._counts.waiting(self._keeper.open)
        if state is None:
            raise StepError("the nodes have not been heard of yet")
        return state

    def learn(self, texts: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        """See ``Engine.learn``; those who are node 0 later learn it too."""
        self._keeper.learn(texts, end_tokens)

    def statistics(self) -> list[NodeStatistics]:
        """What every node has counted since the last recovery. ``StepError`` in the midst of
        one."""
        if self._keeper.interrupted:
            raise StepError("the nodes are changing")
        return self._engine.statistics()

    def cancel(self) -> None:
        """Ends all answers under way, from any thread."""
        for call in self._keeper.calls():
            call.cancel()

    def recoveries(self) -> Sequence[Recovery]:
        """The last failures and changes, oldest first."""
        return self._keeper.recoveries.all()

    @property
    def num_recoveries(self) -> int:
        """Since the start."""
        return self._keeper.recoveries.count

    @property
    def outage(self) -> Outage | None:
        """Why answers wait; None while they are computed, or soon will be. Never waits."""
        return self._keeper.outage

    def health(self) -> ClusterHealth:
        """How the nodes are. Never waits."""
        nodes = self._keeper.nodes()
        there = {node.node for node in nodes}
        for one in self._keeper.roster.missing():
            if one.node not in there:
                state = ("spare" if self._keeper.full else "ready") if one.ready else "missing"
                nodes.append(
                    NodeHealth(node=one.node, name=one.name, state=state, reason=one.reason)
                )
        nodes.sort(key=lambda node: node.node)
        return ClusterHealth(nodes=nodes, outage=self.outage, generation=self.generation)

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        self._keeper.close()

    def _count_anew(self) -> None:
        with self._counting:
            self._counts.carry()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
