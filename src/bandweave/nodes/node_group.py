"""NodeGroup: the started nodes of one engine, to talk to, and what to say when one of them fails.

Knows the messages "failed" and "broken"; knows no models and no requests.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bandweave.executors.executor import StepError
from bandweave.mesh.channel import ChannelTampered
from bandweave.mesh.printable import printable
from bandweave.messages import Broken, Leave, Left, M, Message, MessageError, decode, encode
from bandweave.nodes.launcher import Launcher
from bandweave.nodes.node_handle import LONGEST_REASON, SILENT, NodeHandle

_GRACE_SECONDS = 0.5  # for the cause of a failure to show
_BROKEN_PATIENCE = 0.3
_SECOND_HAND_SECONDS = 2.0
_LOOK_MILLISECONDS = 500  # between two looks at what no message tells


class NodeGroup:
    """``handles`` of all nodes in order, which ``launcher`` started and ``close`` ends.

    After a ``StepError`` it can only be closed.
    """

    def __init__(
        self, launcher: Launcher, handles: Sequence[NodeHandle], *, stall_seconds: float
    ) -> None:
        self._launcher, self._handles = launcher, tuple(handles)
        self._broken = ""
        self._asked_at = time.monotonic()
        # The nodes notice each other first and know better who it is.
        self._patience = stall_seconds + _SECOND_HAND_SECONDS

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(handle.name for handle in self._handles)

    def send(self, node: int, message: dict[str, Any]) -> None:
        """``StepError`` where the node has gone."""
        if self._broken:
            raise StepError(self._broken)
        self._asked_at = time.monotonic()
        try:
            self._handles[node].channel.send(message)
        except TimeoutError as error:
            self._raise_failure(node, str(error))
        except OSError:
            self._raise_failure(node)

    def notify(self, node: int, message: dict[str, Any]) -> None:
        """Sends from any thread; nothing happens where the node has gone."""
        with contextlib.suppress(OSError):
            self._handles[node].channel.send(message)

    def ask(self, node: int, message: Message, kind: type[M]) -> M:
        """The node's next message after this one, which must be of a kind. The others have nothing
        to say meanwhile."""
        self.send(node, encode(message))
        sender, answer = self.receive(lambda: node)
        if sender != node:
            self.fail(sender, "it spoke when it was not asked")
        return self.decode(node, kind, answer)

    def decode(self, node: int, kind: type[M], message: dict[str, Any]) -> M:
        """A node's message. ``StepError`` where it makes no sense."""
        try:
            return decode(kind, message)
        except MessageError as error:
            self.fail(node, f"it sent a message that makes no sense: {error}")

    def fail(self, node: int, reason: str) -> NoReturn:
        """A node does not do what it must: ``StepError`` with its name, or that of one that died
        and so is the cause."""
        self._raise_failure(node, reason)

    def receive(
        self,
        awaited: Callable[[], int | None] | None = None,
        *,
        watch: Callable[[], None] = lambda: None,
        wake: int | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """The next message of any node, with the node's number.

        ``StepError`` where a node fails or ends. ``awaited`` names the node that somebody waits
        for, which must say something within the bound; where it names none a cable may be out for a
        while. Without it ``watch``, which is asked now and then, may ``fail`` a node.
        ``ValueError`` where what a node was given cannot be used. ``InterruptedError`` once the
        descriptor ``wake`` can be read.
        """
        began = time.monotonic()
        poll = select.poll()
        for handle in self._handles:
            poll.register(handle.channel.fileno(), select.POLLIN)
        if wake is not None:
            poll.register(wake, select.POLLIN)
        while True:
            for node, handle in enumerate(self._handles):
                if not handle.channel.poll():
                    continue
                try:
                    message = handle.channel.receive()
                except ChannelTampered as error:
                    self._raise_failure(node, str(error))
                except OSError:
                    self._raise_failure(node)
                if "reason" in message:
                    message["reason"] = printable(message["reason"], LONGEST_REASON)
                if message.get("type") in ("failed", Broken.TYPE):
                    reason = printable(message.get("reason"), LONGEST_REASON)
                    if message.get("mistake"):
                        raise ValueError(f"{handle.name}: {reason}")
                    self._raise_failure(node, reason)
                return node, message
            watch()
            late = None if awaited is None else awaited()
            if late is not None:
                waited = time.monotonic() - max(began, self._asked_at)
                if waited > self._patience:
                    reason = f"made no progress for {self._patience:.0f} s"
                    self._raise_failure(late, f"{self._handles[late].name} {reason}")
            heard = poll.poll(_LOOK_MILLISECONDS)
            if any(descriptor == wake for descriptor, _ in heard):
                raise InterruptedError
            if not heard and (awaited is None or late is not None):
                for node, handle in enumerate(self._handles):
                    if handle.is_silent(self._asked_at):
                        self._raise_failure(node, SILENT)

    def survivors(self, timeout: float) -> list[NodeHandle]:
        """The nodes that have left the generation and can take part in another. Whatever they had
        to say of it is dropped; one that does not answer within ``timeout`` seconds is ended."""
        deadline = time.monotonic() + timeout
        left = []
        for handle in self._handles:
            try:
                handle.channel.send(encode(Leave()), timeout=timeout)
                while handle.receive(max(0.0, deadline - time.monotonic()))["type"] != Left.TYPE:
                    pass
                left.append(handle)
            except (OSError, KeyError):
                handle.kill()
        return left

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        if self._broken:  # a node that is stuck does not listen
            self._launcher.stop(patience=_BROKEN_PATIENCE)
        else:
            self._launcher.stop()

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
