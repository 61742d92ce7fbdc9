"""NodeLoop: what a node does in a generation: it reads its controller's messages between steps.

Node 0 takes requests and cancellations, runs the generator's steps and tells of tokens and ends;
the other nodes follow its steps. Knows no text and no files.
"""

from __future__ import annotations

import base64
import contextlib
import select
import time
from collections.abc import Callable
from typing import Any

from bandweave import _native
from bandweave.engine.loaded_node import LoadedNode
from bandweave.engine.standing_by import StandingBy
from bandweave.executors.executor import StepError
from bandweave.generation.request import Result
from bandweave.host.machine import peak_rss_bytes
from bandweave.messages import (
    AskStandby,
    AskState,
    AskStatistics,
    Cancel,
    EngineState,
    Finished,
    Join,
    Learnt,
    Leave,
    Left,
    Loaded,
    Refused,
    Standby,
    Statistics,
    Submit,
    Vocabulary,
    decode_one,
    encode,
)
from bandweave.nodes.context import NodeContext
from bandweave.nodes.heartbeat import Heartbeat
from bandweave.routing.token_stream import TokenStream

TO_ANY_NODE = (AskStatistics, AskStandby, Standby)
TO_NODE_0 = (*TO_ANY_NODE, AskState, Cancel, Submit, Vocabulary)

_LOOK_SECONDS = 0.05  # between two looks at the controller's channel while steps follow each other


class NodeLoop:
    """Says "loaded", and ``run`` then serves to the end of the generation."""

    def __init__(
        self,
        context: NodeContext,
        join: Join,
        node: LoadedNode,
        standing: StandingBy,
        stand_by: Callable[[Standby], None],
    ) -> None:
        """``stand_by`` begins what ``standing`` then tells of."""
        self._standing, self._stand_by = standing, stand_by
        self._context, self._node = context, node
        self._first, self._first_name = node.rank == 0, join.names[0]
        self._channel, self._executor = context.channel, node.executor
        self._stream = TokenStream(context.channel)
        self._texts: list[bytes] = []  # of the vocabulary, as far as they have come
        self._end = ""  # the controller's message that ended the generation
        self.generation = join.generation
        loaded = Loaded(
            weight_bytes=node.weights.num_bytes,
            kv_bytes=node.kv_bytes,
            work_bytes=node.executor.work_bytes,
            threads=node.options.threads,
            isa=node.options.isa or _native.isa_variants()[0],
            fetch_ahead_bytes=node.executor.fetch_ahead,
            peak_rss_bytes=peak_rss_bytes(),
            kept_bytes=node.weights.kept_bytes,
            same_file_bytes=node.checks.same_file_bytes,
            manifest_bytes=node.checks.manifest_bytes,
            routes=node.routes,
        )
        self._channel.send(encode(loaded))
        if node.keep is not None:
            node.keep()  # after "loaded": the first answer need not wait for the disk

    def run(self) -> bool:
        """Whether the session goes on after the generation. ``ChannelClosed`` where the controller
        has gone; ``StepError`` where a step fails, or the controller says what this node cannot
        do."""
        generator = self._node.generator
        with Heartbeat(
            self._channel,
            lambda: self._node.progress,
            lambda: generator.reading if self._first and generator.busy else (),
            on_beat=self._stream.flush,  # a long step may follow quick ones
        ):
            self._serve()
        if self._end == Leave.TYPE:
            self._channel.send(encode(Left()))
        return self._end == Leave.TYPE

    def _serve(self) -> None:
        """Until the controller ends the generation."""
        while not self._end:
            if not self._first and not self._follow():
                raise StepError(f"{self._first_name} has left")
            self._handle(self._channel.receive())
            if self._node.generator.busy and not self._end:
                self._generate()
        self.leave()

    def _follow(self) -> bool:
        """Runs node 0's steps until the controller has something to say; False if node 0 left."""
        descriptor = self._channel.fileno()
        looked = time.monotonic()
        while True:
            outcome = self._executor.follow(descriptor)
            if outcome == "woken":
                return True
            # The next step may be there already whenever one ends, and goes first.
            if outcome == "ran" and (now := time.monotonic()) - looked > _LOOK_SECONDS:
                looked = now
                if _readable(descriptor, 0.0):
                    return True
            if outcome == "left":
                # On a shutdown node 0 may leave before our own message arrives.
                return _readable(descriptor, 2.0)

    def _handle(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind in ("shutdown", Leave.TYPE):
            self._end = str(kind)
            return
        match decode_one(TO_NODE_0 if self._first else TO_ANY_NODE, message):
            case AskStatistics():
                self._send_statistics()
            case Standby() as asked:
                self._stand_by(asked)
            case AskStandby():
                self._channel.send(encode(self._standing.state()))
            case AskState():
                self._send_state()
            case Vocabulary() as part:
                self._learn(part)
            case Submit() as asked:
                self._submit(asked)
            case Cancel(ids=ids):
                for id in ids:
                    self._node.generator.cancel(id)
            case None:
                sent = str(kind)[:40]
                raise StepError(f"the controller sent {sent!r}, which this node cannot do")

    def _submit(self, asked: Submit) -> None:
        """All of them, or none where one cannot be run."""
        generator = self._node.generator
        done: list[int] = []
        try:
            for request in asked.requests:
                generator.check(request)
            for id, request in zip(asked.ids, asked.requests, strict=True):
                generator.submit(id, request, asked.options)
                done.append(id)
        except ValueError as error:
            for id in done:  # before one whose grammar is none
                generator.retract(id)
            self._channel.send(encode(Refused(ids=asked.ids, reason=str(error))))

    def _generate(self) -> None:
        """Steps until nothing is left to compute; messages are heard between any two."""
        generator, stream = self._node.generator, self._stream
        try:
            while generator.busy:
                while self._channel.poll():
                    self._handle(self._channel.receive())
                    if self._end:
                        generator.drain()  # or others would still owe logits to this node
                        return
                events = generator.step()
                stream.put(events.tokens, events.logprobs)
                for id, result in events.finished:
                    stream.flush()
                    self._channel.send(encode(_finished(id, result)))
        except (ValueError, MemoryError) as error:
            # Past the checks it is no mistake of the user's, and the other nodes are in mid-step.
            raise StepError(f"{self._context.name}: {error}") from error
        finally:
            with contextlib.suppress(OSError):  # the main thread meets the same error
                stream.flush()

    def _learn(self, part: Vocabulary) -> None:
        try:
            self._texts += [base64.b64decode(text, validate=True) for text in part.texts]
        except ValueError as error:
            raise StepError(f"the controller sent a vocabulary that is none: {error}") from error
        if not part.last:
            return
        texts, self._texts, reason = self._texts, [], ""
        try:
            from bandweave.generation.guidance import Guidance  # an extra

            self._node.generator.set_grammars(Guidance(texts, part.end_tokens).matcher)
        except (ImportError, ValueError) as error:
            reason = f"{self._context.name}: {error}"
        self._channel.send(encode(Learnt(reason=reason)))

    def _send_state(self) -> None:
        state = self._node.generator.state()
        counts = state.counts
        self._channel.send(
            encode(
                EngineState(
                    running=state.running,
                    waiting=state.waiting,
                    pages=state.pages,
                    free_pages=state.free_pages,
                    kept_pages=state.kept_pages,
                    preempted=state.preempted,
                    in_flight=state.in_flight,
                    steps=counts.steps,
                    seconds=counts.seconds,
                    durations=tuple(counts.durations),
                    read=counts.read,
                    written=counts.written,
                    ended=counts.ended,
                )
            )
        )

    def _send_statistics(self) -> None:
        statistics = Statistics(
            prefill=self._executor.bill(decode=False),
            decode=self._executor.bill(decode=True),
            peak_rss_bytes=peak_rss_bytes(),
        )
        self._channel.send(encode(statistics))

    # --- end ---

    def leave(self) -> None:
        """The other nodes hear that this one ends in peace."""
        if self._node.exchange is not None:
            self._node.exchange.leave()

    def abort(self, reason: str) -> None:
        """The other nodes hear why this one ends."""
        if self._node.exchange is not None:
            self._node.exchange.abort(reason)


def _finished(id: int, result: Result) -> Finished:
    return Finished(
        id=id,
        count=len(result.tokens),
        reason=result.reason,
        error=result.error,
        logits_digest=result.logits_digest,
        digests=result.digests,
        prompt_logprobs=result.prompt_logprobs,
        embedding=result.embedding,
        timing=result.timing,
    )


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))
