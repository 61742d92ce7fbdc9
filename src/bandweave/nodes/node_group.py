"""NodeGroup: the started nodes of one engine, to talk to, and what to say when one of them fails.

Knows the messages "failed" and "alive"; knows no models and no requests.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bandweave.executors.executor import StepError
from bandweave.mesh.printable import printable
from bandweave.messages import Alive, M, Message, MessageError, decode, encode
from bandweave.nodes.handle import LONGEST_REASON, SILENT, Launcher, NodeHandle

_GRACE_SECONDS = 0.5  # for the cause of a failure to show
_BROKEN_PATIENCE = 0.3
_SECOND_HAND_SECONDS = 2.0

OnRead = Callable[[int], None]  # tokens computed so far, of prompts above all


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
        """The node's next message after this one, which must be of a kind; those of the others are
        dropped."""
        self.send(node, encode(message))
        return self.decode(node, kind, self.receive(only=node, of=node)[1])

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
        only: int | None = None,
        *,
        of: int = 0,
        watch: Callable[[], None] | None = None,
        on_read: OnRead = lambda tokens: None,
    ) -> tuple[int, dict[str, Any]]:
        """The next message of any node, or of one. ``StepError`` where a node fails or ends, or
        where node ``of`` gives no sign of life within the bound; ``watch`` is asked in its place
        now and then, and may ``fail``. ``ValueError`` where what a node was given cannot be used.
        """
        patience = self._patience
        deadline = time.monotonic() + patience
        poll = select.poll()
        for handle in self._handles:
            poll.register(handle.channel.fileno(), select.POLLIN)
        while True:
            for node, handle in enumerate(self._handles):
                if not handle.channel.poll():
                    continue
                try:
                    message = handle.channel.receive()
                except OSError:
                    self._raise_failure(node)
                if "reason" in message:
                    message["reason"] = printable(message["reason"], LONGEST_REASON)
                if message.get("type") == "failed":
                    reason = printable(message.get("reason"), LONGEST_REASON)
                    if message.get("mistake"):
                        raise ValueError(f"{handle.name}: {reason}")
                    self._raise_failure(node, reason)
                if message.get("type") == Alive.TYPE:
                    deadline = time.monotonic() + patience
                    on_read(self.decode(node, Alive, message).tokens)
                elif only is None or node == only:
                    return node, message
            if watch is not None:
                watch()
            elif time.monotonic() > deadline:
                reason = f"{self._handles[of].name} made no progress for {patience:.0f} s"
                self._raise_failure(of, reason)
            if not poll.poll(500):
                for node, handle in enumerate(self._handles):
                    if handle.is_silent(self._asked_at):
                        self._raise_failure(node, SILENT)

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
