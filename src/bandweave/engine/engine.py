"""Engine: a model on N nodes, as the commands see it. The process that owns it holds no weights.

Starts nodes through a launcher, gives each its assignment, and turns requests into results. Knows
tokens, not text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from bandweave.checkpoints.folder import Folder
from bandweave.engine.launcher import OnWaiting
from bandweave.engine.node_group import NodeGroup, OnRead
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import (
    check_local_memory,
    fit_to_hosts,
    make_assignment,
    make_launcher,
    resolve_context,
)
from bandweave.engine.request import Request, Result, Timing
from bandweave.planning.split import NodeShare, Split, make_split

_LOADING_PATIENCE = 0.1  # a node that loads does not listen
_LOAD_PATIENCE = 60.0  # between two signs of progress while loading

OnToken = Callable[[int, int], bool | None]  # request, token; True ends that answer


@dataclass(frozen=True, kw_only=True)
class NodeInfo:
    """One loaded node: what it holds and where it runs; ``fetch_ahead_bytes``: how far ahead of
    its products it fetches weights (native/executor/fetch_ahead.h)."""

    name: str
    share: NodeShare
    weight_bytes: int
    kv_bytes: int
    work_bytes: int
    threads: int
    isa: str
    fetch_ahead_bytes: int


@dataclass(frozen=True, kw_only=True)
class NodeStatistics:
    """A node's bills since its start, of prefill steps and of decode steps (seconds and counts;
    native/executor/executor.h), and its peak resident memory."""

    name: str
    prefill: dict[str, float]
    decode: dict[str, float]
    peak_rss_bytes: int


OnProgress = Callable[[Sequence[tuple[int, int]]], None]  # bytes done and in all, by node


class Engine:
    """A loaded model. A context manager; ``close`` ends every node."""

    def __init__(self, group: NodeGroup, split: Split, context: int) -> None:
        """Use ``start``."""
        self._group = group
        self.split, self.context = split, context
        self.nodes: tuple[NodeInfo, ...] = ()
        self._number = self._count = 0  # of generations so far, and of answers in the last
        self._lock = threading.Lock()

    @classmethod
    def start(
        cls,
        folder: Folder,
        options: EngineOptions,
        on_progress: OnProgress = lambda progress: None,
        *,
        on_waiting: OnWaiting = lambda name: None,
    ) -> Engine:
        """Starts the nodes and loads the model; ``on_waiting`` hears of each host before it is
        connected to.

        ``ValueError`` for a request that makes no sense, ``MemoryError`` where it does not fit,
        ``OSError`` where a node cannot be started or reached, ``StepError`` where one fails.
        """
        context = resolve_context(folder, options)
        split = make_split(folder.spec, options.shares, stages=options.stages)
        if not options.hosts:
            check_local_memory(folder, split, options, context)
        launcher = make_launcher(options, on_waiting)
        try:
            handles = launcher.start(split.num_nodes)
            group = NodeGroup(launcher, handles, stall_seconds=options.stall_seconds)
            if options.hosts and options.fit:
                shares = fit_to_hosts(folder, options, context, _available_memories(group))
                options = replace(options, shares=shares)
                split = make_split(folder.spec, shares, stages=options.stages)
            for node in range(split.num_nodes):
                assignment = make_assignment(folder, options, handles, node, context)
                group.send(node, assignment.to_message())
            engine = cls(group, split, context)
            engine._await_loaded(on_progress)
            return engine
        except BaseException:
            launcher.stop(patience=_LOADING_PATIENCE)
            raise

    def generate(
        self,
        requests: Sequence[Request],
        *,
        on_token: OnToken = lambda index, token: None,
        on_read: OnRead = lambda tokens: None,
        chunk: int | None = None,
        digest: bool = False,
        reuse: bool = True,
    ) -> list[Result]:
        """Answers all requests together; ``on_token`` sees every token as it comes, ``on_read``
        hears now and then how far a long prompt has been read.

        ``chunk``: prompt tokens a step at most. ``digest``: hash the logits. ``reuse`` off computes
        prompts from their start. ``ValueError`` for a request that cannot be run; ``StepError``
        names the node or layer that failed, after which the engine can only be closed.
        """
        if chunk is not None and chunk < 1:
            raise ValueError(f"prompt chunks of {chunk} tokens; it must be at least 1")
        with self._lock:
            self._number += 1
            number, self._count = self._number, len(requests)
            self._group.send(
                0,
                {
                    "type": "generate",
                    "number": number,
                    "requests": [request.to_message() for request in requests],
                    "chunk": chunk,
                    "digest": digest,
                    "reuse": reuse,
                },
            )
            caught: list[BaseException] = []

            def guarded(index: int, token: int) -> bool | None:
                """An error of the caller's must not leave node 0 at work on what nobody wants."""
                if caught:
                    return None
                try:
                    return on_token(index, token)
                except BaseException as error:
                    caught.append(error)
                    self._cancel(number, range(len(requests)))
                    return None

            try:
                results = self._collect(number, guarded, on_read)
            except KeyboardInterrupt:
                if not caught:
                    self._cancel(number, range(len(requests)))
                self._collect(number, lambda index, token: None)
                raise
            if caught:
                raise caught[0]
            return results

    def cancel(self) -> None:
        """Ends the answers under way, from any thread; they come back as ``"cancelled"``.

        Does nothing where none is, or where its nodes have gone.
        """
        self._group.notify(0, _cancellation(self._number, range(self._count)))

    def statistics(self) -> list[NodeStatistics]:
        """What every node has counted since its start."""
        with self._lock:
            result = []
            for node, name in enumerate(self._group.names):
                message = self._group.ask(node, {"type": "statistics"})
                result.append(
                    NodeStatistics(
                        name=name,
                        prefill=message["prefill"],
                        decode=message["decode"],
                        peak_rss_bytes=message["peak_rss_bytes"],
                    )
                )
            return result

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        self._group.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- messages ---

    def _collect(
        self, number: int, on_token: OnToken, on_read: OnRead = lambda tokens: None
    ) -> list[Result]:
        while True:
            _, message = self._group.receive(on_read=on_read)
            if message.get("number") != number:
                continue
            match message["type"]:
                case "tokens":
                    for index, token in message["tokens"]:
                        if on_token(index, token):
                            self._cancel(number, [index])
                case "refused":
                    raise ValueError(message["reason"])
                case "done":
                    return [_result(result) for result in message["results"]]

    def _cancel(self, number: int, indices: Sequence[int]) -> None:
        self._group.send(0, _cancellation(number, indices))

    def _await_loaded(self, on_progress: OnProgress) -> None:
        progress = [(0, 1)] * len(self._group)
        infos: dict[int, NodeInfo] = {}
        while len(infos) < len(self._group):
            missing = min(set(range(len(self._group))) - set(infos))
            node, message = self._group.receive(of=missing, patience=_LOAD_PATIENCE)
            if message["type"] == "progress":
                progress[node] = (message["done"], message["total"])
                on_progress(progress)
            elif message["type"] == "loaded":
                infos[node] = NodeInfo(
                    name=self._group.names[node],
                    share=self.split.shares[node],
                    weight_bytes=message["weight_bytes"],
                    kv_bytes=message["kv_bytes"],
                    work_bytes=message["work_bytes"],
                    threads=message["threads"],
                    isa=message["isa"],
                    fetch_ahead_bytes=message["fetch_ahead_bytes"],
                )
        self.nodes = tuple(infos[node] for node in range(len(infos)))


def _cancellation(number: int, indices: Sequence[int]) -> dict[str, Any]:
    return {"type": "cancel", "number": number, "indices": list(indices)}


def _available_memories(group: NodeGroup) -> list[int]:
    """Bytes that every node's machine could give; nodes of one machine are not told apart."""
    answers = [group.ask(node, {"type": "describe"}) for node in range(len(group))]
    return [answer["available_memory_bytes"] for answer in answers]


def _result(message: dict[str, Any]) -> Result:
    return Result(
        tokens=tuple(message["tokens"]),
        reason=message["reason"],
        logits_digest=message["logits_digest"],
        digests=tuple(message["digests"]),
        timing=Timing(**message["timing"]),
    )
