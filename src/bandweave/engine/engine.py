"""Engine: a model on N nodes, as the commands see it. The process that owns it holds no weights.

Starts nodes through a launcher, gives each its share to hold, lets them join, and turns requests
into results. Knows tokens, not text.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Self

from bandweave.checkpoints.folder import Folder
from bandweave.collection import no_collection
from bandweave.engine.content_check import Agreement
from bandweave.engine.loading_nodes import Loading, NodeInfo, OnProgress, describe_hosts
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
from bandweave.generation.request import Request, Result
from bandweave.messages import (
    AskState,
    AskStatistics,
    EngineState,
    Learnt,
    Statistics,
    Vocabulary,
)
from bandweave.models.registry import require_further
from bandweave.nodes.launcher import Launcher
from bandweave.nodes.node_group import NodeGroup
from bandweave.nodes.node_handle import NodeHandle
from bandweave.programs.split import make_split
from bandweave.routing.call import Call, Cancel, Deliver, Event, NewTokens, Reading, Stream
from bandweave.routing.router import Router
from bandweave.sharing.source import FileSource
from bandweave.weights.panel_cache import open_cache

if TYPE_CHECKING:
    from bandweave.routing.async_stream import AsyncStream

_LOADING_PATIENCE = 0.1  # a node that loads does not listen
_TEXTS = 32_768  # of the vocabulary, in one message
_LEAVING_SECONDS = 5.0  # beyond the bound for stalls, in which a step ends

OnToken = Callable[[int, int], bool | None]  # request, token; True ends that answer
OnRead = Callable[[int], None]  # tokens of the prompts that have been read


@dataclass(frozen=True, kw_only=True)
class NodeStatistics:
    """A node's bills since its start, of prefill steps and of decode steps (seconds and counts;
    native/executor/executor.h), and its peak resident memory."""

    name: str
    prefill: dict[str, float]
    decode: dict[str, float]
    peak_rss_bytes: int


class Engine:
    """A loaded model. A context manager; ``close`` ends every node.

    Any number of threads and asyncio tasks may ask at a time; their requests share the steps.
    """

    def __init__(self, folder: Folder, options: EngineOptions, launcher: Launcher) -> None:
        """Use ``start``."""
        self._folder, self._options, self._launcher = folder, options, launcher
        self._generation = 0
        if options.run.further:
            require_further(folder.spec)
        self.context = resolve_context(folder, options)
        self.split = make_split(folder.spec, options.shares, stages=options.stages)
        self.nodes: tuple[NodeInfo, ...] = ()
        self.agreement = Agreement()  # of the nodes' copies of the model
        self.spec = folder.spec

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
        try:
            if launcher.local:
                with no_collection():
                    check_local_memory(folder, engine.split, options, engine.context)
            engine._join(launcher.start(engine.split.num_nodes), options.shares, on_progress)
            return engine
        except BaseException:
            launcher.stop(patience=_LOADING_PATIENCE)
            raise

    def rejoin(
        self,
        shares: Sequence[Fraction] | None = None,
        on_progress: OnProgress = lambda progress: None,
    ) -> None:
        """After a ``StepError``: goes on with the nodes that are left, in new ``shares``, equal
        ones where none are given. They keep what they can of what they hold, and read the rest.

        All requests have ended, and the KV cache is empty. Errors as ``start``; ``StepError`` where
        no node is left.
        """
        self._router.close()
        handles = self._group.survivors(self._options.stall_seconds + _LEAVING_SECONDS)
        if not handles:
            raise StepError("no node is left")
        self._join(handles, shares or (Fraction(1),) * len(handles), on_progress)

    def _join(
        self, handles: Sequence[NodeHandle], shares: Sequence[Fraction], on_progress: OnProgress
    ) -> None:
        """Makes a generation of these nodes."""
        folder, launcher = self._folder, self._launcher
        options = replace(self._options, shares=tuple(shares))
        if len(handles) != len(shares):
            raise ValueError(f"{len(shares)} shares for {len(handles)} nodes")
        group = NodeGroup(launcher, handles, stall_seconds=options.stall_seconds)
        descriptions = [] if launcher.local else describe_hosts(group)
        if not launcher.local:
            options = fit_to_hosts(folder, options, self.context, descriptions, group.names)
        self.split = make_split(folder.spec, options.shares, stages=options.stages)
        assignments = make_assignments(folder, options, launcher, self.context, descriptions)
        self._generation += 1
        join = make_join(options, handles, self._generation, launcher.link_encryption())
        cache = open_cache(options.cache_folder if options.cache else "")
        further = options.run.further
        with ExitStack() as stack:
            if not launcher.local and folder.has_weights:
                secret, session = launcher.secret, launcher.session
                source = FileSource(folder, handles, secret, session, launcher.encryption)
                stack.enter_context(source)
            loading = Loading(group, self.split, folder, cache, further=further)
            stack.enter_context(loading)
            self.nodes, self.agreement = loading.run(assignments, join, on_progress)
        self._group, self._router = group, Router(group)
        self._router.start()

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
        """Answers all requests together and waits; ``on_token`` sees every token as it comes,
        ``on_read`` hears now and then how far long prompts have been read.

        ``chunk``: prompt tokens a step at most. ``digest``: hash the logits. ``reuse`` off computes
        prompts from their start. ``ValueError`` for a request that cannot be run; ``StepError``
        names the node or layer that failed, after which the engine can only be closed, or rejoined.
        """
        if chunk is not None and chunk < 1:
            raise ValueError(f"prompt chunks of {chunk} tokens; it must be at least 1")
        if not requests:
            return []
        call, router = Call(requests), self._router
        ids = router.submit(requests, call.deliver, chunk=chunk, digest=digest, reuse=reuse)
        over: set[int] = set()
        caught: BaseException | None = None

        def hear(event: Event) -> None:
            if isinstance(event, Reading):
                on_read(event.tokens)
            elif isinstance(event, NewTokens):
                for index, token in event.tokens:
                    if on_token(index, token) and index not in over:
                        over.add(index)
                        router.cancel([ids[index]])

        events = iter(call)
        while True:
            try:
                for event in events:
                    if caught is None:
                        hear(event)
                break
            except BaseException as error:  # the caller's, or Ctrl-C: nobody wants the rest
                if caught is not None:
                    raise
                caught, events = error, iter(call)
                router.cancel(ids)
        if caught is not None:
            raise caught
        call.check()
        return [call.results[index] for index in range(len(requests))]

    def submit(
        self,
        requests: Sequence[Request],
        deliver: Deliver,
        *,
        chunk: int | None = None,
        digest: bool = False,
        reuse: bool = True,
    ) -> Cancel:
        """Asks for answers and returns at once; ``deliver`` hears of them in a thread of the
        engine's, and must not wait. What comes back cancels one of them, or all, from any
        thread."""
        router = self._router
        ids = router.submit(requests, deliver, chunk=chunk, digest=digest, reuse=reuse)

        def cancel(index: int | None = None) -> None:
            router.cancel(ids if index is None else [ids[index]])

        return cancel

    def state(self) -> EngineState:
        """What goes on, as of the end of the step at hand."""
        return self._router.ask(0, AskState(), EngineState)

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
                learnt = self._router.ask(0, part, Learnt)
                if learnt.reason:
                    raise ValueError(learnt.reason)
            else:
                self._router.tell(0, part)

    def stream(
        self, request: Request, *, chunk: int | None = None, digest: bool = False,
        reuse: bool = True,
    ) -> Stream:  # fmt: skip
        """One request's tokens as they come, for a thread; see ``generate``."""
        call, router = Call([request]), self._router
        ids = router.submit([request], call.deliver, chunk=chunk, digest=digest, reuse=reuse)
        return Stream(call, lambda: router.cancel(ids))

    def stream_async(
        self, request: Request, *, chunk: int | None = None, digest: bool = False,
        reuse: bool = True,
    ) -> AsyncStream:  # fmt: skip
        """One request's tokens as they come, for a task of the running event loop."""
        from bandweave.routing.async_stream import AsyncStream

        ids, router = range(0), self._router
        stream = AsyncStream(lambda: router.cancel(ids))
        ids = router.submit([request], stream.deliver, chunk=chunk, digest=digest, reuse=reuse)
        return stream

    def cancel(self) -> None:
        """Ends all answers under way, from any thread; they come back as ``"cancelled"``.

        Does nothing where none is, or where the nodes have gone.
        """
        self._router.cancel_all()

    def statistics(self) -> list[NodeStatistics]:
        """What every node has counted since its start."""
        result = []
        for node, name in enumerate(self._group.names):
            counted = self._router.ask(node, AskStatistics(), Statistics)
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
