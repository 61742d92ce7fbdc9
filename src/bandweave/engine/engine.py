"""Engine: a model on N nodes, as the commands see it. The process that owns it holds no weights.

Starts nodes through a launcher, gives each its assignment, and turns requests into results. Knows
tokens, not text.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, NoReturn, Self

from bandweave.checkpoints.folder import Folder
from bandweave.engine.executor import StepError
from bandweave.engine.handle import Launcher, NodeHandle
from bandweave.engine.launcher import OnWaiting
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

_GRACE_SECONDS = 0.5
_BROKEN_PATIENCE = 0.3
_LOADING_PATIENCE = 0.1  # a node that loads does not listen
_SECOND_HAND_SECONDS = 2.0
_LOAD_PATIENCE = 60.0  # between two signs of progress while loading

OnToken = Callable[[int, int], bool | None]  # request, token; True ends that answer
OnRead = Callable[[int], None]  # tokens computed so far, of prompts above all


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

    def __init__(
        self,
        *,
        launcher: Launcher,
        handles: list[NodeHandle],
        split: Split,
        context: int,
        stall_seconds: float,
    ) -> None:
        """Use ``start``."""
        self._launcher, self._handles = launcher, handles
        self.split, self.context = split, context
        self.nodes: tuple[NodeInfo, ...] = ()
        self._number = self._count = 0  # of generations so far, and of answers in the last
        self._lock = threading.Lock()
        self._broken = ""
        # The nodes notice each other first and know better who it is.
        self._patience = stall_seconds + _SECOND_HAND_SECONDS

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
            engine = cls(
                launcher=launcher,
                handles=handles,
                split=split,
                context=context,
                stall_seconds=options.stall_seconds,
            )
            if options.hosts and options.fit:
                shares = fit_to_hosts(folder, options, context, engine._available_memories())
                options = replace(options, shares=shares)
                engine.split = make_split(folder.spec, shares, stages=options.stages)
            for node in range(split.num_nodes):
                assignment = make_assignment(folder, options, handles, node, context)
                engine._send(node, assignment.to_message())
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
            self._send(
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
        with contextlib.suppress(OSError):
            self._handles[0].channel.send(
                {"type": "cancel", "number": self._number, "indices": list(range(self._count))}
            )

    def statistics(self) -> list[NodeStatistics]:
        """What every node has counted since its start."""
        with self._lock:
            result = []
            for node, handle in enumerate(self._handles):
                self._send(node, {"type": "statistics"})
                message = self._receive(only=node, of=node)[1]
                result.append(
                    NodeStatistics(
                        name=handle.name,
                        prefill=message["prefill"],
                        decode=message["decode"],
                        peak_rss_bytes=message["peak_rss_bytes"],
                    )
                )
            return result

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        if self._broken:  # a node that is stuck does not listen
            self._launcher.stop(patience=_BROKEN_PATIENCE)
        else:
            self._launcher.stop()

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
            _, message = self._receive(on_read=on_read)
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
        self._send(0, {"type": "cancel", "number": number, "indices": list(indices)})

    def _send(self, node: int, message: dict[str, Any]) -> None:
        if self._broken:
            raise StepError(self._broken)
        try:
            self._handles[node].channel.send(message)
        except OSError:
            self._raise_failure(node)

    def _receive(
        self,
        only: int | None = None,
        *,
        of: int = 0,
        patience: float | None = None,
        on_read: OnRead = lambda tokens: None,
    ) -> tuple[int, dict[str, Any]]:
        """The next message of any node, or of one. ``StepError`` where a node fails or ends, or
        where node ``of`` gives no sign of life for ``patience`` seconds; ``ValueError`` where what
        a node was given cannot be used."""
        patience = self._patience if patience is None else patience
        deadline = time.monotonic() + patience
        poll = select.poll()
        for handle in self._handles:
            poll.register(handle.channel.fileno(), select.POLLIN)
        while True:
            for node, handle in enumerate(self._handles):
                if not handle.channel.poll():
                    continue
                try:
                    message, _ = handle.channel.receive()
                except OSError:
                    self._raise_failure(node)
                if message.get("type") == "failed":
                    if message.get("mistake"):
                        raise ValueError(f"{handle.name}: {message.get('reason')}")
                    self._raise_failure(node, str(message.get("reason")))
                if message.get("type") == "alive":
                    deadline = time.monotonic() + patience
                    on_read(message["tokens"])
                elif only is None or node == only:
                    return node, message
            if time.monotonic() > deadline:
                reason = f"{self._handles[of].name} made no progress for {patience:.0f} s"
                self._raise_failure(of, reason)
            poll.poll(500)

    def _raise_failure(self, node: int, reason: str = "") -> NoReturn:
        """Finds the cause: a node that died explains the complaints of those that miss it."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            for handle in self._handles:
                cause = handle.exit_reason() if not handle.alive() else None
                if cause is not None and not cause.startswith("ended"):
                    self._broken = f"{handle.name} {cause}"
                    raise StepError(self._broken)
            time.sleep(0.02)
        # What one node says of another names that one already.
        named = any(handle.name in reason for handle in self._handles)
        name = self._handles[node].name
        if not reason:
            self._broken = f"{name} closed its connection"
        else:
            self._broken = reason if named else f"{name}: {reason}"
        raise StepError(self._broken)

    def _available_memories(self) -> list[int]:
        """Bytes that every node's machine could give; nodes of one machine are not told apart."""
        available = []
        for node in range(len(self._handles)):
            self._send(node, {"type": "describe"})
            message = self._receive(only=node, of=node)[1]
            available.append(message["available_memory_bytes"])
        return available

    def _await_loaded(self, on_progress: OnProgress) -> None:
        progress = [(0, 1)] * len(self._handles)
        infos: dict[int, NodeInfo] = {}
        while len(infos) < len(self._handles):
            missing = min(set(range(len(self._handles))) - set(infos))
            node, message = self._receive(of=missing, patience=_LOAD_PATIENCE)
            if message["type"] == "progress":
                progress[node] = (message["done"], message["total"])
                on_progress(progress)
            elif message["type"] == "loaded":
                infos[node] = NodeInfo(
                    name=self._handles[node].name,
                    share=self.split.shares[node],
                    weight_bytes=message["weight_bytes"],
                    kv_bytes=message["kv_bytes"],
                    work_bytes=message["work_bytes"],
                    threads=message["threads"],
                    isa=message["isa"],
                    fetch_ahead_bytes=message["fetch_ahead_bytes"],
                )
        self.nodes = tuple(infos[node] for node in range(len(infos)))


def _result(message: dict[str, Any]) -> Result:
    return Result(
        tokens=tuple(message["tokens"]),
        reason=message["reason"],
        logits_digest=message["logits_digest"],
        digests=tuple(message["digests"]),
        timing=Timing(**message["timing"]),
    )
