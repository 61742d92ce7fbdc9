"""Router: brings requests to node 0 and what nodes say to whoever waits for it.

One thread listens to all nodes. Callers are threads and asyncio tasks, any number at a time; each
request has a number of its own. Knows messages; knows no models.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bandweave.executors.executor import StepError
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import CallOptions, Request, Result
from bandweave.messages import (
    Alive,
    Cancel,
    Finished,
    M,
    Message,
    Question,
    Refused,
    Submit,
    Tokens,
    encode,
)
from bandweave.nodes.node_group import NodeGroup
from bandweave.nodes.waiting import take
from bandweave.routing.call import Deliver, Ended, Event, Failed, NewTokens, Reading


@dataclass(eq=False, kw_only=True)
class _Caller:
    """Whoever waits for some requests: where events go, and how far each prompt has been read."""

    deliver: Deliver
    first: int
    read: list[int]


@dataclass(eq=False, kw_only=True)
class _Open:
    """A request under way."""

    caller: _Caller
    request: Request
    tokens: list[int] = field(default_factory=list)  # with what was said elsewhere

    def index(self, id: int) -> int:
        return id - self.caller.first


class Router:
    """Listens from ``start`` to ``close``. After a ``StepError``, of which ``on_failure`` hears
    when everybody else has, it can only be closed."""

    def __init__(self, group: NodeGroup, on_failure: Callable[[], None] = lambda: None) -> None:
        self._group, self._on_failure = group, on_failure
        self._lock = threading.Lock()  # of what follows
        self._open: dict[int, _Open] = {}
        self._next_id = 1
        self._failure: StepError | None = None
        self._asked: int | None = None  # a node that owes an answer, which goes to:
        self._answers: queue.SimpleQueue[dict[str, Any] | StepError] = queue.SimpleQueue()
        self._sending, self._asking = threading.Lock(), threading.Lock()
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="router", daemon=True)

    @property
    def failure(self) -> StepError | None:
        """Why nothing more is heard; None while somebody listens."""
        return self._failure

    def start(self) -> None:
        self._thread.start()

    def submit(self, requests: Sequence[Request], deliver: Deliver, options: CallOptions) -> range:
        """Sends requests that belong together; their numbers. ``deliver`` hears of them in the
        router's thread, and must not wait. ``StepError`` where the nodes have gone."""
        with self._sending:  # who cancels finds either none or some that node 0 has heard of
            with self._lock:
                self._raise_failure()
                ids = range(self._next_id, self._next_id + len(requests))
                self._next_id = ids.stop
                caller = _Caller(deliver=deliver, first=ids.start, read=[0] * len(requests))
                for id, request in zip(ids, requests, strict=True):
                    said = list(request.said)
                    self._open[id] = _Open(caller=caller, request=request, tokens=said)
            stopless = tuple(_without_stops(request) for request in requests)
            asked = Submit(ids=tuple(ids), requests=stopless, options=options)
            try:
                self._group.send(0, encode(asked))
            except BaseException:
                self._close_all(ids)
                raise
            return ids

    def cancel(self, ids: Sequence[int]) -> None:
        """Ends those of the requests that are under way. From any thread; nothing happens where the
        nodes have gone."""
        with self._sending:
            with self._lock:
                ids = [id for id in ids if id in self._open]
            if ids:
                self._group.notify(0, encode(Cancel(ids=tuple(ids))))

    def cancel_all(self) -> None:
        """Ends every request that is under way."""
        with self._lock:
            ids = list(self._open)
        self.cancel(ids)

    def ask(self, node: int, question: Question[M]) -> M:
        """A node's answer. ``StepError`` where a node fails."""
        with self._asking:
            with self._lock:
                self._raise_failure()
                self._asked = node
            self._group.send(node, encode(question))
            answer = take(self._answers)
        if isinstance(answer, StepError):
            raise answer
        return self._group.decode(node, question.ANSWER, answer)

    def tell(self, node: int, message: Message) -> None:
        """Sends what asks for no answer. ``StepError`` where the nodes have gone."""
        with self._lock:
            self._raise_failure()
        self._group.send(node, encode(message))

    def close(self) -> None:
        """Stops listening; nothing that is under way ends. May be called more than once."""
        if self._thread.is_alive():
            os.write(self._waker, b"x")
            self._thread.join()
        if self._waker >= 0:
            os.close(self._wake)
            os.close(self._waker)
            self._wake = self._waker = -1
        self._fail(StepError("the engine is closed"))

    # --- the router's thread ---

    def _listen(self) -> None:
        try:
            while True:
                self._route(*self._group.receive(self._awaited, wake=self._wake))
        except InterruptedError:
            return
        except StepError as error:
            self._fail(error)
        except Exception as error:  # such as a request that a node cannot read
            self._fail(StepError(str(error)))
        self._on_failure()

    def _awaited(self) -> int | None:
        """The node that somebody waits for."""
        return self._asked if self._asked is not None else 0 if self._open else None

    def _route(self, node: int, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if node == self._asked and kind not in _UNASKED_TYPES:
            with self._lock:
                self._asked = None
            self._answers.put(message)
            return
        if node and kind != Alive.TYPE:
            self._group.fail(node, f"it said {str(kind)[:40]!r}, which only node 0 may")
        match self._group.decode_one(node, _UNASKED, message):
            case Alive() as alive:
                if not node:
                    self._alive(alive)
            case Tokens() as new:
                self._new_tokens(new)
            case Finished() as end:
                self._finished(end)
            case Refused() as refused:
                for caller in self._close_all(refused.ids):
                    self._tell(caller, Failed(ValueError(refused.reason)))
            case None:
                self._group.fail(0, f"it said {str(kind)[:40]!r}, which nobody asked")

    def _new_tokens(self, new: Tokens) -> None:
        by_caller: dict[_Caller, list[tuple[int, int]]] = {}
        logprobs: dict[_Caller, list[TokenLogprobs | None]] = {}
        for place, (id, token) in enumerate(zip(new.ids, new.tokens, strict=True)):
            one = self._of(id)
            if len(one.tokens) == len(one.request.said):
                one.caller.read[one.index(id)] = len(one.request.tokens)
            one.tokens.append(token)
            by_caller.setdefault(one.caller, []).append((one.index(id), token))
            if new.logprobs:
                logprobs.setdefault(one.caller, []).append(new.logprobs[place])
        for caller, tokens in by_caller.items():
            own = logprobs.get(caller, [])
            self._tell(caller, NewTokens(tokens, own if any(own) else ()))

    def _finished(self, end: Finished) -> None:
        one = self._of(end.id)
        if end.count != len(one.tokens):
            self._group.fail(0, "tokens of an answer were lost on the way")
        with self._lock:
            del self._open[end.id]
        result = Result(
            tokens=tuple(one.tokens),
            reason=end.reason,
            logits_digest=end.logits_digest,
            digests=end.digests,
            prompt_logprobs=end.prompt_logprobs,
            embedding=end.embedding,
            timing=end.timing,
            error=end.error,
        )
        self._tell(one.caller, Ended(one.index(end.id), result))

    def _alive(self, alive: Alive) -> None:
        callers: dict[_Caller, None] = {}
        for id, tokens in zip(alive.ids, alive.tokens, strict=True):
            one = self._open.get(id)  # may have ended since the pulse began
            if one is not None:
                one.caller.read[one.index(id)] = tokens
                callers[one.caller] = None
        for caller in callers:
            self._tell(caller, Reading(sum(caller.read), tuple(caller.read)))

    def _of(self, id: int) -> _Open:
        one = self._open.get(id)
        if one is None:
            self._group.fail(0, f"it answers request {id}, which is none")
        return one

    def _tell(self, caller: _Caller, event: Event) -> None:
        """One caller's trouble is not the others'."""
        try:
            caller.deliver(event)
        except Exception:  # such as an event loop that was closed
            caller.deliver = _ignore
            ids = range(caller.first, caller.first + len(caller.read))
            threading.Thread(target=self.cancel, args=(ids,), daemon=True).start()

    # --- ends ---

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise StepError(str(self._failure))

    def _close_all(self, ids: Sequence[int]) -> list[_Caller]:
        with self._lock:
            closed = [self._open.pop(id) for id in ids if id in self._open]
        return list({one.caller: None for one in closed})

    def _fail(self, error: StepError) -> None:
        """Everybody hears of it, now and later."""
        with self._lock:
            self._failure = self._failure or error
            waiting, self._asked = self._asked is not None, None
            ids = list(self._open)
        if waiting:
            self._answers.put(error)
        for caller in self._close_all(ids):
            with contextlib.suppress(Exception):
                caller.deliver(Failed(error))


_UNASKED = (Tokens, Alive, Finished, Refused)
_UNASKED_TYPES = tuple(kind.TYPE for kind in _UNASKED)  # a type that came may be unhashable


def _ignore(event: Event) -> None: ...


def _without_stops(request: Request) -> Request:
    """Stop strings are the controller's business: nodes know no text."""
    return replace(request, params=replace(request.params, stop=()))
