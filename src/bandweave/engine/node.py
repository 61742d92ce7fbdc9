"""The node: loads its share of a model, joins the mesh, runs steps until its controller ends.

Messages from the controller: ``describe`` if it likes, ``load`` (or ``probe``, see
``engine.probe``); then ``generate`` (node 0), ``cancel``, ``statistics``, ``shutdown``. Knows no
text and no command line.
"""

from __future__ import annotations

import contextlib
import select
from contextlib import ExitStack
from typing import Any

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.engine.assignment import Assignment
from bandweave.engine.context import NodeContext
from bandweave.engine.executor import StepError
from bandweave.engine.heartbeat import Heartbeat
from bandweave.engine.loaded_node import LoadedNode, load_node
from bandweave.engine.machine import available_memory_bytes, peak_rss_bytes
from bandweave.engine.model_search import find_model
from bandweave.engine.probe.node import serve_probe
from bandweave.engine.request import Request, Result
from bandweave.engine.token_stream import TokenStream
from bandweave.mesh.channel import ChannelClosed


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

        def report(done: int, total: int) -> None:
            context.channel.send({"type": "progress", "done": done, "total": total})

        node = load_node(context, assignment, folder, draft, report)
        session = _Session(context, assignment, node)
        try:
            session.run()
        except ChannelClosed:
            session.leave()
        except StepError as error:
            session.abort(str(error))
            raise


class _Session:
    """What a controller asks of a loaded node, message by message."""

    def __init__(self, context: NodeContext, assignment: Assignment, node: LoadedNode) -> None:
        self._context, self._assignment, self._node = context, assignment, node
        self._channel, self._executor = context.channel, node.executor
        self._channel.send(
            {
                "type": "loaded",
                "weight_bytes": node.weight_bytes,
                "kv_bytes": node.kv_bytes,
                "work_bytes": node.executor.work_bytes,
                "threads": node.options.threads,
                "isa": node.options.isa or _native.isa_variants()[0],
                "fetch_ahead_bytes": node.executor.fetch_ahead,
                "peak_rss_bytes": peak_rss_bytes(),
            }
        )
        if node.keep is not None:
            node.keep()  # after "loaded": the first answer need not wait for the disk

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
                self._node.generator.check(request)
        except ValueError as error:
            self._channel.send({"type": "refused", "number": number, "reason": str(error)})
            return

        stream = TokenStream(self._channel, number)
        try:
            lookup = self._node.lookup
            lookup.start()
            with Heartbeat(self._channel, lambda: self._node.progress, lambda: lookup.computed):
                results = self._node.generator.run(
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
        answers = [_to_message(result) for result in results]
        self._channel.send({"type": "done", "number": number, "results": answers})

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
        if self._node.exchange is not None:
            self._node.exchange.leave()

    def abort(self, reason: str) -> None:
        if self._node.exchange is not None:
            self._node.exchange.abort(reason)


def _to_message(result: Result) -> dict[str, Any]:
    return {
        "tokens": list(result.tokens),
        "reason": result.reason,
        "logits_digest": result.logits_digest,
        "digests": list(result.digests),
        "timing": vars(result.timing),
    }


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))
