"""Health: 503 with a reason while nobody should wait for an answer, and 200 whatever the load."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from bandweave.executors.executor import StepError
from bandweave.messages import EngineState
from bandweave.serving.errors import ApiError
from bandweave.serving.status.sampler import Sampler
from bandweave.serving.status.service import Service
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by, until

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
IDLE = EngineState(
    running=0, waiting=0, pages=9, free_pages=9, kept_pages=0, preempted=0, steps=1, seconds=0.1,
    durations=(0,) * 12, read=0, written=0, ended=0,
)  # fmt: skip


class Engine:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.now = IDLE
        self.asked = 0
        self.held = threading.Event()
        self.held.set()
        self.failure: StepError | None = None

    def state(self) -> EngineState:
        self.asked += 1
        self.held.wait(20)
        if self.failure is not None:
            raise self.failure
        return self.now


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def sampled(engine: Engine, clock: Clock):
    with Sampler(engine, seconds=0.001, clock=clock) as sampler:
        yield sampler
        engine.held.set()


def served() -> Any:
    return served_by(lambda request, tokenizer: Script(tokens=[5]))


def again(engine: Engine) -> None:
    """Waits until what the engine says now has been heard."""
    before = engine.asked
    until(lambda: engine.asked > before + 1)


def test_a_busy_engine_is_well_as_long_as_its_steps_end() -> None:
    engine, clock = Engine(), Clock()
    with sampled(engine, clock) as sampler:
        until(lambda: sampler.latest() is not None)
        service = Service(served(), sampler, bound=60, clock=clock)
        for steps in range(10):
            engine.now = replace(IDLE, running=4, waiting=100, steps=steps + 2)
            again(engine)
            clock.now += 50
            assert service.trouble() == ""
            again(engine)
        clock.now += 61  # the steps stand still, though the engine answers
        again(engine)
        assert "has not ended a step" in service.trouble()
        engine.now = IDLE
        again(engine)
        assert service.trouble() == ""


def test_an_engine_that_hangs_and_one_that_failed() -> None:
    engine, clock = Engine(), Clock()
    with sampled(engine, clock) as sampler:
        until(lambda: sampler.latest() is not None)
        service = Service(served(), sampler, bound=60, clock=clock)
        engine.held.clear()
        clock.now += 59
        assert service.trouble() == ""
        clock.now += 100
        assert "has not ended a step for" in service.trouble()
        engine.failure = StepError("node 1 was lost")
        engine.held.set()
        until(lambda: sampler.failure)
        assert service.trouble() == "the engine has failed: node 1 was lost"
        with pytest.raises(ApiError, match="node 1 was lost"):
            service.take()


def test_an_engine_that_is_closed_by_us_has_not_failed() -> None:
    engine = Engine()
    with Sampler(engine, seconds=0.001) as sampler:
        until(lambda: sampler.latest() is not None)
        engine.held.clear()
        sampler.stop()
        engine.failure = StepError("the engine is closed")
        engine.held.set()
        time.sleep(0.05)
    assert not sampler.failure


def ask(server: ServerThread) -> tuple[int, dict[str, Any]]:
    start = time.monotonic()
    status, _, content = server.ask("GET", "/health")
    assert time.monotonic() - start < 5
    return status, json.loads(content)


def test_the_life_of_a_server() -> None:
    service = Service()
    with ServerThread(service) as server:
        assert ask(server) == (503, ask(server)[1])
        service.wait("the model is loading: 43 %")
        status, found = ask(server)
        assert (status, found["status"]) == (503, "unavailable")
        assert found["reason"] == found["error"]["message"] == "the model is loading: 43 %"
        status, headers, content = server.post("/v1/chat/completions", CHAT)
        assert (status, headers["retry-after"]) == (503, "5")
        assert "43 %" in json.loads(content)["error"]["message"]
        engine = Engine()
        with Sampler(engine, seconds=0.001) as sampler:
            service.ready(served(), sampler)
            assert ask(server) == (200, {"status": "ok"})
            assert server.post("/v1/chat/completions", CHAT)[0] == 200
            engine.held.clear()  # in the midst of a long step nobody waits for the engine
            again_at = time.monotonic()
            assert ask(server)[0] == 200
            assert time.monotonic() - again_at < 2
            engine.held.set()
        service.end()
        assert ask(server)[1]["reason"] == "the server is stopping"
        assert server.post("/v1/chat/completions", CHAT)[0] == 503


def test_well_under_load() -> None:
    def play(request: Any, tokenizer: Any) -> Script:
        return Script(tokens=[5] * 100, delay=0.002)

    with ServerThread(served_by(play)) as server:
        body = {**CHAT, "stream": True, "n": 4}
        threads = [
            threading.Thread(target=server.post, args=("/v1/chat/completions", body))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert ask(server)[0] == 200
        for thread in threads:
            thread.join()
