"""The rules of failover: whom to blame, whom to take in, who is slow, what is carried."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bandweave.cluster.carried import Ask, Carried
from bandweave.cluster.counts import Counts
from bandweave.cluster.health import Outage
from bandweave.cluster.roster import Roster
from bandweave.cluster.seats import Seats
from bandweave.cluster.shares import divide, gain
from bandweave.cluster.slowness import Slowness
from bandweave.cluster.suspects import Suspects
from bandweave.cluster.taking_in import is_worth
from bandweave.cluster.unavailable import Unavailable
from bandweave.engine.engine import NodeStatistics
from bandweave.executors.executor import StepError
from bandweave.generation.request import CallOptions, Request, Result, Timing
from bandweave.generation.sampling import SamplingParams
from bandweave.messages import EngineState
from bandweave.nodes.failure import accused, is_stall
from bandweave.nodes.launcher import Candidate, Launcher
from bandweave.nodes.node_handle import NodeHandle
from bandweave.routing.call import Ended, Event, Failed, NewTokens, Reading
from bandweave.serving.errors import ApiError
from bandweave.serving.http.failures import api_error
from bandweave.serving.status.service import Service

NAMES = ("node 0 (pid 11)", "node 1 (pid 112)", "node 2 (pid 12)")
REQUEST = Request(tokens=(1, 2, 3), params=SamplingParams(max_tokens=9))


def test_complaints_name_the_node_at_their_beginning() -> None:
    assert accused("node 2 (pid 12) closed its connection to node 0 (pid 11)", NAMES) == 2
    assert accused("the link from node 1 (pid 112) delivers damaged data to node 2 (pid 12)",
                   NAMES) == 1  # fmt: skip
    assert accused("layer 3: a sum is not finite", NAMES) is None
    assert is_stall("node 1 (pid 112) made no progress for 5.0 s")
    assert not is_stall("node 1 (pid 112) closed its connection to node 0 (pid 11)")


def test_a_machine_is_taken_in_when_nobody_would_wait_long_for_it() -> None:
    assert is_worth(pause=100, gain=1.0, waited=0, idle=True)
    assert is_worth(pause=0.9, gain=1.0, waited=0, idle=False)
    assert not is_worth(pause=3, gain=1.2, waited=1, idle=False)
    assert is_worth(pause=9, gain=2.0, waited=0, idle=False)
    assert is_worth(pause=3, gain=1.0, waited=31, idle=False)


def test_shares_stay_in_proportion_and_slow_nodes_get_less() -> None:
    wanted = {0: Fraction(3), 1: Fraction(2), 2: Fraction(1)}
    assert divide([0, 2], wanted, {}) == (3, 1)
    assert divide([0, 7], wanted, {}) == (3, 3)  # as the mean of those that are known
    assert divide([7, 8], wanted, {}) == (2, 2)
    assert divide([0, 1], wanted, {0: 3.0}) == (Fraction(63, 64), 2)
    new = divide([0, 1, 2], wanted, {0: 2.0})
    assert new == (Fraction(3, 2), 2, 1)
    assert gain([0, 1, 2], (Fraction(3), Fraction(2), Fraction(1)), new, wanted, {0: 2.0}) == 1.5
    assert gain([0, 1], (Fraction(3), Fraction(2)), (Fraction(3), Fraction(2)), wanted, {}) == 1.0


def _account(name: str, steps: int, seconds: float) -> NodeStatistics:
    decode = {"steps": float(steps), "weight_bytes": 1e6 * steps, "weights": seconds}
    return NodeStatistics(name=name, prefill={}, decode=decode, peak_rss_bytes=0)


def test_who_takes_longer_than_it_did_is_slow_and_who_always_did_is_not() -> None:
    slowness, steps = Slowness(), 0
    spent = {"a": 0.0, "b": 0.0}

    def work(looks: int, a: float, b: float) -> list[float]:
        nonlocal steps
        for _ in range(looks):
            steps += 20
            spent["a"] += a
            spent["b"] += b
            slowness.look([_account(name, steps, seconds) for name, seconds in spent.items()])
        return slowness.slowed(["a", "b"])

    assert work(5, 1.0, 4.0) == [1.0, 1.0]
    assert work(2, 1.0, 12.0) == [1.0, 1.0]  # not yet
    assert work(1, 1.0, 12.0) == [1.0, pytest.approx(3.0)]
    assert work(3, 3.0, 12.0) == [1.0, 1.0]  # larger steps: all take longer
    assert work(3, 1.0, 4.0) == [1.0, 1.0]
    slowness.forget_counts()
    steps, spent = 0, {"a": 0.0, "b": 0.0}
    assert work(4, 2.0, 4.0) == [pytest.approx(2.0), 1.0]
    assert slowness.slowed(["a", "nobody"])[1] == 1.0


def _state(**counts: Any) -> EngineState:
    zero = dict(running=0, waiting=0, pages=9, free_pages=4, kept_pages=1, preempted=0, steps=0,
                seconds=0.0, durations=(0, 0), read=0, written=0, ended=0)  # fmt: skip
    return EngineState(**{**zero, **counts})


def test_counts_go_on() -> None:
    counts = Counts()
    assert counts.waiting(3) is None
    counts.note(_state(steps=5, durations=(2, 3), ended=1))
    counts.carry()
    waiting = counts.waiting(2)
    assert waiting is not None and (waiting.steps, waiting.waiting, waiting.running) == (5, 2, 0)
    now = counts.note(_state(steps=1, durations=(1, 0), running=2))
    assert (now.steps, now.durations, now.running, now.ended) == (6, (3, 3), 2, 1)
    counts.carry()
    counts.carry()
    assert counts.note(_state()).steps == 6


class _Handle(NodeHandle):
    def __init__(self, node: int) -> None:
        self.node, self.name, self.ended = node, f"node {node}", False
        self.channel = cast(Any, SimpleNamespace(hung_up=lambda: self.ended))

    def alive(self) -> bool:
        return not self.ended

    def exit_reason(self) -> str | None:
        return None

    def wait(self, timeout: float | None = None) -> bool:
        return True

    def kill(self) -> None:
        self.ended = True


class _Launcher(Launcher):
    """Machines that can be had, or refuse."""

    def __init__(self) -> None:
        self.there, self.admitted = {3, 4}, list[int]()
        self.refusing = {4}

    def _launch(self, num_nodes: int) -> None:
        raise NotImplementedError

    def candidates(self) -> Sequence[Candidate]:
        return [Candidate(node=node, name=f"node {node}") for node in sorted(self.there)]

    def admit(self, candidate: Candidate, timeout: float | None = None) -> NodeHandle:
        self.admitted.append(candidate.node)
        if candidate.node in self.refusing:
            raise ConnectionError("it is busy")
        self.there.discard(candidate.node)
        return _Handle(candidate.node)

    def dismiss(self, handle: NodeHandle) -> None:
        handle.kill()
        self.there.add(handle.node)


def test_whoever_fails_again_and_again_is_tried_ever_more_seldom() -> None:
    now, ready = 100.0, threading.Event()
    launcher = _Launcher()
    roster = Roster(launcher, ready.set, clock=lambda: now)

    def look(seconds: float) -> list[int]:
        nonlocal now
        now += seconds
        ready.clear()
        before = len(launcher.admitted)
        roster.look()
        for thread in threading.enumerate():
            if thread.name == "admission":
                thread.join(5)
        return launcher.admitted[before:]

    assert sorted(look(0)) == [3, 4] and ready.is_set()
    assert [handle.node for handle in roster.ready()] == [3]
    assert look(0.5) == [] and look(1.1) == [4]  # who refuses is asked now and then
    assert {one.node: one.ready for one in roster.missing()} == {3: True, 4: False}
    launcher.refusing.clear()
    launcher.there.discard(4)
    (handle,) = roster.take()
    assert not roster.ready() and not roster.fails_again(3)
    pauses = []
    for _ in range(4):
        roster.note_failure(3, "ended")
        assert roster.fails_again(3)
        launcher.dismiss(handle)
        seconds = 0.0
        while 3 not in look(0.25):
            seconds += 0.25
        pauses.append(seconds)
        (handle,) = roster.take()
    assert pauses[0] == 0 and all(
        b >= 1.8 * a for a, b in zip(pauses[1:], pauses[2:], strict=False)
    )
    now += 100  # it has served well for a while
    roster.note_failure(3, "ended")
    launcher.dismiss(handle)
    assert 3 in look(0.1)
    launcher.there.clear()
    (ready_one,) = roster.ready()
    ready_one.kill()  # before anybody needed it
    assert not roster.ready() and 3 in launcher.there


class _Far(_Launcher):
    """Machines on a cable over which what is said comes back as ``echo`` makes it."""

    local = False

    def __init__(self, echo: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__()
        self.there, self._echo = {3}, echo

    def admit(self, candidate: Candidate, timeout: float | None = None) -> NodeHandle:
        handle, said = super().admit(candidate, timeout), list[dict[str, Any]]()
        handle.channel = cast(Any, SimpleNamespace(
            hung_up=lambda: not handle.alive(), send=lambda message, timeout: said.append(message),
            receive=lambda timeout: self._echo(said[-1]),
        ))  # fmt: skip
        return handle


def _too_late(message: dict[str, Any]) -> dict[str, Any]:
    raise TimeoutError("it did not answer within 3 s")


@pytest.mark.parametrize(
    ("echo", "reason"),
    [(lambda message: message, ""), (_too_late, "see to the network"),
     (lambda message: {**message, "text": "x"}, "did not say what"),
     (lambda message: {"type": "failed"}, "came where 'echo' was due")],
    ids=["sound", "trickles", "others", "failed"],
)  # fmt: skip
def test_a_machine_whose_bytes_trickle_is_not_taken_in(
    echo: Callable[[dict[str, Any]], dict[str, Any]], reason: str
) -> None:
    launcher, ready = _Far(echo), threading.Event()
    roster = Roster(launcher, ready.set)
    roster.look()
    for thread in threading.enumerate():
        if thread.name == "admission":
            thread.join(5)
    (one,) = roster.missing()
    assert (one.ready, bool(roster.ready())) == (not reason, not reason)
    assert reason in one.reason and (3 in launcher.there) == bool(reason)


class _Told:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.over = self.lost = 0

    def call(self, requests: Sequence[Request], *, digest: bool = False) -> Carried:
        def on_over(call: Carried) -> None:
            self.over += 1

        def on_lost(call: Carried) -> None:
            self.lost += 1

        return Carried(
            requests, self.events.append, CallOptions(digest=digest), on_over=on_over,
            on_lost=on_lost, on_token=lambda call: None,
        )  # fmt: skip

    def take(self) -> list[Event]:
        events, self.events[:] = list(self.events), []
        return events


def _begin(call: Carried, generation: int, *, proves: bool = False) -> Ask:
    ask = call.begin(generation, proves=proves)
    assert ask is not None
    return ask


def _result(tokens: Sequence[int], reason: str = "stop") -> Result:
    return Result(tokens=tuple(tokens), reason=reason, logits_digest="", timing=Timing())


def test_what_was_said_is_not_told_again_and_what_has_ended_not_asked_again() -> None:
    told = _Told()
    call = told.call([REQUEST, replace(REQUEST, choice=1), replace(REQUEST, choice=2)])
    first = _begin(call, 1)
    assert call.begin(1) is None  # somebody computes it
    first.deliver(Reading(6, (3, 3, 0)))
    first.deliver(NewTokens([(0, 5), (1, 6), (0, 7)]))
    first.deliver(Ended(1, _result([6])))
    assert len(told.take()) == 3
    first.deliver(Failed(StepError("node 1 has gone")))
    assert (told.take(), told.lost, call.attached) == ([], 1, False)
    first.deliver(NewTokens([(0, 9)]))  # too late
    second = _begin(call, 2)
    assert [one.said for one in second.requests] == [(5, 7), ()]
    assert [one.choice for one in second.requests] == [0, 2]
    second.deliver(Reading(3, (2, 1)))
    second.deliver(NewTokens([(1, 8), (0, 4)]))
    second.deliver(Ended(0, _result([5, 7, 4])))
    second.deliver(Ended(1, _result([8])))
    reading, tokens, one, other = told.take()
    assert reading == Reading(7, (3, 3, 1))
    assert tokens == NewTokens([(2, 8), (0, 4)])
    assert (cast(Ended, one).index, cast(Ended, other).index) == (0, 2)
    assert cast(Ended, one).result.tokens == (5, 7, 4)
    assert cast(Ended, one).result.timing.decode_tokens == 2
    assert call.over and told.over == 1 and call.begin(3) is None


def test_who_cancels_while_nobody_computes_hears_of_it_at_once() -> None:
    told = _Told()
    call = told.call([REQUEST, replace(REQUEST, choice=1)])
    first = _begin(call, 1)
    first.deliver(NewTokens([(0, 5)]))
    call.lose(first.attempt)
    told.take()
    call.cancel(0)
    (ended,) = told.take()
    assert cast(Ended, ended).result.reason == "cancelled"
    assert cast(Ended, ended).result.tokens == (5,)
    second, cancelled = _begin(call, 2), []
    assert len(second.requests) == 1
    call.cancel()  # before the engine has been asked
    call.begun(second.attempt, lambda index=None: cancelled.append(index))
    assert cancelled == [0]
    call.cancel()
    assert cancelled == [0]


def test_newcomers_stand_where_nobody_is_before_they_stand_behind_all() -> None:
    def handle(number: int) -> NodeHandle:
        return cast(NodeHandle, SimpleNamespace(node=number))

    seats = Seats([0, 1, 2], [Fraction(2), Fraction(1), Fraction(1)])
    seats.seat([handle(5), handle(1)], [handle(2)])
    assert seats.of(handle(5)) == 0  # the first that is free, with its share
    assert seats.of(handle(1)) == 1  # its own
    seats.seat([handle(0), handle(9)], [handle(1), handle(2), handle(5)])
    assert (seats.of(handle(0)), seats.of(handle(9))) == (3, 9)
    assert seats.wanted[0] == 2 and seats.of(handle(7)) == 7


def test_suspects_prove_themselves_one_by_one_and_again_where_the_nodes_fail() -> None:
    told, suspects = _Told(), Suspects()
    first, second, third = (told.call([REQUEST]) for _ in range(3))
    suspects.add([first, second])
    assert suspects.next_to_prove() is first
    _begin(first, 1, proves=True)
    assert suspects.next_to_prove() is None and len(suspects) == 2  # it is computed alone
    first.lose(first._attempt)  # type: ignore[arg-type]
    suspects.begin_again()
    suspects.add([third, first])  # with another one that was computed
    assert suspects.next_to_prove() is third
    third.fail(StepError("it was that one"))
    assert suspects.next_to_prove() is first
    ask = _begin(first, 2, proves=True)
    ask.deliver(Ended(0, _result([5], "length")))  # its next token could be computed
    assert suspects.next_to_prove() is second and not first.over
    second.fail(StepError("nobody wants it"))
    assert suspects.next_to_prove() is None and not suspects


def test_digests_of_what_was_said_are_made_before_an_answer_that_is_cancelled_ends() -> None:
    told = _Told()
    call = told.call([REQUEST, replace(REQUEST, choice=1)], digest=True)
    first = _begin(call, 1)
    first.deliver(NewTokens([(0, 5)]))
    call.lose(first.attempt)
    told.take()
    call.cancel()
    (ended,) = told.take()  # nothing was said of the other
    assert cast(Ended, ended).index == 1
    assert cast(Ended, ended).result.logits_digest == hashlib.sha256().hexdigest()
    second, cancelled = _begin(call, 2), []
    call.begun(second.attempt, lambda index=None: cancelled.append(index))
    assert [one.said for one in second.requests] == [(5,)] and cancelled == [0]


def test_a_suspect_stops_behind_one_token_that_it_proves() -> None:
    told = _Told()
    call = told.call([REQUEST])
    proof = _begin(call, 1, proves=True)
    assert proof.requests[0].params.max_tokens == 1
    proof.deliver(NewTokens([(0, 4)]))
    proof.deliver(Ended(0, _result([4], "length")))
    assert not call.attached and call.tried == 0 and told.lost == 1
    assert told.take() == [NewTokens([(0, 4)])]
    rest = _begin(call, 1)
    assert rest.requests[0].said == (4,) and rest.requests[0].params.max_tokens == 9
    call.lose(rest.attempt)
    last = _begin(call, 2, proves=True)
    last.deliver(Ended(0, _result([4, 5], "stop")))  # its own end
    assert call.over and isinstance(told.take()[-1], Ended)


def test_a_refused_request_fails_and_a_caller_that_fails_is_forgotten() -> None:
    told = _Told()
    call = told.call([REQUEST])
    _begin(call, 1).deliver(Failed(ValueError("the prompt is empty")))
    assert isinstance(told.take()[0], Failed) and call.over

    def deliver(event: Event) -> None:
        raise RuntimeError("the loop is closed")

    over: list[Carried] = []
    broken = Carried(
        [REQUEST], deliver, CallOptions(), on_over=over.append,
        on_lost=over.append, on_token=lambda call: None,
    )  # fmt: skip
    ask = _begin(broken, 1)
    with pytest.raises(RuntimeError):  # the engine's router then cancels it
        ask.deliver(NewTokens([(0, 1)]))
    assert broken.over and over == [broken]


def test_whoever_asks_in_an_outage_waits_and_later_is_sent_away_with_a_time() -> None:
    outage: Outage | None = None
    service = Service()
    served = cast(Any, object())
    service.ready(served, cast(Any, SimpleNamespace(failure="", at=0.0, moved=0.0)), lambda: outage)
    assert service.take() is served
    outage = Outage(reason="node 1 has gone", seconds=3.0, retry=7.0, over_patience=False)
    assert service.take() is served and "node 1 has gone" in service.trouble()
    outage = replace(outage, over_patience=True)
    with pytest.raises(ApiError, match="node 1 has gone") as caught:
        service.take()
    assert (caught.value.status, caught.value.retry_after) == (503, 7.0)
    error = api_error(Unavailable("node 1 has gone", 9.0))
    assert (error.status, error.retry_after) == (503, 9.0)
