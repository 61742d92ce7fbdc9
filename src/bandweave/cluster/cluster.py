"""Cluster: an engine whose nodes may fail, leave, come back and join, and no answer shows it.

Keeps what every open request has said, and has the nodes that are left go on with it. Knows tokens,
not text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from bandweave.checkpoints.folder import Folder
from bandweave.cluster.health import ClusterHealth, NodeHealth
from bandweave.cluster.recoveries import Recoveries, Recovery
from bandweave.engine.asking import Asking
from bandweave.engine.content_check import Agreement
from bandweave.engine.engine import Engine, NodeStatistics
from bandweave.engine.loading_nodes import NodeInfo, OnProgress
from bandweave.engine.options import EngineOptions
from bandweave.generation.request import Request
from bandweave.messages import EngineState
from bandweave.models.spec import ModelSpec
from bandweave.nodes.launcher import Launcher
from bandweave.programs.split import Split
from bandweave.routing.call import Cancel, Deliver

PATIENCE_SECONDS = 60.0  # for which those who ask wait for a machine


class Cluster(Asking):
    """A loaded model. A context manager; ``close`` ends every node."""

    def __init__(self, engine: Engine, launcher: Launcher, *, patience: float) -> None:
        """Use ``start``."""
        self._engine, self._launcher, self._patience = engine, launcher, patience
        self._recoveries = Recoveries()

    @classmethod
    def start(
        cls,
        folder: Folder,
        options: EngineOptions,
        launcher: Launcher | None = None,
        on_progress: OnProgress = lambda progress: None,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> Cluster:
        """As ``Engine.start``. ``patience``: seconds for which those who ask wait, where the nodes
        that are left cannot hold the model."""
        from bandweave.engine.placement import make_launcher

        launcher = launcher or make_launcher(options)
        engine = Engine.start(folder, options, launcher, on_progress)
        return cls(engine, launcher, patience=patience)

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._engine.context

    @property
    def spec(self) -> ModelSpec:
        return self._engine.spec

    @property
    def split(self) -> Split:
        """As it is now; another one after a recovery."""
        return self._engine.split

    @property
    def nodes(self) -> tuple[NodeInfo, ...]:
        """Those that hold the model now."""
        return self._engine.nodes

    @property
    def agreement(self) -> Agreement:
        return self._engine.agreement

    def submit(
        self,
        requests: Sequence[Request],
        deliver: Deliver,
        *,
        chunk: int | None = None,
        digest: bool = False,
        reuse: bool = True,
    ) -> Cancel:
        return self._engine.submit(requests, deliver, chunk=chunk, digest=digest, reuse=reuse)

    def state(self) -> EngineState:
        """What goes on. Counts go on over recoveries."""
        return self._engine.state()

    def learn(self, texts: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        """See ``Engine.learn``; those who are node 0 later learn it too."""
        self._engine.learn(texts, end_tokens)

    def statistics(self) -> list[NodeStatistics]:
        """What every node has counted since the last recovery."""
        return self._engine.statistics()

    def cancel(self) -> None:
        """Ends all answers under way, from any thread."""
        self._engine.cancel()

    def recoveries(self) -> Sequence[Recovery]:
        """The last failures and changes, oldest first."""
        return self._recoveries.all()

    def health(self) -> ClusterHealth:
        """How the nodes are. Never waits."""
        nodes = [
            NodeHealth(node=number, name=info.name, state="serving")
            for number, info in enumerate(self._engine.nodes)
        ]
        return ClusterHealth(nodes=nodes)

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
