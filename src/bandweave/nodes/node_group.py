"""NodeGroup: the started nodes of one engine, to talk to, and what to say when one of them fails.

Knows the messages "failed", "broken" and "alive"; knows no models and no requests.
"""

from __future__ import annotations

import contextlib
import math
import select
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from bandweave.mesh.channel import ChannelTampered
from bandweave.mesh.printable import printable
from bandweave.messages import (
    Alive,
    Broken,
    Leave,
    M,
    MessageError,
    Question,
    decode,
    decode_one,
    encode,
)
from bandweave.nodes.failure import NodeFailure, NodeMistake, accused, is_stall
from bandweave.nodes.launcher import Launcher
from bandweave.nodes.leaving import Leaving, await_left
from bandweave.nodes.node_handle import LONGEST_REASON, SILENT, NodeHandle

_GRACE_SECONDS = 0.25  # for the cause of a failure to show
_BROKEN_PATIENCE = 0.3
_SECOND_HAND_SECONDS = 2.0
_LOOK_MILLISECONDS = 500  # between two looks at what no message tells
_PAUSED_SECONDS = 2.0  # between two looks: this process itself was stopped


class NodeGroup:
    """``handles`` of all nodes in order, which ``launcher`` started and ``close`` ends.

    After a ``StepError`` it can only be closed, or asked for those that are left.
    """

    def __init__(
        self, launcher: Launcher, handles: Sequence[NodeHandle], *, stall_seconds: float
    ) -> None:
        self._launcher, self._handles = launcher, tuple(handles)
        self._broken: NodeFailure | None = None
        self._asked_at = time.monotonic()
        self._stall_seconds = stall_seconds
        # The nodes notice each other first and know better who it is.
        self._patience = stall_seconds + _SECOND_HAND_SECONDS
        self._heard = [self._asked_at] * len(self._handles)
        self._moved, self._progress = self._asked_at, -1  # of node 0
        self._looked = self._asked_at
        self._awaiting: float | None = None  # since when somebody waits without a pause

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(handle.name for handle in self._handles)

    @property
    def handles(self) -> tuple[NodeHandle, ...]:
        return self._handles

    @property
    def failure(self) -> NodeFailure | None:
        """What ended the generation; None where nothing has."""
        return self._broken

    def silences(self) -> list[float]:
        """Seconds since each node last said anything, while all say something now and then. Any
        thread may look."""
        now = time.monotonic()
        paused = max(0.0, now - self._looked - _PAUSED_SECONDS)  # nobody listens at the moment
        return [max(0.0, now - heard - paused) for heard in self._heard]

    def send(self, node: int, message: dict[str, Any]) -> None:
        """``StepError`` where the node has gone."""
        if self._broken is not None:
            raise self._broken
        self._asked_at = time.monotonic()
        try:
            self._handles[node].channel.send(message)
        except TimeoutError as error:
            self._raise_failure(node, str(error), gone=True)
        except OSError:
            self._raise_failure(node)

    def notify(self, node: int, message: dict[str, Any]) -> None:
        """Sends from any thread; nothing happens where the node has gone."""
        with contextlib.suppress(OSError):
            self._handles[node].channel.send(message)

    def ask(self, node: int, question: Question[M]) -> M:
        """The node's answer, its next message after the question. The others have nothing to say
        meanwhile."""
        self._awaiting = None
        self.send(node, encode(question))
        sender, answer = self.receive(lambda: node)
        if sender != node:
            self.fail(sender, "it spoke when it was not asked")
        return self.decode(node, question.ANSWER, answer)

    def decode(self, node: int, kind: type[M], message: dict[str, Any]) -> M:
        """A node's message. ``StepError`` where it makes no sense."""
        with self._making_sense(node):
            return decode(kind, message)

    def decode_one(self, node: int, kinds: Sequence[type[M]], message: dict[str, Any]) -> M | None:
        """A node's message, if it is of one of these kinds. ``StepError`` where it makes no
        sense."""
        with self._making_sense(node):
            return decode_one(kinds, message)

    @contextlib.contextmanager
    def _making_sense(self, node: int) -> Iterator[None]:
        try:
            yield
        except MessageError as error:
            self.fail(node, f"it sent a message that makes no sense: {error}")

    def fail(self, node: int, reason: str, *, gone: bool = False) -> NoReturn:
        """A node does not do what it must: ``StepError`` with its name, or that of one that died
        and so is the cause. ``gone``: it does not answer."""
        self._raise_failure(node, reason, gone=gone)

    def receive(
        self,
        awaited: Callable[[], int | None] | None = None,
        *,
        watch: Callable[[], None] = lambda: None,
        wake: int | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """The next message of any node, with the node's number.

        ``StepError`` where a node fails or ends. ``awaited`` names the node that somebody waits
        for, which must give signs of life, and of progress, within the bounds; where it names none
        a cable may be out for a while. Without it ``watch``, which is asked now and then, may
        ``fail`` a node. ``NodeMistake`` where what a node was given cannot be used.
        ``InterruptedError`` once the descriptor ``wake`` can be read.
        """
        poll = select.poll()
        for handle in self._handles:
            poll.register(handle.channel.fileno(), select.POLLIN)
        if wake is not None:
            poll.register(wake, select.POLLIN)
        while True:
            for node, handle in enumerate(self._handles):
                if handle.channel.poll():
                    return node, self._take(node, handle)
            self._note_pause()
            watch()
            late = None if awaited is None else awaited()
            if late is None:
                self._awaiting = None
            else:
                self._check(late)
            heard = poll.poll(self._look_milliseconds(late))
            if any(descriptor == wake for descriptor, _ in heard):
                raise InterruptedError
            if not heard and (awaited is None or late is not None):
                for node, handle in enumerate(self._handles):
                    if handle.is_silent(self._asked_at):
                        self._raise_failure(node, SILENT, gone=True)

    def _take(self, node: int, handle: NodeHandle) -> dict[str, Any]:
        """The message that has come from a node."""
        try:
            message = handle.channel.receive()
        except ChannelTampered as error:
            self._raise_failure(node, str(error))
        except OSError:
            self._raise_failure(node)
        now = self._heard[node] = time.monotonic()
        kind = message.get("type")
        if node == 0 and (kind != Alive.TYPE or message.get("progress") != self._progress):
            self._moved = now
            if kind == Alive.TYPE:
                self._progress = message.get("progress")
        if "reason" in message:
            message["reason"] = printable(message["reason"], LONGEST_REASON)
        if kind in ("failed", Broken.TYPE):
            reason = printable(message.get("reason"), LONGEST_REASON)
            if message.get("mistake"):
                sentence = f"{handle.name}: {reason}"
                self._broken = NodeFailure(sentence, culprit=node, gone=True)
                raise NodeMistake(sentence, node=node)
            self._raise_failure(node, reason, gone=kind == "failed")
        return message

    def _note_pause(self) -> None:
        """Where this process was stopped for a while itself, the nodes were not silent then."""
        now = time.monotonic()
        paused = now - self._looked - _PAUSED_SECONDS
        self._looked = now
        if paused > 0:
            self._heard = [heard + paused for heard in self._heard]
            self._moved += paused
            self._awaiting = None

    def _check(self, node: int) -> None:
        """Of a node that somebody waits for: whether it lives, and whether it gets on."""
        now = time.monotonic()
        # Not since the last question: whoever asks again and again would wait for ever.
        since = self._awaiting = self._awaiting or now
        silent = now - max(self._heard[node], since)
        stuck = now - max(self._moved, since)  # all wait for node 0's steps
        name = self._handles[node].name
        if silent > self._stall_seconds:
            self._raise_failure(
                node, f"{name} has given no sign of life for {silent:.1f} s", gone=True
            )
        if stuck > self._patience:
            self._raise_failure(node, f"{name} made no progress for {stuck:.1f} s", gone=True)

    def _look_milliseconds(self, awaited: int | None) -> int:
        """Until the next look: no longer than until the node that somebody waits for would count
        as silent."""
        if awaited is None or self._awaiting is None:
            return _LOOK_MILLISECONDS
        since = max(self._heard[awaited], self._awaiting)
        left = since + self._stall_seconds - time.monotonic()
        return min(_LOOK_MILLISECONDS, math.ceil(1000 * max(0.0, left)) + 1)

    def survivors(self, *, loading: bool = False) -> list[NodeHandle]:
        """The nodes that have left the generation and can take part in another. Whatever they had
        to say of it is dropped; one that failed, or says nothing within the bound for stalls, is
        ended. ``loading``: one that loads may take its time, as long as it says that it does."""
        failed, silences = self._broken, self.silences()
        leaving = list[Leaving]()
        if failed is not None and failed.culprit is not None and failed.gone:
            # First: whoever still waits for it, waits no longer.
            self._launcher.dismiss(self._handles[failed.culprit])
        for node, handle in enumerate(self._handles):
            if failed is not None and failed.culprit == node and failed.gone:
                continue
            try:
                handle.channel.send(encode(Leave()), timeout=self._stall_seconds)
                leaving.append(Leaving(handle, silences[node], self._stall_seconds, loading))
            except OSError:
                self._launcher.dismiss(handle)
        left, hanging = await_left(leaving)
        for handle in hanging:
            self._launcher.dismiss(handle)
        return left

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        if self._broken is not None:  # a node that is stuck does not listen
            self._launcher.stop(patience=_BROKEN_PATIENCE)
        else:
            self._launcher.stop()

    def _raise_failure(self, node: int, reason: str = "", *, gone: bool = False) -> NoReturn:
        """Finds the cause: a node that died explains the complaints of those that miss it.
        ``gone``: the node itself is the cause, and does not answer."""
        seen = time.monotonic()
        culprit = node if gone or not reason else accused(reason, self.names)
        if culprit == node and reason and not gone:
            culprit = None  # trouble of its own, which the request may have caused
        deadline = seen + _GRACE_SECONDS
        witness = self._handles[node if culprit is None else culprit]
        while not gone and not is_stall(reason):
            over = not witness.alive() or time.monotonic() > deadline
            for other, handle in enumerate(self._handles):
                cause = handle.exit_reason() if not handle.alive() else None
                if cause is not None and not cause.startswith("ended"):
                    self._verdict(f"{handle.name} {cause}", other, gone=True, since=seen)
            if over:
                break
            time.sleep(0.01)
        if culprit is None and self._handles[node].channel.hung_up():
            culprit = node
        since = seen
        if culprit is not None:
            closed = self._handles[culprit].channel.hung_up()
            if not closed and (gone or is_stall(reason)):
                since = min(seen, self._heard[culprit])
            gone = gone or closed or is_stall(reason)
        name = self._handles[node].name
        if not reason:
            sentence = f"{name} closed its connection"
        elif accused(reason, self.names) is None:
            sentence = f"{name}: {reason}"
        else:  # what one node says of another names that one already
            sentence = reason
        self._verdict(sentence, culprit, gone=gone, since=since)

    def _verdict(self, sentence: str, culprit: int | None, *, gone: bool, since: float) -> NoReturn:
        noticed = time.monotonic() - since
        if gone and culprit is not None:
            self._handles[culprit].channel.hang_up()  # whoever still sends to it waits no longer
        self._broken = NodeFailure(sentence, culprit=culprit, gone=gone, noticed=noticed)
        raise self._broken
