"""Admission: who is turned away, and whether what they are told of the wait is true."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

import pytest

from bandweave.serving.answers.admission import Admission
from bandweave.serving.errors import ApiError
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by, until

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(admission: Admission, tokens: int = 1) -> float:
    """Seconds that one is told to stay away."""
    with pytest.raises(ApiError) as caught:
        admission.enter(object(), tokens)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_bounds_of_requests_and_of_tokens() -> None:
    admission = Admission(most_requests=2, most_tokens=100)
    places = [object() for _ in range(4)]
    admission.enter(places[0], 500)  # a single one is never too many
    refused(admission, 1)
    admission.leave(places[0])
    admission.enter(places[1], 60)
    refused(admission, 41)
    admission.enter(places[2], 40)
    refused(admission, 0)
    admission.leave(places[1])
    admission.leave(places[1])
    admission.enter(places[3], 1)
    assert (admission.waiting, admission.waiting_tokens, admission.refused) == (2, 41, 3)


def test_no_bounds() -> None:
    admission = Admission()
    for _ in range(1000):
        admission.enter(object(), 1000)
    assert admission.waiting == 1000


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("each", [0.2, 3.0, 40.0])
def test_the_wait_that_is_told_is_within_twice_the_real_one(seed: int, each: float) -> None:
    """One after the other is served, in about ``each`` seconds; the queue is full."""
    random_ = random.Random(seed)
    clock = Clock()
    admission = Admission(most_requests=4, clock=clock)
    clock.now += 5000  # a day without anybody
    queue = [object() for _ in range(4)]
    for one in queue:
        admission.enter(one, 10)

    def serve(seconds: float) -> None:
        clock.now += seconds
        admission.leave(queue.pop(0))

    for _ in range(random_.randrange(8, 100)):
        serve(each * random_.uniform(0.8, 1.2))
        queue.append(object())
        admission.enter(queue[-1], 10)
    passed = each * random_.uniform(0, 0.45)
    clock.now += passed
    real = each - passed
    told = [refused(admission, 10) for _ in range(3)]
    for index, seconds in enumerate(told):  # each has a place of its own to come for
        assert real / 2 <= seconds - index * each <= 2 * real + index * each * 0.3


def test_the_wait_for_tokens() -> None:
    clock = Clock()
    admission = Admission(most_tokens=1000, clock=clock)
    for _ in range(10):
        one = object()
        admission.enter(one, 100)
        clock.now += 2.0  # 50 tokens a second
        admission.leave(one)
    admission.enter(object(), 1000)
    assert 10 <= refused(admission, 600) <= 14


def test_those_that_go_say_nothing_of_the_pace() -> None:
    clock = Clock()
    admission = Admission(most_requests=1, clock=clock)
    for served in (True, True, False, False, False):
        one = object()
        admission.enter(one, 1)
        clock.now += 4.0 if served else 0.0
        admission.leave(one, served)
    admission.enter(object(), 1)
    assert refused(admission) == pytest.approx(4.0)


def test_nobody_is_sent_away_for_ever() -> None:
    clock = Clock()
    admission = Admission(most_requests=1, clock=clock)
    admission.enter(object(), 1)
    clock.now += 3600
    assert all(refused(admission) <= 120 for _ in range(100))


def test_over_http_the_told_wait_is_true_and_a_second_try_succeeds() -> None:
    """Answers come one after the other, 0.3 s each, with the scripted engine's clock."""
    turn = threading.Lock()

    class Serial:
        def __init__(self) -> None:
            self.busy = time.monotonic()

        def delay(self) -> float:
            with turn:
                self.busy = max(self.busy, time.monotonic()) + 0.3
                return self.busy - time.monotonic()

    serial = Serial()

    def play(request: Any, tokenizer: Any) -> Script:
        return Script(tokens=[5], reading=serial.delay())

    served = served_by(play, admission=Admission(most_requests=3))
    statuses: list[int] = []
    with ServerThread(served) as server:

        def ask() -> None:
            statuses.append(server.post("/v1/chat/completions", CHAT)[0])

        for _ in range(3):
            ask()  # so that the pace is known
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: server.engine.running == 3)
        status, headers, content = server.post("/v1/chat/completions", CHAT)
        assert status == 429
        error = json.loads(content)["error"]
        assert (error["type"], error["code"], error["param"]) == (
            "rate_limit_error", "rate_limit_exceeded", None,
        )  # fmt: skip
        assert headers["retry-after"] == "1"
        wait = int(headers["retry-after-ms"]) / 1000
        assert 0.1 <= wait <= 0.7
        time.sleep(wait)
        until(lambda: served.admission.waiting < 3)
        assert server.post("/v1/chat/completions", CHAT)[0] == 200
        for thread in threads:
            thread.join()
    assert statuses == [200] * 6  # those that were in were not harmed
    assert served.admission.waiting == 0
