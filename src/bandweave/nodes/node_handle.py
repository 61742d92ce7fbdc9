"""NodeHandle: one started node, as its controller sees it. Knows no kind of node and no models."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from bandweave.mesh.address import Address
from bandweave.mesh.channel import Channel

LONGEST_REASON = 2000  # characters of what a node says of its end
SILENT_SECONDS = 15.0
SILENT = (
    f"its machine has not answered for {SILENT_SECONDS:.0f} s; see whether it runs, and whether "
    "the network between it and this one does"
)
_LOOK_SECONDS = 2.0  # between two looks at whether a node's machine is there


class NodeHandle(ABC):
    """One started node.

    ``name`` is for people (``"node 2 (pid 1234)"``); ``channel`` leads to the node; ``address`` is
    where other nodes reach it, None for threads; ``addresses``: all of them, where it has told
    several. ``host_id`` is the same for all nodes of one host, and empty where a host does not say
    who it is (``mesh.host``). ``aes``: whether its processor has instructions for AES.
    """

    host_id = ""
    aes = True
    addresses: tuple[Address, ...] = ()
    host = ""  # where the controller reaches its machine, ``host:port``; empty for this one

    def __init__(self, *, node: int, name: str, channel: Channel, address: Address | None) -> None:
        self.node, self.name, self.channel, self.address = node, name, channel, address
        channel.peer = name

    @abstractmethod
    def alive(self) -> bool:
        """Whether the node has not ended yet."""

    @abstractmethod
    def exit_reason(self) -> str | None:
        """Why the node ended, in words that follow its name; None while it is alive."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> bool:
        """Whether the node has ended, after at most ``timeout`` seconds."""

    @abstractmethod
    def kill(self) -> None:
        """Ends the node without asking it. Does not wait."""

    def terminate(self) -> None:
        """Ends the node in the gentlest way that needs no cooperation. Does not wait."""
        self.kill()

    def is_silent(self, since: float) -> bool:
        """Whether the node's machine has given no sign of life for so long, and not since the time
        ``since`` (of ``time.monotonic``), that whoever waits for it had better not. A machine that
        is reached gives one every five seconds, whatever the node does."""
        return min(self.channel.silence(), time.monotonic() - since) > SILENT_SECONDS

    def receive(self, timeout: float) -> dict[str, Any]:
        """The node's next message. ``TimeoutError`` where none came within ``timeout`` seconds or
        its machine is silent; ``ChannelError`` where the connection ended."""
        since = time.monotonic()
        while True:
            left = since + timeout - time.monotonic()
            try:
                return self.channel.receive(max(0.0, min(left, _LOOK_SECONDS)))
            except TimeoutError:
                if self.is_silent(since):
                    raise TimeoutError(f"{self.name}: {SILENT}") from None
                if left <= _LOOK_SECONDS:
                    raise TimeoutError(f"{self.name} said nothing for {timeout:.3g} s") from None

    def close(self) -> None:
        """Releases what the handle holds. The node has ended or is given up."""
        self.channel.close()

    def __repr__(self) -> str:
        return f"<{self.name}>"
