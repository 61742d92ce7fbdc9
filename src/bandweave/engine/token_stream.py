"""TokenStream: the tokens of answers on their way from node 0 to the controller."""

from __future__ import annotations

import time

from bandweave.engine.messages import Tokens, encode
from bandweave.mesh.channel import Channel

#: Seconds that a token may wait for others. Nobody reads faster, and a message costs both ends
#: some hundred microseconds, on processors that compute.
HOLD_SECONDS = 0.02


class TokenStream:
    """Tokens that come slowly go at once, those that come faster go together."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel, self._number = channel, number
        self._held: list[tuple[int, int]] = []
        self._sent_at = float("-inf")

    def put(self, index: int, token: int) -> None:
        """The next token of answer ``index``."""
        self._held.append((index, token))
        if time.monotonic() - self._sent_at >= HOLD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sends what waits."""
        if self._held:
            self._channel.send(encode(Tokens(number=self._number, tokens=tuple(self._held))))
            self._held = []
            self._sent_at = time.monotonic()
