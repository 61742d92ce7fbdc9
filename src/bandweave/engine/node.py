"""The node: loads its share of a model, joins the mesh, runs steps until its controller ends.

Joins a program, weights and a mesh. Messages from the controller: ``describe`` if it likes,
``load`` (or ``probe``, see ``engine.probe``); then ``generate`` (node 0), ``cancel``,
``statistics``, ``shutdown``. Knows no text and no command line.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.engine.assignment import OWN_CACHE, Assignment
from bandweave.engine.binding import spans_memories
from bandweave.engine.context import NodeContext
from bandweave.engine.drafting import Drafter
from bandweave.engine.drafts import draft_memory, load_draft
from bandweave.engine.embedding import read_embeddings
from bandweave.engine.executor import PAGE_SIZE, StepError
from bandweave.engine.generation import Generator
from bandweave.engine.heartbeat import Heartbeat
from bandweave.engine.joining import join_mesh
from bandweave.engine.loading import keep_weights, load_weights
from bandweave.engine.lowering import lower
from bandweave.engine.machine import (
    allowed_cpus,
    available_memory_bytes,
    numa_nodes,
    peak_rss_bytes,
    usable_cpus,
)
from bandweave.engine.memory import check_memory, node_memory
from bandweave.engine.model_search import find_model
from bandweave.engine.native import ExecutorOptions, NativeExecutor
from bandweave.engine.ngram import NgramDrafter
from bandweave.engine.panel_cache import open_cache
from bandweave.engine.probe.node import serve_probe
from bandweave.engine.request import Request
from bandweave.engine.speculation import Speculation
from bandweave.engine.token_stream import TokenStream
from bandweave.mesh.channel import ChannelClosed
from bandweave.models.registry import build_graph
from bandweave.planning.split import make_split

_PROGRESS_PARTS = 200


def serve(context: NodeContext) -> None:
    """Runs a node to the end of its session; see ``engine.process``."""
    message, _ = context.channel.receive()
    if message.get("type") == "describe":
        context.channel.send(
            {"type": "description", "available_memory_bytes": available_memory_bytes() or 0}
        )
        message, _ = context.channel.receive()
    if message.get("type") == "probe":
        serve_probe(context, message)
        return
    if message.get("type") == "shutdown":
        return
    assignment = Assignment.from_message(message)
    with ExitStack() as stack:
        roots = context.model_roots
        path = find_model(assignment.model, assignment.fingerprint, roots)
        context.log(f"loads {path}")
        folder, draft = stack.enter_context(Folder.open(path)), None
        if assignment.draft and context.node == 0:
            path = find_model(assignment.draft, assignment.draft_fingerprint, roots)
            context.log(f"drafts with {path}")
            draft = stack.enter_context(Folder.open(path))
        node = _Node(context, assignment, folder, draft)
        try:
            node.run()
        except ChannelClosed:
            node.leave()
        except StepError as error:
            node.abort(str(error))
            raise


class _Node:
    def __init__(
        self, context: NodeContext, assignment: Assignment, folder: Folder, draft: Folder | None
    ) -> None:
        self._context, self._assignment, self._folder = context, assignment, folder
        self._channel = context.channel
        cpus, numa = allowed_cpus(), numa_nodes()  # before any thread is pinned
        if assignment.home:
            _keep_to(assignment.home)
        split = make_split(folder.spec, assignment.shares, stages=assignment.stages)
        program = lower(build_graph(folder.spec), split, context.node)
        threads = _threads(assignment.threads, context.threads)
        pages = -(-assignment.context // PAGE_SIZE)
        options = ExecutorOptions(
            num_pages=pages * assignment.streams,
            max_pages=pages,
            max_rows=assignment.max_rows,
            kv_format=assignment.kv_format,
            threads=threads,
            cpus=assignment.cpus,
            spin=assignment.spin and threads <= len(usable_cpus()),
            isa=context.isa or assignment.isa,
            wire=assignment.wire,
        )
        memory = node_memory(program, assignment.weight_format, options)
        if draft is not None:
            memory += draft_memory(
                draft, assignment.weight_format, options, assignment.context, assignment.streams
            )
        if assignment.addresses:  # threads of one process were checked together
            check_memory(context.name, memory, available_memory_bytes())
        self._exchange = join_mesh(
            context,
            assignment.names,
            assignment.addresses,
            stall_seconds=assignment.stall_seconds,
            spin=options.spin,
            emulate=assignment.emulate,
        )
        self._begun = self._computed = 0  # tokens of steps, since the generation began
        own = assignment.cache == OWN_CACHE
        cache = open_cache(context.cache if own else assignment.cache)
        weights = load_weights(
            program,
            folder,
            assignment.weight_format,
            on_progress=self._report_progress,
            threads=threads,
            cache=cache,
            readers=assignment.cpus if spans_memories(assignment.cpus, numa) else (),
        )
        self._executor = NativeExecutor(program, weights, options, self._exchange)
        self._drafter = self._make_drafter(options, draft)
        self._channel.send(
            {
                "type": "loaded",
                "weight_bytes": weights.num_bytes,
                "kv_bytes": memory.kv_bytes,
                "work_bytes": self._executor.work_bytes,
                "threads": threads,
                "isa": options.isa or _native.isa_variants()[0],
                "fetch_ahead_bytes": self._executor.fetch_ahead,
                "peak_rss_bytes": peak_rss_bytes(),
            }
        )
        if cache is not None and weights.fresh:
            # After "loaded": the first answer need not wait for the disk.
            keeping = partial(
                keep_weights,
                weights,
                cache,
                model=assignment.model,
                weight_format=assignment.weight_format,
            )
            threading.Thread(
                target=_unpinned, args=(keeping, cpus), name="cache", daemon=True
            ).start()
        self._generator = Generator(
            self._executor,
            self._embed,
            num_pages=options.num_pages,
            context=assignment.context,
            max_rows=assignment.max_rows,
            vocab_size=folder.spec.vocab_size,
            exp=lambda values: _native.exp(values, options.isa).reshape(-1),
            speculation=None
            if self._drafter is None
            else Speculation(self._drafter, draft_tokens=assignment.draft_tokens),
        )

    # --- start ---

    def _report_progress(self, done: int, total: int) -> None:
        part = total // _PROGRESS_PARTS + 1
        if done == total or done // part != getattr(self, "_reported", -1):
            self._reported = done // part
            self._channel.send({"type": "progress", "done": done, "total": total})

    def _make_drafter(self, options: ExecutorOptions, draft: Folder | None) -> Drafter | None:
        assignment = self._assignment
        if assignment.speculate == "off" or self._context.node != 0:
            return None
        if draft is None:
            return NgramDrafter()
        return load_draft(
            draft,
            partial(read_embeddings, draft),
            weight_format=assignment.weight_format,
            options=options,
            context=assignment.context,
            streams=assignment.streams,
            team_of=self._executor,
        )

    def _embed(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """What a step begins with: counts how far the prompts are read."""
        self._computed = self._begun
        self._begun += len(tokens)
        return read_embeddings(self._folder, tokens)

    # --- work ---

    def run(self) -> None:
        while True:
            if self._context.node != 0 and not self._follow():
                raise StepError(f"{self._assignment.names[0]} has left")
            message, _ = self._channel.receive()
            kind = message.get("type")
            if kind == "shutdown":
                self.leave()
                return
            if kind == "statistics":
                self._send_statistics()
            elif kind == "generate" and self._context.node == 0:
                self._generate(message)
            elif kind != "cancel":  # one that came after its answers had ended
                raise StepError(f"the controller sent {kind!r}, which no node can do")

    def _follow(self) -> bool:
        """Runs node 0's steps until the controller has something to say; False if node 0 left."""
        descriptor = self._channel.fileno()
        while True:
            outcome = self._executor.follow(descriptor)
            if outcome == "woken":
                return True
            if outcome == "left":
                # On a shutdown node 0 may leave before our own message arrives.
                return _readable(descriptor, 2.0)

    def _generate(self, message: dict[str, Any]) -> None:
        number = message["number"]
        try:
            requests = [Request.from_message(request) for request in message["requests"]]
            for request in requests:
                self._generator.check(request)
        except ValueError as error:
            self._channel.send({"type": "refused", "number": number, "reason": str(error)})
            return

        stream = TokenStream(self._channel, number)
        try:
            self._begun = self._computed = 0
            with Heartbeat(self._channel, self._progress, lambda: self._computed):
                results = self._generator.run(
                    requests,
                    on_token=stream.put,
                    cancelled=lambda: self._cancelled(number),
                    chunk=message["chunk"],
                    digest=message["digest"],
                    reuse=message["reuse"],
                )
        except (ValueError, MemoryError) as error:
            # Past the checks it is no mistake of the user's, and the other nodes are in mid-step.
            raise StepError(f"{self._context.name}: {error}") from error
        finally:
            with contextlib.suppress(OSError):  # the main thread meets the same error
                stream.flush()
        answers = [
            {
                "tokens": list(result.tokens),
                "reason": result.reason,
                "logits_digest": result.logits_digest,
                "digests": list(result.digests),
                "timing": vars(result.timing),
            }
            for result in results
        ]
        self._channel.send({"type": "done", "number": number, "results": answers})

    def _progress(self) -> int:
        drafter = self._drafter
        return self._executor.progress + (0 if drafter is None else drafter.progress)

    def _cancelled(self, number: int) -> frozenset[int]:
        """Answers that the controller no longer wants; its other messages end all of them."""
        ended: set[int] = set()
        while self._channel.poll():
            message, _ = self._channel.receive()
            if message.get("type") == "shutdown":
                raise ChannelClosed("the controller has ended the session")
            if message.get("type") == "cancel" and message.get("number") == number:
                ended.update(int(index) for index in message["indices"])
        return frozenset(ended)

    def _send_statistics(self) -> None:
        self._channel.send(
            {
                "type": "statistics",
                "prefill": self._executor.bill(decode=False),
                "decode": self._executor.bill(decode=True),
                "peak_rss_bytes": peak_rss_bytes(),
            }
        )

    # --- end ---

    def leave(self) -> None:
        if self._exchange is not None:
            self._exchange.leave()

    def abort(self, reason: str) -> None:
        if self._exchange is not None:
            self._exchange.abort(reason)


def _threads(asked: int, most: int | None) -> int:
    """How many to compute with: as the controller asks, 0 for as it may be."""
    most = most or asked or len(usable_cpus())
    return min(asked or most, most)


def _unpinned(work: Callable[[], None], cpus: tuple[int, ...]) -> None:
    """Runs in a thread that would share the pinned processor of the one that started it."""
    _keep_to(cpus)
    work()


def _keep_to(cpus: tuple[int, ...]) -> None:
    """This thread, and those that it starts, run on these processors alone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))
