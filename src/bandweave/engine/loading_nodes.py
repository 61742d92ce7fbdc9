"""Loading: the controller watches its nodes from their assignments to the first step.

All find their copies of the model, then all meet, load, and report what they read; the copies are
compared. A node that stops, or is cut off, is noticed within seconds. Knows messages; knows no
requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.engine.assignment import Assignment
from bandweave.engine.content_check import Agreement, ContentCheck
from bandweave.engine.start_times import StartTimes
from bandweave.messages import (
    Alive,
    ContentReport,
    Describe,
    Description,
    Found,
    Join,
    Loaded,
    Progress,
    RouteTaken,
    encode,
)
from bandweave.nodes.node_group import NodeGroup
from bandweave.programs.split import NodeShare, Split
from bandweave.weights.panel_cache import PanelCache

SILENT_SECONDS = 5.0  # a node that loads says twice a second that it lives
IDLE_SECONDS = 120.0  # a disk may take so long over one piece of a share

OnProgress = Callable[[Sequence[tuple[int, int]]], None]  # bytes done and in all, by node


@dataclass(frozen=True, kw_only=True)
class NodeInfo:
    """One loaded node: what it holds and where it runs; ``fetch_ahead_bytes``: how far ahead of
    its products it fetches weights (native/executor/fetch_ahead.h); ``kept_bytes`` of its share
    were in its memory before, ``manifest_bytes`` were compared with a manifest beside its copy."""

    name: str
    share: NodeShare
    weight_bytes: int
    kv_bytes: int
    work_bytes: int
    threads: int
    isa: str
    fetch_ahead_bytes: int
    kept_bytes: int
    manifest_bytes: int
    routes: tuple[RouteTaken, ...] = ()


class Loading:
    """One start of a model. A context manager; ``run`` it once, then ``times`` says how long its
    parts took."""

    def __init__(
        self,
        group: NodeGroup,
        split: Split,
        folder: Folder,
        cache: PanelCache | None,
        *,
        further: bool,
    ) -> None:
        """``further``: whether the nodes load the model's further layer, too."""
        self._group, self._split, self._folder = group, split, folder
        self._check = ContentCheck(folder, split, group.names, cache, further=further)
        self._heard = [time.monotonic()] * len(group)
        self._moved = list(self._heard)
        self._progress = [(0, 0)] * len(group)
        self._came = [0] * len(group)
        self.times = StartTimes()

    def run(
        self, assignments: Sequence[Assignment], join: Join, on_progress: OnProgress
    ) -> tuple[tuple[NodeInfo, ...], Agreement]:
        """Loads the nodes. ``ValueError`` for what cannot be loaded, ``StepError`` where a node
        fails, says nothing for 5 s or reads nothing for two minutes."""
        started = time.perf_counter()
        for node, assignment in enumerate(assignments):
            self._group.send(node, encode(assignment))
        found = self._gather(Found, on_progress)
        for node, one in enumerate(found):
            self._check.found(node, one.path, same_files=one.same_files)
        _check_headers(self._group.names, found)
        met = time.perf_counter()
        for node in range(len(self._group)):
            self._group.send(node, encode(join))
        loaded = self._gather(Loaded, on_progress)
        over = time.perf_counter()
        infos = tuple(self._info(node, one) for node, one in enumerate(loaded))
        same = sum(one.same_file_bytes for one in loaded)
        agreement = self._check.finish(
            same, lambda done, total: on_progress([*self._progress, (done, total)])
        )
        self.times = StartTimes(
            model=met - started, weights=over - met, comparison=time.perf_counter() - over
        )
        return infos, agreement

    def _gather(self, kind: type[Any], on_progress: OnProgress) -> list[Any]:
        """One message of a kind from every node."""
        got: dict[int, Any] = {}
        self._heard = self._moved = [time.monotonic()] * len(self._group)
        self._moved = list(self._heard)
        while len(got) < len(self._group):
            node, message = self._group.receive(watch=lambda: self._watch(set(got)))
            self._heard[node] = time.monotonic()
            if message.get("type") == Alive.TYPE:
                continue  # it has loaded, and waits for the others
            if message.get("type") == Progress.TYPE:
                self._note(node, self._group.decode(node, Progress, message))
                on_progress(self._progress)
            elif message.get("type") == ContentReport.TYPE:
                report = self._group.decode(node, ContentReport, message)
                try:
                    self._check.report(node, report)
                except ValueError as error:
                    self._group.fail(node, str(error))
            else:
                got[node] = self._group.decode(node, kind, message)
        return [got[node] for node in range(len(got))]

    def _note(self, node: int, progress: Progress) -> None:
        new = (progress.done, progress.total)
        comes = progress.moved != self._came[node]  # a large piece may take minutes
        if comes or new != self._progress[node] or progress.done == progress.total:
            self._moved[node] = self._heard[node]
        self._progress[node], self._came[node] = new, progress.moved

    def _watch(self, ready: set[int]) -> None:
        """Fails with the name of a node that is silent, or that lives but does not get on."""
        now = time.monotonic()
        for node in range(len(self._group)):
            if node in ready:
                continue
            if now - self._heard[node] > SILENT_SECONDS:
                reason = f"has said nothing for {SILENT_SECONDS:.0f} s while loading"
                self._group.fail(node, reason, gone=True)
            if now - self._moved[node] > IDLE_SECONDS:
                reason = f"has read nothing for {IDLE_SECONDS:.0f} s; does its disk answer?"
                self._group.fail(node, reason, gone=True)

    def _info(self, node: int, loaded: Loaded) -> NodeInfo:
        return NodeInfo(
            name=self._group.names[node],
            share=self._split.shares[node],
            weight_bytes=loaded.weight_bytes,
            kv_bytes=loaded.kv_bytes,
            work_bytes=loaded.work_bytes,
            threads=loaded.threads,
            isa=loaded.isa,
            fetch_ahead_bytes=loaded.fetch_ahead_bytes,
            kept_bytes=loaded.kept_bytes,
            manifest_bytes=loaded.manifest_bytes,
            routes=loaded.routes,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._check.close()


def describe_hosts(group: NodeGroup) -> list[Description]:
    """What every node's machine is."""
    return [group.ask(node, Describe()) for node in range(len(group))]


def _check_headers(names: Sequence[str], found: Sequence[Found]) -> None:
    """The controller may have no weights to tell by; then the nodes' must be of one layout."""
    for name, one in zip(names, found, strict=True):
        if one.headers != found[0].headers:
            raise CheckpointError(
                f"{name} has another checkpoint at {one.path} than {names[0]} at {found[0].path}; "
                "copy the same files there"
            )
