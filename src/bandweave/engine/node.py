"""The node: loads its share of a model, joins the mesh, runs steps until its controller ends.

Messages from the controller: ``describe`` if it likes, ``load`` (or a probe's, see
``probing``), ``join``; then ``generate`` (node 0), ``cancel``, ``ask_statistics``,
``shutdown``. Knows no text and no command line.
"""

from __future__ import annotations

import contextlib
import select
from contextlib import ExitStack

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.engine.assignment import Assignment
from bandweave.engine.loaded_node import LoadedNode, load_node, prepare_node
from bandweave.engine.model_search import find_model
from bandweave.executors.executor import StepError
from bandweave.generation.request import Result
from bandweave.host.machine import (
    allowed_cpus,
    memory_limits,
    peak_rss_bytes,
    usable_cpus,
)
from bandweave.mesh.channel import ChannelClosed
from bandweave.mesh.host import host_id
from bandweave.messages import (
    AnswerEnd,
    AskStatistics,
    Cancel,
    Describe,
    Description,
    Done,
    Found,
    Generate,
    Join,
    Loaded,
    Refused,
    Statistics,
    decode,
    encode,
)
from bandweave.nodes.context import NodeContext
from bandweave.nodes.heartbeat import Heartbeat, LoadingPulse
from bandweave.nodes.token_stream import TokenStream


def serve(context: NodeContext) -> None:
    """Runs a node to the end of its session; see ``nodes.process``."""
    message = context.channel.receive()
    if message.get("type") == Describe.TYPE:
        context.channel.send(encode(_description(context)))
        message = context.channel.receive()
    if message.get("type") == "shutdown":
        return
    if message.get("type") != Assignment.TYPE:
        # Nodes that run a model start sooner without it.
        from bandweave.probing.node import PROBES, serve_probe

        if message.get("type") in PROBES:
            serve_probe(context, message)
            return
    assignment = decode(Assignment, message)
    with ExitStack() as stack:
        node = _load(context, assignment, stack)
        if node is None:
            return
        session = _Session(context, assignment, node)
        try:
            session.run()
        except ChannelClosed:
            session.leave()
        except StepError as error:
            session.abort(str(error))
            raise


def _description(context: NodeContext) -> Description:
    return Description(
        host_id=host_id(),
        memory=memory_limits(),
        cpus=allowed_cpus(),
        usable_cpus=len(usable_cpus()),
        threads=context.threads or 0,
    )


def _load(context: NodeContext, assignment: Assignment, stack: ExitStack) -> LoadedNode | None:
    """Finds the model, waits for the others to have found theirs, and loads; None where the
    controller has had enough meanwhile."""
    with LoadingPulse(context.channel) as pulse:
        folder, draft = _open(context, assignment, stack)
        prepared = prepare_node(context, assignment, folder, draft)
        fingerprint = folder.layout_fingerprint()
        same_files = assignment.host_id == host_id() != "" and folder.file_keys <= set(
            assignment.own_files
        )
        found = Found(path=str(folder.path), headers=fingerprint.headers, same_files=same_files)
        context.channel.send(encode(found))
        message = context.channel.receive()
        if message.get("type") == "shutdown":
            return None
        decode(Join, message)
        node = load_node(context, assignment, prepared, folder, draft, pulse.update)
    for report in node.checks.messages():
        context.channel.send(encode(report))
    return node


def _open(
    context: NodeContext, assignment: Assignment, stack: ExitStack
) -> tuple[Folder, Folder | None]:
    """The node's own copies of the model and, on node 0, of the draft model."""
    roots = context.model_roots
    path = find_model(assignment.model, assignment.fingerprint, roots, context.log)
    context.log(f"loads {path}")
    folder = stack.enter_context(Folder.open(path))
    if assignment.draft_fingerprint is None or context.node != 0:
        return folder, None
    path = find_model(assignment.draft, assignment.draft_fingerprint, roots, context.log)
    context.log(f"drafts with {path}")
    return folder, stack.enter_context(Folder.open(path))


class _Session:
    """What a controller asks of a loaded node, message by message."""

    def __init__(self, context: NodeContext, assignment: Assignment, node: LoadedNode) -> None:
        self._context, self._assignment, self._node = context, assignment, node
        self._channel, self._executor = context.channel, node.executor
        loaded = Loaded(
            weight_bytes=node.weight_bytes,
            kv_bytes=node.kv_bytes,
            work_bytes=node.executor.work_bytes,
            threads=node.options.threads,
            isa=node.options.isa or _native.isa_variants()[0],
            fetch_ahead_bytes=node.executor.fetch_ahead,
            peak_rss_bytes=peak_rss_bytes(),
            same_file_bytes=node.checks.same_file_bytes,
            manifest_bytes=node.checks.manifest_bytes,
        )
        self._channel.send(encode(loaded))
        if node.keep is not None:
            node.keep()  # after "loaded": the first answer need not wait for the disk

    def run(self) -> None:
        while True:
            if self._context.node != 0 and not self._follow():
                raise StepError(f"{self._assignment.names[0]} has left")
            message = self._channel.receive()
            kind = message.get("type")
            if kind == "shutdown":
                self.leave()
                return
            if kind == AskStatistics.TYPE:
                self._send_statistics()
            elif kind == Generate.TYPE and self._context.node == 0:
                self._generate(decode(Generate, message))
            elif kind != Cancel.TYPE:  # one that came after its answers had ended
                raise StepError(
                    f"the controller sent {str(kind)[:40]!r}, which this node cannot do"
                )

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

    def _generate(self, asked: Generate) -> None:
        try:
            for request in asked.requests:
                self._node.generator.check(request)
        except ValueError as error:
            self._channel.send(encode(Refused(number=asked.number, reason=str(error))))
            return

        stream = TokenStream(self._channel, asked.number)
        try:
            lookup = self._node.lookup
            lookup.start()
            with Heartbeat(
                self._channel,
                lambda: self._node.progress,
                lambda: lookup.computed,
                on_beat=stream.flush,  # a long step may follow quick ones
            ):
                results = self._node.generator.run(
                    asked.requests,
                    on_tokens=stream.put,
                    cancelled=lambda: self._cancelled(asked.number),
                    chunk=asked.chunk,
                    digest=asked.digest,
                    reuse=asked.reuse,
                )
        except (ValueError, MemoryError) as error:
            # Past the checks it is no mistake of the user's, and the other nodes are in mid-step.
            raise StepError(f"{self._context.name}: {error}") from error
        finally:
            with contextlib.suppress(OSError):  # the main thread meets the same error
                stream.flush()
        answers = tuple(_answer_end(result) for result in results)
        self._channel.send(encode(Done(number=asked.number, answers=answers)))

    def _cancelled(self, number: int) -> frozenset[int]:
        """Answers that the controller no longer wants. ``ChannelClosed`` where it has had enough of
        the session."""
        ended: set[int] = set()
        while self._channel.poll():
            message = self._channel.receive()
            kind = message.get("type")
            if kind == "shutdown":
                raise ChannelClosed("the controller has ended the session")
            if kind != Cancel.TYPE:
                raise StepError(f"the controller sent {str(kind)[:40]!r} during a generation")
            cancel = decode(Cancel, message)
            if cancel.number == number:
                ended.update(cancel.indices)
        return frozenset(ended)

    def _send_statistics(self) -> None:
        statistics = Statistics(
            prefill=self._executor.bill(decode=False),
            decode=self._executor.bill(decode=True),
            peak_rss_bytes=peak_rss_bytes(),
        )
        self._channel.send(encode(statistics))

    # --- end ---

    def leave(self) -> None:
        if self._node.exchange is not None:
            self._node.exchange.leave()

    def abort(self, reason: str) -> None:
        if self._node.exchange is not None:
            self._node.exchange.abort(reason)


def _answer_end(result: Result) -> AnswerEnd:
    return AnswerEnd(
        count=len(result.tokens),
        reason=result.reason,
        error=result.error,
        logits_digest=result.logits_digest,
        digests=result.digests,
        timing=result.timing,
    )


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))
