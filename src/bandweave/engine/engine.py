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
from bandweave.engine.content_check import Agreement
from bandweave.engine.loading_nodes import Loading, NodeInfo, OnProgress, describe_hosts
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import (
    check_local_memory,
    fit_to_hosts,
    make_assignments,
    make_launcher,
    resolve_context,
)
from bandweave.generation.request import Request, Result
from bandweave.messages import (
    AskStatistics,
    Cancel,
    Done,
    Generate,
    Refused,
    Statistics,
    Tokens,
    encode,
)
from bandweave.nodes.launcher import OnWaiting
from bandweave.nodes.node_group import NodeGroup, OnRead
from bandweave.programs.split import Split, make_split
from bandweave.weights.panel_cache import open_cache

_LOADING_PATIENCE = 0.1  # a node that loads does not listen

OnToken = Callable[[int, int], bool | None]  # request, token; True ends that answer


@dataclass(frozen=True, kw_only=True)
class NodeStatistics:
    """A node's bills since its start, of prefill steps and of decode steps (seconds and counts;
    native/executor/executor.h), and its peak resident memory."""

    name: str
    prefill: dict[str, float]
    decode: dict[str, float]
    peak_rss_bytes: int


class Engine:
    """A loaded model. A context manager; ``close`` ends every node."""

    def __init__(self, group: NodeGroup, split: Split, context: int) -> None:
        """Use ``start``."""
        self._group = group
        self.split, self.context = split, context
        self.nodes: tuple[NodeInfo, ...] = ()
        self.agreement = Agreement()  # of the nodes' copies of the model
        self._number = self._count = 0  # of generations so far, and of answers under way
        self._lock, self._begun = threading.Lock(), threading.Lock()

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
            descriptions = describe_hosts(group) if options.hosts else []
            if options.hosts:
                options = fit_to_hosts(folder, options, context, descriptions, group.names)
                split = make_split(folder.spec, options.shares, stages=options.stages)
            engine = cls(group, split, context)
            assignments = make_assignments(folder, options, handles, context, descriptions)
            cache = open_cache(options.cache_folder if options.cache else "")
            with Loading(group, split, folder, cache) as loading:
                engine.nodes, engine.agreement = loading.run(assignments, on_progress)
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
            number = self._begin(requests, chunk=chunk, digest=digest, reuse=reuse)
            caught: list[BaseException] = []

            def guarded(function: Callable[..., Any], *arguments: int) -> Any:
                """An error of the caller's must not leave node 0 at work on what nobody wants."""
                if caught:
                    return None
                try:
                    return function(*arguments)
                except BaseException as error:
                    caught.append(error)
                    self._cancel(number, range(len(requests)))
                    return None

            def heard_token(index: int, token: int) -> bool | None:
                return guarded(on_token, index, token)

            def heard_reading(tokens: int) -> None:
                guarded(on_read, tokens)

            collected: list[list[int]] = [[] for _ in requests]
            try:
                results = self._collect(number, collected, heard_token, heard_reading)
            except KeyboardInterrupt:
                if not caught:
                    self._cancel(number, range(len(requests)))
                self._collect(number, collected)
                raise
            finally:
                self._count = 0
            if caught:
                raise caught[0]
            return results

    def cancel(self) -> None:
        """Ends the answers under way, from any thread; they come back as ``"cancelled"``.

        Does nothing where none is, or where its nodes have gone.
        """
        with self._begun:
            cancel = Cancel(number=self._number, indices=tuple(range(self._count)))
        self._group.notify(0, encode(cancel))

    def statistics(self) -> list[NodeStatistics]:
        """What every node has counted since its start."""
        with self._lock:
            result = []
            for node, name in enumerate(self._group.names):
                counted = self._group.ask(node, AskStatistics(), Statistics)
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

    def _begin(
        self, requests: Sequence[Request], *, chunk: int | None, digest: bool, reuse: bool
    ) -> int:
        """Sends a generation's requests; its number. A cancellation from another thread finds
        either none or one that node 0 has heard of."""
        with self._begun:
            self._number, self._count = self._number + 1, len(requests)
            asked = Generate(
                number=self._number,
                requests=tuple(_without_stops(request) for request in requests),
                chunk=chunk,
                digest=digest,
                reuse=reuse,
            )
            self._group.send(0, encode(asked))
            return self._number

    def _collect(
        self,
        number: int,
        collected: Sequence[list[int]],
        on_token: OnToken = lambda index, token: None,
        on_read: OnRead = lambda tokens: None,
    ) -> list[Result]:
        """Gathers the tokens of a generation to its end."""
        while True:
            node, message = self._group.receive(on_read=on_read)
            if message.get("number") != number:
                continue
            match message.get("type"):
                case Tokens.TYPE:
                    new = self._group.decode(node, Tokens, message)
                    for index, token in zip(new.requests, new.tokens, strict=True):
                        if index >= len(collected):
                            self._group.fail(node, f"it answers request {index}, which is none")
                        collected[index].append(token)
                        if on_token(index, token):
                            self._cancel(number, [index])
                case Refused.TYPE:
                    raise ValueError(self._group.decode(node, Refused, message).reason)
                case Done.TYPE:
                    return self._results(node, message, collected)

    def _results(
        self, node: int, message: dict[str, Any], collected: Sequence[list[int]]
    ) -> list[Result]:
        ends = self._group.decode(node, Done, message).answers
        if [end.count for end in ends] != [len(tokens) for tokens in collected]:
            self._group.fail(node, "tokens of an answer were lost on the way")
        return [
            Result(
                tokens=tuple(tokens),
                reason=end.reason,
                logits_digest=end.logits_digest,
                digests=end.digests,
                timing=end.timing,
                error=end.error,
            )
            for end, tokens in zip(ends, collected, strict=True)
        ]

    def _cancel(self, number: int, indices: Sequence[int]) -> None:
        self._group.send(0, encode(Cancel(number=number, indices=tuple(indices))))


def _without_stops(request: Request) -> Request:
    """Stop strings are the controller's business: nodes know no text."""
    return replace(request, params=replace(request.params, stop=()))
