"""GroupRouter: has every open request computed by one of several groups of machines, and by another
one where nodes of that fail.

Knows clusters, and what is carried over their lives; knows no nodes and no models.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bandweave.cluster.carried import Ask, Attempt, Carried
from bandweave.cluster.cluster import Cluster
from bandweave.cluster.group_choice import GroupLoad, Prefixes, choose_group, pages_of
from bandweave.cluster.recoveries import Recoveries, Recovery
from bandweave.cluster.unavailable import Unavailable
from bandweave.executors.executor import StepError
from bandweave.generation.request import CallOptions, Request
from bandweave.routing.call import Deliver, Event, Failed

_MOST_MOVES = 4  # whatever is there whenever nodes fail may be why; it stays where it is
_CLOSED = "the engine is closed"


@dataclass(eq=False, kw_only=True)
class _Placed:
    """A call, and where it is computed. ``pages`` of its prompt, which has so many tokens."""

    prompt: int
    pages: Sequence[bytes]
    salt: str
    group: int = -1
    attempt: Attempt | None = None
    carried: Carried | None = None  # there
    moves: int = 0


@dataclass(eq=False, kw_only=True)
class _Move:
    """Streams that left a group; the first token of any of them ends it."""

    recovery: Recovery
    since: float
    calls: set[Carried] = field(default_factory=set)


class GroupRouter:
    """``pages``: of each group's cache. Any thread may call. ``recoveries``: how streams went on at
    another group."""

    def __init__(self, groups: Sequence[Cluster], *, pages: int) -> None:
        self._groups = tuple(groups)
        self._prefixes = [Prefixes(pages) for _ in groups]
        self._lock = threading.Lock()  # of what follows, and of the prefixes
        self._calls: dict[Carried, _Placed] = {}  # in the order in which they came
        self._lost: list[Carried] = []
        self._move: _Move | None = None
        self._closed = False
        self.recoveries = Recoveries()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="groups", daemon=True)
        for number, group in enumerate(self._groups):
            group.watch(self._on_lost(number), self._on_back(number))
        self._thread.start()

    # --- for whoever asks ---

    def submit(
        self, requests: Sequence[Request], deliver: Deliver, options: CallOptions
    ) -> Carried:
        """Requests with one prompt. Errors as ``Cluster.submit``, where no group takes them."""
        call = Carried(
            requests,
            deliver,
            options,
            on_over=self._forget,
            on_lost=self._note_lost,
            on_token=self._note_token,
        )
        first = requests[0]
        pages = pages_of(first.tokens, first.salt)
        placed = _Placed(prompt=len(first.tokens), pages=pages, salt=first.salt)
        with self._lock:
            if self._closed:
                raise StepError(_CLOSED)
            self._calls[call] = placed
        try:
            self._place(call, placed)
        except BaseException:
            self._forget(call)
            raise
        return call

    def calls(self) -> list[Carried]:
        """What is under way, oldest first."""
        with self._lock:
            return list(self._calls)

    def loads(self, pages: Sequence[bytes] = ()) -> list[GroupLoad]:
        """Of each group, for a prompt of these pages."""
        with self._lock:
            placed = [(one.group, call) for call, one in self._calls.items()]
            cached = [prefixes.cached(pages) for prefixes in self._prefixes]
        return [
            GroupLoad(
                serves=group.serves,
                unread=sum(call.unread for own, call in placed if own == number),
                streams=sum(call.open for own, call in placed if own == number),
                cached=cached[number],
            )
            for number, group in enumerate(self._groups)
        ]

    def close(self) -> None:
        """Whoever still waits hears that it is over. May be called more than once."""
        with self._lock:
            self._closed = True
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        for call in self.calls():
            self._fail(call, StepError(_CLOSED))

    # --- where it is computed ---

    def _place(self, call: Carried, placed: _Placed) -> None:
        """Asks the groups, the best first, until one takes it. The errors of the last one where
        none does; ``ValueError`` where it cannot be run."""
        refusal: StepError | None = None
        for group in choose_group(self.loads(placed.pages), placed.prompt):
            if self._groups[group].closed and len(self._groups) > 1:
                continue
            ask = call.begin(group + 1)
            if ask is None:
                return  # it is over, or somebody else has placed it
            with self._lock:
                placed.group, placed.attempt = group, ask.attempt
                self._prefixes[group].note(placed.pages)
            try:
                carried = self._groups[group].carry(
                    ask.requests,
                    partial(self._hear, call, ask, self._groups[group]),
                    call.options,
                )
            except StepError as error:
                refusal = error
                call.refused(ask.attempt)
                continue
            except ValueError:
                call.refused(ask.attempt)
                raise
            with self._lock:
                stale = placed.attempt is not ask.attempt  # it has left the group meanwhile
                placed.carried = None if stale else carried
            if stale:
                carried.drop()
            else:
                call.begun(ask.attempt, carried.cancel)
            return
        raise refusal or StepError("no group of machines is left")

    def _on_lost(self, group: int) -> Callable[[float], None]:
        """Streams of a group that has lost a node go on elsewhere, where anybody else serves."""

        def lost(noticed: float) -> None:
            with self._lock:
                self._prefixes[group].clear()
            if self._others_serve(group):
                self._leave(group, noticed)

        return lost

    def _on_back(self, group: int) -> Callable[[], None]:
        """A group serves, with an empty cache: what waits at others goes on here."""

        def back() -> None:
            with self._lock:
                self._prefixes[group].clear()
            for other, one in enumerate(self._groups):
                if other != group and not one.serves:
                    self._leave(other, 0.0)

        return back

    def _others_serve(self, group: int) -> bool:
        return any(one.serves for number, one in enumerate(self._groups) if number != group)

    def _leave(self, group: int, noticed: float) -> None:
        """Takes away what a group has; who takes it is the router's thread's business."""
        with self._lock:
            leaving = [
                (call, one.attempt, one.carried)
                for call, one in self._calls.items()
                if one.group == group and one.attempt is not None and one.moves < _MOST_MOVES
            ]
            for call, _, _ in leaving:
                self._calls[call].moves += 1
        moved: set[Carried] = set()
        for call, attempt, carried in leaving:
            if attempt is None:
                continue
            if call.lose(attempt):
                moved.add(call)
            if carried is not None:
                carried.drop()
        if moved:
            recovery = Recovery(
                node=f"group {group}",
                cause=f"group {group} has lost a node; its streams go on at others",
                kind="moved",
                noticed_s=noticed,
                nodes_before=len(self._groups[group].nodes),
                nodes_after=len(self._groups[group].nodes),
                streams=sum(call.open for call in moved),
                at=time.time(),
            )
            self.recoveries.begin(recovery)
            with self._lock:
                self._move = _Move(recovery=recovery, since=time.monotonic(), calls=moved)

    # --- what is heard of calls ---

    def _hear(self, call: Carried, ask: Ask, group: Cluster, event: Event) -> None:
        """A group that goes on, and says that a request fails, is right: it would fail at others,
        and them with it."""
        error = event.error if isinstance(event, Failed) else None
        elsewhere = isinstance(error, Unavailable) or group.closed
        if isinstance(error, StepError) and not elsewhere:
            call.fail(error, ask.attempt)
        else:
            ask.deliver(event)

    def _note_lost(self, call: Carried) -> None:
        with self._lock:
            if call in self._calls:
                self._calls[call].attempt = self._calls[call].carried = None
                self._lost.append(call)
        self._wake.set()

    def _note_token(self, call: Carried) -> None:
        move = self._move
        if move is None or call not in move.calls:
            return
        with self._lock:
            if self._move is not move:
                return
            self._move = None
        seconds = time.monotonic() - move.since
        self.recoveries.replace(replace(move.recovery, prefilled_s=seconds, over=True))

    def _forget(self, call: Carried) -> None:
        """What was said is the start of what is asked next, in a conversation."""
        with self._lock:
            placed = self._calls.pop(call, None)
        if placed is not None and placed.group >= 0:
            pages = pages_of(call.history, placed.salt)
            with self._lock:
                self._prefixes[placed.group].note(pages)

    # --- the thread ---

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                lost, self._lost = self._lost, []
                placed = [(call, self._calls[call]) for call in lost if call in self._calls]
            for call, one in placed:
                try:
                    self._place(call, one)
                except (StepError, ValueError) as error:
                    self._fail(call, error)

    def _fail(self, call: Carried, error: Exception) -> None:
        with contextlib.suppress(Exception):  # one caller's trouble is not the others'
            call.fail(error)
        self._forget(call)
