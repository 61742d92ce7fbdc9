"""An engine without a model: plays given tokens with given delays, for tests of the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import USUAL, CallOptions, Request, Result, Timing
from bandweave.messages import EngineState
from bandweave.routing.call import Cancel, Deliver, Ended, Failed, NewTokens, Reading


@dataclass(kw_only=True)
class Script:
    """One answer: its ``tokens``; seconds before the first (``reading``, in which it tells of so
    many ``reads``) and before each further one; how it ends where the tokens do not end it, and the
    ``failure`` of the engine behind them."""

    tokens: Sequence[int]
    reading: float = 0.0
    reads: Sequence[int] = ()
    delay: float = 0.0
    reason: str = ""
    error: str = ""
    logprobs: Callable[[int, Request], TokenLogprobs] | None = None
    failure: Exception | None = None
    reused: int = 0
    together: bool = False  # all tokens come in one event


@dataclass(kw_only=True)
class ScriptedEngine:
    """A ``TokenEngine``: ``play`` says what each request is answered. Keeps the requests that came,
    and how many of them run or were cancelled."""

    play: Callable[[Request], Script]
    context: int = 4096
    requests: list[Request] = field(default_factory=list)
    cancelled: int = 0
    running: int = 0
    learnt: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(
        self, requests: Sequence[Request], deliver: Deliver, options: CallOptions = USUAL
    ) -> Cancel:
        ends = [threading.Event() for _ in requests]
        for index, request in enumerate(requests):
            with self._lock:
                self.requests.append(request)
            script = self.play(request)
            with self._lock:
                self.running += 1
            arguments = (index, request, script, deliver, ends[index])
            threading.Thread(target=self._run, args=arguments, daemon=True).start()

        def cancel(index: int | None = None) -> None:
            for place, end in enumerate(ends):
                if index in (None, place):
                    end.set()

        return cancel

    def _run(
        self, index: int, request: Request, script: Script, deliver: Deliver, end: threading.Event
    ) -> None:
        try:
            self._play(index, request, script, deliver, end)
        except RuntimeError:
            pass  # the loop that listened is closed
        finally:
            with self._lock:
                self.running -= 1

    def _play(
        self, index: int, request: Request, script: Script, deliver: Deliver, end: threading.Event
    ) -> None:
        begun = time.monotonic()
        for read in script.reads:
            deliver(Reading(read, (read,)))
        said: list[int] = []
        reason = ""
        end.wait(script.reading)
        limit = self.context - len(request.tokens)
        limit = min(limit, request.params.max_tokens or limit)
        held: list[tuple[int, int]] = []
        for token in script.tokens:
            if script.delay:
                end.wait(script.delay)
            if end.is_set() or reason:
                break
            said.append(token)
            logprobs = [script.logprobs(token, request)] if script.logprobs else ()
            held.append((index, token))
            if not script.together:
                deliver(NewTokens(held, logprobs))
                held = []
            if token in request.end_tokens:
                reason = "stop"
            elif len(said) >= limit:
                reason = "length"
        if held:
            deliver(NewTokens(held))
        if script.failure is not None:
            deliver(Failed(script.failure))
            return
        if end.is_set() and not reason:
            with self._lock:
                self.cancelled += 1
            reason = "cancelled"
        timing = Timing(
            prefill=script.reading, decode=time.monotonic() - begun, reused_tokens=script.reused,
            prompt_tokens=len(request.tokens), decode_tokens=max(0, len(said) - 1),
        )  # fmt: skip
        result = Result(
            tokens=tuple(said), reason=reason or script.reason or "length", logits_digest="",
            timing=timing, error=script.error,
            embedding=(3.0, 4.0) if request.embeds else (),
        )  # fmt: skip
        deliver(Ended(index, result))

    def state(self) -> EngineState:
        return EngineState(
            running=self.running, waiting=0, pages=100, free_pages=90, kept_pages=5, preempted=0,
            steps=1, seconds=0.1, durations=(0,) * 12, read=10, written=10, ended=0,
        )  # fmt: skip

    def learn(self, texts: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        self.learnt += 1
