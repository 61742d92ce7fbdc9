"""JointCall: events of several calls, told to one caller as if they were one. Any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from bandweave.routing.call import Deliver, Ended, Event, Failed, NewTokens, Reading


class JointCall:
    """``deliver`` is the caller's, who has ``count`` requests; ``on_failed`` is called once, in a
    thread of its own, where one call fails: then nobody hears of the others any more."""

    def __init__(self, deliver: Deliver, count: int, on_failed: Callable[[], None]) -> None:
        self._deliver, self._on_failed = deliver, on_failed
        self._read = [0] * count
        self._failed = False
        self._lock = threading.RLock()

    def part(self, indices: Sequence[int]) -> Deliver:
        """Hears of the call that has these requests of the caller's."""

        def hear(event: Event) -> None:
            with self._lock:
                if not self._failed:
                    self._tell(indices, event)

        return hear

    def _tell(self, indices: Sequence[int], event: Event) -> None:
        if isinstance(event, NewTokens):
            tokens = [(indices[place], token) for place, token in event.tokens]
            self._deliver(NewTokens(tokens, event.logprobs))
        elif isinstance(event, Reading):
            for index, tokens in zip(indices, event.each, strict=True):
                self._read[index] = tokens
            self._deliver(Reading(sum(self._read), tuple(self._read)))
        elif isinstance(event, Ended):
            self._deliver(Ended(indices[event.index], event.result))
        else:
            self._failed = True
            # Elsewhere: the other calls may be telling us something, and wait for us.
            threading.Thread(target=self._on_failed, name="cancelling", daemon=True).start()
            self._deliver(Failed(event.error))
