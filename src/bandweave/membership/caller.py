"""Caller: keeps a connection to a head's door, and dials again with growing pauses when it goes.

What is said over it is for others; a caller gives signs of life and expects them. Knows no models.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from bandweave.handshake.handshake import HandshakeError, Unreachable, connect
from bandweave.handshake.hello import NO_NODE, Hello
from bandweave.membership.membership import BEAT_SECONDS, SILENT_SECONDS
from bandweave.membership.messages import MOST_REPORT_BYTES, Beat
from bandweave.mesh.address import Address, format_address
from bandweave.mesh.channel import Channel
from bandweave.messages import Message, MessageError, encode

_DIAL_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LASTING_SECONDS = 30.0  # a connection that stood so long was none to be careful with


def pauses(chance: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds between two attempts: twice as many each time, up to half a minute, and by chance up
    to a quarter less, so that a hundred machines do not come back in one moment."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * (1 - chance() / 4)
        pause = min(2 * pause, _LONGEST_PAUSE)


class Caller:
    """Calls from the time that it is started until it is closed.

    ``first`` is said at once on every connection; ``hear`` gets each message that is no sign of
    life, and raises ``MessageError`` for one that makes no sense; ``change`` hears what stands in
    the way, empty once the connection stands, and whether it is of a kind that waiting cannot mend
    (another secret, another version). All are called in the caller's thread.
    """

    def __init__(
        self,
        head: Address,
        secret: bytes,
        *,
        first: Callable[[], Message],
        hear: Callable[[dict[str, Any]], None] = lambda message: None,
        change: Callable[[str, bool], None] = lambda trouble, lasting: None,
        beat: Callable[[], Message] = Beat,
        identity: str = "",
    ) -> None:
        self._head, self._secret, self._identity = head, secret, identity
        self._first, self._hear, self._change, self._beat = first, hear, change, beat
        self._channel: Channel | None = None
        self._over = threading.Event()
        self.cluster = ""  # what the head called itself last
        self._thread = threading.Thread(target=self._run, name="caller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, message: Message) -> None:
        """From any thread; ``OSError`` where no connection stands."""
        channel = self._channel
        if channel is None:
            raise ConnectionError(f"the head at {format_address(self._head)} is not there")
        channel.send(encode(message), timeout=2.0)

    def close(self, last: Message | None = None) -> None:
        """Ends the connection, after one word more. May be called more than once."""
        self._over.set()
        channel = self._channel
        if channel is not None:
            if last is not None:
                with contextlib.suppress(OSError):
                    channel.send(encode(last), timeout=1.0)
            channel.hang_up()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    # --- in its thread ---

    def _run(self) -> None:
        waits = pauses()
        while not self._over.is_set():
            began = time.monotonic()
            trouble, lasting = "", False
            try:
                self._call()
                trouble = "it closed the connection"
            except Unreachable as error:
                trouble = error.cause
            except (HandshakeError, MessageError) as error:
                trouble, lasting = str(error), True
            except OSError as error:
                trouble = str(error)
            if self._over.is_set():
                return
            self._change(trouble or "it went", lasting)
            if time.monotonic() - began > _LASTING_SECONDS:
                waits = pauses()
            self._over.wait(next(waits))

    def _call(self) -> None:
        """One connection, from dialling to its end."""
        own = Hello(purpose="cluster", node=NO_NODE, session="", identity=self._identity)
        name = f"the head at {format_address(self._head)}"
        made = connect(self._head, self._secret, own, name=name, timeout=_DIAL_SECONDS)
        channel = Channel(
            made.socket, name, max_message_bytes=MOST_REPORT_BYTES + 4096, keys=made.keys
        )
        try:
            self.cluster = made.hello.identity
            channel.send(encode(self._first()), timeout=_DIAL_SECONDS)
            self._channel = channel
            self._change("", False)
            self._listen(channel)
        finally:
            self._channel = None
            channel.close()

    def _listen(self, channel: Channel) -> None:
        heard = beaten = time.monotonic()
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                message = channel.receive(max(0.05, beaten + BEAT_SECONDS - time.monotonic()))
                heard = time.monotonic()
                if message.get("type") != Beat.TYPE:
                    self._hear(message)
            now = time.monotonic()
            if now - beaten >= BEAT_SECONDS:
                channel.offer(encode(self._beat()))
                beaten = now
            if now - heard > SILENT_SECONDS:
                raise ConnectionError(f"it has given no sign of life for {SILENT_SECONDS:.0f} s")
