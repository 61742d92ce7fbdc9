"""GroupStart: several clusters of one model that start side by side: all of them, or none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from bandweave.checkpoints.folder import Folder
from bandweave.cluster.cluster import Cluster, Tell
from bandweave.cluster.takeover import Choose
from bandweave.engine.loading_nodes import OnProgress
from bandweave.engine.memory import check_memory
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs, resolve_context
from bandweave.host.machine import available_memory_bytes
from bandweave.nodes.launcher import Launcher
from bandweave.programs.split import make_split

_STOPPING_PATIENCE = 0.1  # a node that loads does not listen


class GroupStart:
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
            side_by_side([lambda one=one: one.stop(patience=_STOPPING_PATIENCE)
                           for one in self._launchers])  # fmt: skip
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            side_by_side([group.close for group in self._started.values()])
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


def check_groups_memory(folder: Folder, each: Sequence[EngineOptions]) -> None:
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


def side_by_side(work: Sequence[Callable[[], object]]) -> None:
    """Each takes seconds at worst, and none fails."""
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
