"""TokenStream: the tokens of answers on their way from node 0 to the controller."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.mesh.channel import Channel
from bandweave.messages import Tokens, encode

#: Seconds that a token may wait for others. Nobody reads faster, and a message costs both ends
#: some hundred microseconds, on processors that compute.
HOLD_SECONDS = 0.02


class TokenStream:
    """Tokens that come slowly go at once, all of a step together; those that come faster wait for
    the next step. Any thread may flush."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._held: list[tuple[int, int]] = []
        self._logprobs: list[TokenLogprobs | None] = []
        self._sent_at = float("-inf")
        self._lock = threading.Lock()

    def put(
        self,
        tokens: Sequence[tuple[int, int]],
        logprobs: Sequence[TokenLogprobs | None] = (),
    ) -> None:
        """The new tokens of a step, as ``(request, token)``."""
        with self._lock:
            if logprobs or self._logprobs:
                missing = len(self._held) - len(self._logprobs)
                self._logprobs += [None] * missing
                self._logprobs += logprobs or [None] * len(tokens)
            self._held += tokens
            if time.monotonic() - self._sent_at >= HOLD_SECONDS:
                self._flush()

    def flush(self) -> None:
        """Sends what waits."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            ids, tokens = zip(*self._held, strict=True)
            logprobs = tuple(self._logprobs)
            self._channel.send(encode(Tokens(ids=ids, tokens=tokens, logprobs=logprobs)))
            self._held, self._logprobs = [], []
            self._sent_at = time.monotonic()
