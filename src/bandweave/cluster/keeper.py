"""Keeper: has every open request computed by whoever can, and the nodes changed where they must be.

One thread decides: it hears of failures at once, and looks once a second for who is silent, who is
back, and who has become slow. Knows an engine and its launcher; tokens are the business of
``carried``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from bandweave.cluster.carried import Carried
from bandweave.cluster.health import NodeHealth, Outage
from bandweave.cluster.lookout import Lookout
from bandweave.cluster.recoveries import Recoveries, Recovery
from bandweave.cluster.roster import Roster
from bandweave.cluster.slowness import Slowness
from bandweave.cluster.standby import StandbySummary, StandbyWatch
from bandweave.cluster.suspects import Suspects
from bandweave.cluster.takeover import Choose, Takeover
from bandweave.cluster.unavailable import Unavailable
from bandweave.engine.engine import Engine
from bandweave.executors.executor import StepError
from bandweave.nodes.failure import NodeFailure
from bandweave.nodes.launcher import Launcher

_LOOK_SECONDS = 1.0
_CLOSED = "the engine is closed"


class Keeper:
    """``recoveries``: what has happened; ``roster``: who could be a node. ``on_anew`` is called
    when the nodes count from 0 again; ``on_lost`` when a node has failed, which took so many
    seconds to notice, before others go on, and ``on_back`` when they do. Any thread may call."""

    def __init__(
        self,
        engine: Engine,
        launcher: Launcher,
        *,
        choose: Choose,
        tell: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._wake = threading.Event()
        self._lock = threading.Lock()  # of what follows
        self._calls: dict[Carried, None] = {}  # in the order in which they came
        self._serving, self._closed, self._why_closed = True, False, _CLOSED
        self._measured: tuple[Recovery, float] | None = (
            None  # whose prefill goes on, and since when
        )
        self._suspects = Suspects()
        self._vocabulary: tuple[Sequence[bytes], Sequence[int]] | None = None
        self._learning = threading.Lock()
        self._slowness = Slowness()
        self.on_anew: Callable[[], None] = lambda: None
        self.on_lost: Callable[[float], None] = lambda noticed: None
        self.on_back: Callable[[], None] = lambda: None
        self.recoveries = Recoveries()
        self.roster = Roster(launcher, self._wake.set)
        self._takeover = Takeover(
            engine, launcher, self.roster, self.recoveries, self._slowness,
            choose=choose, keeper=self, tell=tell,
        )  # fmt: skip
        self._lookout = Lookout(engine, self._takeover, self.roster, self._slowness)
        self._standing = StandbyWatch(engine, self._takeover.division, tell)
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)

    def start(self) -> None:
        self._engine.on_failure = self._wake.set
        self._standing.begin()
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether machines that are ready wait until another one fails."""
        return self._takeover.room == 0

    @property
    def standby(self) -> StandbySummary | None:
        """What nodes hold ready; None where they are to hold nothing."""
        return self._standing.summary

    # --- for whoever asks ---

    @property
    def interrupted(self) -> bool:
        """Whether the nodes are changing, or failing."""
        return not self._serving or self._engine.failure is not None

    @property
    def closed(self) -> bool:
        return self._closed

    def check_closed(self) -> None:
        """``StepError`` once there is nobody any more."""
        if self._closed:
            raise StepError(self._why_closed)

    @property
    def outage(self) -> Outage | None:
        return self._takeover.outage

    @property
    def open(self) -> int:
        """Answers that have not ended."""
        return sum(call.open for call in self.calls())

    def calls(self) -> list[Carried]:
        """What is under way or waits, oldest first."""
        with self._lock:
            return list(self._calls)

    def submit(self, call: Carried) -> None:
        """Errors as ``Engine.submit``; ``Unavailable`` where nobody is kept waiting any more."""
        outage = self.outage
        if outage is not None and outage.over_patience:
            raise Unavailable(outage.reason, outage.retry)
        with self._lock:
            self.check_closed()
            self._calls[call] = None
            direct = self._serving and not self._suspects
        if direct and not self._lookout.silent():
            self._attach(call, raising=True)
        else:
            self._wake.set()

    def learn(self, texts: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        """Errors as ``Engine.learn``."""
        self._vocabulary = texts, end_tokens
        while True:
            generation = self._engine.generation
            try:
                with self._learning:
                    self._engine.learn(texts, end_tokens)
                return
            except StepError:
                self._await_change(generation)

    def forget(self, call: Carried) -> None:
        """Nothing of it is left open."""
        with self._lock:
            self._calls.pop(call, None)
            measured = None
            if not self._calls:
                measured, self._measured = self._measured, None
        if measured is not None:  # nobody waits for its next token any more
            self.recoveries.replace(replace(measured[0], over=True))

    def note_lost(self, call: Carried) -> None:
        """Nobody computes it."""
        self._wake.set()

    def note_token(self, call: Carried) -> None:
        """The first that comes after a recovery ends it."""
        if self._measured is not None:
            with self._lock:
                measured, self._measured = self._measured, None
            if measured is not None:
                recovery, loaded_at = measured
                seconds = time.monotonic() - loaded_at
                self.recoveries.replace(replace(recovery, prefilled_s=seconds, over=True))

    def nodes(self) -> list[NodeHealth]:
        """How those are that are nodes now."""
        return self._lookout.nodes(serving=self._serving)

    def close(self) -> None:
        """Ends all nodes; whoever still waits hears that. May be called more than once."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self.roster.close()
        self._engine.close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(10.0)
            self._engine.close()  # what it has started meanwhile
        self._fail_all(StepError(_CLOSED))

    # --- the thread ---

    def _run(self) -> None:
        while True:
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()
            if self._closed:
                return
            try:
                self._work()
            except Exception as error:
                if self._closed:
                    return
                # A mistake in here: nobody goes on, and nobody waits for ever.
                sentence = f"the nodes could not go on: {error}"
                with self._lock:
                    self._closed, self._why_closed = True, sentence
                self._fail_all(StepError(sentence))
                raise

    def _work(self) -> None:
        failure = self._engine.failure
        if failure is not None:
            self._suspect(failure)
            if isinstance(failure, NodeFailure) and failure.culprit is not None:
                self._lose(failure.noticed)
            self._change(lambda: self._takeover.after(failure))
        elif silent := self._lookout.unanswered(self.calls()):
            self._lose(self._engine.silences()[silent[0]])
            self._change(lambda: self._takeover.without(silent))
        if self._engine.failure is None:
            self._attach_all()
        self._look()

    def _lose(self, noticed: float) -> None:
        """Whoever else can compute what is under way may take it."""
        with self._lock:
            self._serving = False
        self.on_lost(noticed)

    def _change(self, change: Callable[[], Recovery | None]) -> None:
        """Has other nodes go on, or the same ones in other shares."""
        with self._lock:
            self._serving, self._measured = False, None
        recovery = change()
        if recovery is None:
            with self._lock:
                self._serving = True
            return
        self.on_anew()
        self._slowness.forget_counts()
        streams = self.calls()
        with self._lock:
            self._measured = (recovery, time.monotonic()) if streams else None
        if not streams:
            self.recoveries.replace(replace(recovery, over=True))
        # A large vocabulary takes a second, for which only those wait that need it. Who has said
        # nothing yet comes after those, or would take the places of some that have.
        self._attach_all(learnt=False)
        self._learn_again()
        self._attach_all()
        with self._lock:
            self._serving = True
        self._wake.set()  # for those that came meanwhile
        self.on_back()
        self._standing.begin()

    def _learn_again(self) -> None:
        """Node 0 may be another one. Its failure is seen at the next look."""
        if self._vocabulary is not None:
            with self._learning, contextlib.suppress(StepError, ValueError):
                self._engine.learn(*self._vocabulary)

    def _attach_all(self, *, learnt: bool = True) -> None:
        """Has computed whatever nobody computes, oldest first. Before the vocabulary is ``learnt``
        only what has no grammar, and of that only what has begun, where anything has a grammar. Of
        those that may have made the nodes fail one at a time shows first that it does not."""
        if learnt:
            suspect = self._suspects.next_to_prove()
            if suspect is not None:
                self._attach(suspect, proves=True)
            if self._suspects:
                return
        calls = [] if self._suspects else [one for one in self.calls() if not one.attached]
        if not learnt and any(one.has_grammar for one in calls):
            calls = [one for one in calls if one.has_begun and not one.has_grammar]
        for call in calls:
            self._attach(call)

    def _attach(self, call: Carried, *, proves: bool = False, raising: bool = False) -> None:
        ask = call.begin(self._engine.generation, proves=proves)
        if ask is None:
            return
        try:
            cancel = self._engine.submit(ask.requests, ask.deliver, call.options)
        except StepError:
            call.lose(ask.attempt)
        except ValueError as error:
            if raising:
                self.forget(call)
                raise
            call.fail(error)
        else:
            call.begun(ask.attempt, cancel)

    def _suspect(self, failure: StepError) -> None:
        """Where no node is to blame, a request may be: the only one that was computed, or one of
        several, which then show one by one that they can be computed."""
        self._suspects.begin_again()
        if getattr(failure, "culprit", None) is not None:
            return
        tried = [call for call in self.calls() if call.tried == self._engine.generation]
        if len(tried) == 1:
            self._fail(tried[0], StepError(str(failure)))
        else:
            self._suspects.add(tried)

    def _look(self) -> None:
        self.roster.look()
        if self.interrupted:
            return
        self._takeover.send_away()
        calls = self.calls()
        if self._lookout.should_join(calls):
            self._change(self._takeover.join)
        elif self._lookout.should_balance(calls):
            self._change(self._takeover.balance)
        else:
            self._standing.look()

    # --- ends ---

    def _await_change(self, generation: int) -> None:
        """Waits until other nodes serve. ``Unavailable`` where that takes too long."""
        while self._engine.generation == generation or self.interrupted:
            self.check_closed()
            outage = self.outage
            if outage is not None and outage.over_patience:
                raise Unavailable(outage.reason, outage.retry)
            time.sleep(0.05)

    def look_while_waiting(self, seconds: float) -> bool:
        """Waits for news, at most so long; False once this is closed. For the takeover."""
        self._wake.wait(seconds)
        self._wake.clear()
        if not self._closed:
            self.roster.look()
        return not self._closed

    def give_up(self, error: Unavailable) -> None:
        """Whoever waits has waited long enough."""
        self._fail_all(error)

    def _fail_all(self, error: StepError) -> None:
        for call in self.calls():
            self._fail(call, error)

    def _fail(self, call: Carried, error: StepError) -> None:
        with contextlib.suppress(Exception):  # one caller's trouble is not the others'
            call.fail(error)
        self.forget(call)
