"""Engine: a model on N nodes, as the commands see it. The process that owns it holds no weights.

Starts nodes through a launcher, gives each its assignment, and turns requests into results. Knows
tokens, not text.
"""

from __future__ import annotations

import contextlib
import math
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, NoReturn, Self

from bandweave.checkpoints.folder import Folder
from bandweave.engine.assignment import KV_FORMATS, WEIGHT_FORMATS, Assignment
from bandweave.engine.executor import PAGE_SIZE, StepError
from bandweave.engine.handle import Launcher, NodeHandle
from bandweave.engine.launcher import HostLauncher, LocalLauncher, ThreadLauncher
from bandweave.engine.machine import available_memory_bytes, usable_cpus
from bandweave.engine.memory import NodeMemory, check_memory, node_memory
from bandweave.engine.native import ExecutorOptions
from bandweave.engine.program import lower
from bandweave.engine.request import Request, Result, Timing
from bandweave.models.registry import build_graph
from bandweave.planning.split import NodeShare, Split, make_split

DEFAULT_CONTEXT = 4096
STALL_SECONDS = 5.0
_GRACE_SECONDS = 1.0

OnToken = Callable[[int, int], bool | None]  # request, token; True ends that answer


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is split and run. ``shares`` has one entry a node; ``hosts`` (``host:port`` of
    workers, with their ``secret``) replaces local processes; ``in_process`` makes nodes threads of
    this process, for tests. ``threads`` a node (None: the processors shared out); ``context`` tokens
    a sequence (None: the model's, at most 4096); ``isa`` a kernel variant by name."""

    shares: tuple[Fraction, ...] = (Fraction(1),)
    stages: int = 1
    hosts: tuple[str, ...] = ()
    secret: bytes | None = None
    threads: int | None = None
    weight_format: str = "q4"
    kv_format: str = "f16"
    context: int | None = None
    streams: int = 1
    max_rows: int = 256
    isa: str = ""
    stall_seconds: float = STALL_SECONDS
    in_process: bool = False

    def __post_init__(self) -> None:
        if self.weight_format not in WEIGHT_FORMATS:
            raise ValueError(
                f"weight format {self.weight_format!r} is unknown; choose {', '.join(WEIGHT_FORMATS)}"
            )
        if self.kv_format not in KV_FORMATS:
            raise ValueError(
                f"KV format {self.kv_format!r} is unknown; choose {', '.join(KV_FORMATS)}"
            )
        for name in ("stages", "streams", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"{self.threads} threads a node; it must be at least 1")
        if self.hosts and len(self.hosts) != len(self.shares):
            raise ValueError(f"{len(self.hosts)} hosts, but {len(self.shares)} shares")
        if self.hosts and self.secret is None:
            raise ValueError("hosts need the token that their workers have; give --token-file")


@dataclass(frozen=True, kw_only=True)
class NodeInfo:
    """One loaded node: what it holds and where it runs."""

    name: str
    share: NodeShare
    weight_bytes: int
    kv_bytes: int
    work_bytes: int
    threads: int
    isa: str


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
        self, *, launcher: Launcher, handles: list[NodeHandle], split: Split, context: int
    ) -> None:
        """Use ``start``."""
        self._launcher, self._handles = launcher, handles
        self.split, self.context = split, context
        self.nodes: tuple[NodeInfo, ...] = ()
        self._number = self._count = 0  # of generations so far, and of answers in the last
        self._lock = threading.Lock()
        self._broken = ""

    @classmethod
    def start(
        cls,
        folder: Folder,
        options: EngineOptions,
        on_progress: OnProgress = lambda progress: None,
    ) -> Engine:
        """Starts the nodes and loads the model.

        ``ValueError`` for a request that makes no sense, ``MemoryError`` where it does not fit,
        ``OSError`` where a node cannot be started or reached, ``StepError`` where one fails.
        """
        split = make_split(folder.spec, options.shares, stages=options.stages)
        context = _context(folder, options)
        if not options.hosts:
            _check_local_memory(folder, split, options, context)
        launcher = _launcher(options)
        try:
            handles = launcher.start(split.num_nodes)
            engine = cls(launcher=launcher, handles=handles, split=split, context=context)
            for node in range(split.num_nodes):
                assignment = _assignment(folder, options, handles, node, context)
                handles[node].channel.send(assignment.to_message())
            engine._await_loaded(on_progress)
            return engine
        except BaseException:
            launcher.stop()
            raise

    def generate(
        self,
        requests: Sequence[Request],
        *,
        on_token: OnToken = lambda index, token: None,
        chunk: int | None = None,
        digest: bool = False,
        reuse: bool = True,
    ) -> list[Result]:
        """Answers all requests together; ``on_token`` sees every token as it comes.

        ``chunk``: prompt tokens a step at most. ``digest``: hash the logits. ``reuse`` off computes
        prompts from their start. ``ValueError`` for a request that cannot be run; ``StepError``
        names the node or layer that failed, after which the engine can only be closed.
        """
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
            try:
                return self._collect(number, on_token)
            except KeyboardInterrupt:
                self._cancel(number, range(len(requests)))
                self._collect(number, lambda index, token: None)
                raise

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
                message = self._receive(only=node)[1]
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

    def _collect(self, number: int, on_token: OnToken) -> list[Result]:
        while True:
            _, message = self._receive()
            if message.get("number") != number:
                continue
            match message["type"]:
                case "token":
                    if on_token(message["index"], message["token"]):
                        self._cancel(number, [message["index"]])
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

    def _receive(self, only: int | None = None) -> tuple[int, dict[str, Any]]:
        """The next message of any node, or of one. ``StepError`` where a node fails or ends,
        ``ValueError`` where what it was given cannot be used."""
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
                if only is None or node == only:
                    return node, message
            poll.poll(1000)

    def _raise_failure(self, node: int, reason: str = "") -> NoReturn:
        """Finds the cause: a node that died explains the complaints of those that miss it."""
        deadline = time.monotonic() + _GRACE_SECONDS
        complaint = f"{self._handles[node].name}: {reason}" if reason else ""
        while time.monotonic() < deadline:
            for handle in self._handles:
                cause = handle.exit_reason() if not handle.alive() else None
                if cause is not None and not cause.startswith("ended"):
                    self._broken = f"{handle.name} {cause}"
                    raise StepError(self._broken)
            time.sleep(0.02)
        self._broken = reason or complaint or f"{self._handles[node].name} closed its connection"
        raise StepError(self._broken)

    def _await_loaded(self, on_progress: OnProgress) -> None:
        progress = [(0, 1)] * len(self._handles)
        infos: dict[int, NodeInfo] = {}
        while len(infos) < len(self._handles):
            node, message = self._receive()
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
                )
        self.nodes = tuple(infos[node] for node in range(len(infos)))


def _result(message: dict[str, Any]) -> Result:
    return Result(
        tokens=tuple(message["tokens"]),
        reason=message["reason"],
        logits_digest=message["logits_digest"],
        timing=Timing(**message["timing"]),
    )


def _context(folder: Folder, options: EngineOptions) -> int:
    longest = folder.spec.context_length
    if options.context is None:
        return min(longest, DEFAULT_CONTEXT)
    if not 1 <= options.context <= longest:
        raise ValueError(f"a context of {options.context}; the model's is 1 to {longest} tokens")
    return options.context


def _launcher(options: EngineOptions) -> Launcher:
    if options.hosts:
        assert options.secret is not None
        return HostLauncher(options.hosts, options.secret)
    if options.in_process:
        return ThreadLauncher()
    return LocalLauncher()


def local_threads(options: EngineOptions) -> int:
    """Threads of each node of this machine."""
    return options.threads or max(1, len(usable_cpus()) // len(options.shares))


def _assignment(
    folder: Folder, options: EngineOptions, handles: list[NodeHandle], node: int, context: int
) -> Assignment:
    """Local nodes are pinned side by side where there are processors enough for all threads."""
    cpus: tuple[int, ...] = ()
    threads, spin = options.threads or 0, True
    if not options.hosts:
        threads = local_threads(options)
        usable = usable_cpus()
        spin = threads * len(handles) <= len(usable)
        if spin and not options.in_process:
            cpus = usable[node * threads : (node + 1) * threads]
    addresses = tuple(handle.address for handle in handles if handle.address is not None)
    return Assignment(
        model=str(folder.path.resolve()),
        fingerprint=folder.fingerprint(),
        shares=options.shares,
        stages=options.stages,
        weight_format=options.weight_format,
        kv_format=options.kv_format,
        context=context,
        streams=options.streams,
        max_rows=options.max_rows,
        names=tuple(handle.name for handle in handles),
        addresses=addresses,
        stall_seconds=options.stall_seconds,
        threads=threads,
        cpus=cpus,
        spin=spin,
        isa=options.isa,
    )


def _check_local_memory(
    folder: Folder, split: Split, options: EngineOptions, context: int
) -> None:
    """Nodes on one machine share its memory."""
    graph = build_graph(folder.spec)
    pages = math.ceil(context / PAGE_SIZE)
    sizes = ExecutorOptions(
        num_pages=pages * options.streams,
        max_pages=pages,
        max_rows=options.max_rows,
        kv_format=options.kv_format,
    )
    needs = [
        node_memory(lower(graph, split, node), options.weight_format, sizes)
        for node in range(split.num_nodes)
    ]
    together = NodeMemory(
        weight_bytes=sum(need.weight_bytes for need in needs),
        kv_bytes=sum(need.kv_bytes for need in needs),
        work_bytes=sum(need.work_bytes for need in needs),
        base_bytes=sum(need.base_bytes for need in needs),
    )
    count = "1 node" if split.num_nodes == 1 else f"all {split.num_nodes} nodes together"
    check_memory(f"{folder.path.name} on {count}", together, available_memory_bytes())


