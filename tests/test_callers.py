"""Callers of one engine: threads and asyncio tasks, side by side, each with its own answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import StepError
from bandweave.generation.request import CallOptions, Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.nodes import heartbeat
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.run_options import RunOptions

GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
WARM = SamplingParams(temperature=0.9, seed=4, max_tokens=12)


def asked(number: int, length: int, params: SamplingParams = GREEDY) -> Request:
    tokens = tuple((7 * i * i + 13 * number + 3) % 300 for i in range(length))
    return Request(tokens=tokens, params=params)


REQUESTS = [asked(i, 3 + 29 * i, (GREEDY, WARM)[i % 2]) for i in range(6)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    # Few pages: some wait, and some give way.
    options = EngineOptions(shares=(1, 1), threads=1, run=RunOptions(context=256, streams=2))  # type: ignore[arg-type]
    with (
        Folder.open(demo_folder()) as folder,
        Engine.start(folder, options, ThreadLauncher()) as engine,
    ):
        yield engine


@pytest.fixture(scope="module")
def expected(engine: Engine) -> list[Result]:
    return [engine.generate([one], digest=True, reuse=False)[0] for one in REQUESTS]


def heart(result: Result) -> tuple[object, ...]:
    return result.tokens, result.reason, result.logits_digest


def test_threads_get_their_own_answers(engine: Engine, expected: list[Result]) -> None:
    found: dict[int, Result] = {}

    def ask(seed: int) -> None:
        time.sleep(random.Random(seed).random() / 20)
        number = seed % len(REQUESTS)
        told: list[int] = []
        (result,) = engine.generate(
            [REQUESTS[number]], digest=True, on_token=lambda index, token: told.append(token)
        )
        assert tuple(told) == result.tokens
        found[seed] = result

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [heart(found[seed]) for seed in range(24)] == [
        heart(expected[seed % len(REQUESTS)]) for seed in range(24)
    ]


def test_tasks_get_their_own_answers(engine: Engine, expected: list[Result]) -> None:
    async def ask(number: int) -> Result:
        await asyncio.sleep(number / 200)
        async with engine.stream_async(REQUESTS[number], CallOptions(digest=True)) as stream:
            tokens = [token async for token in stream]
            result = await stream.result()
        assert tuple(tokens) == result.tokens
        return result

    async def everybody() -> list[Result]:
        return await asyncio.gather(*(ask(number) for number in range(len(REQUESTS))))

    assert list(map(heart, asyncio.run(everybody()))) == list(map(heart, expected))


def test_a_stream_that_is_left_is_cancelled_and_others_go_on(
    engine: Engine, expected: list[Result]
) -> None:
    endless = replace(REQUESTS[0], params=replace(GREEDY, max_tokens=None))
    with (
        engine.stream(endless) as left,
        engine.stream(REQUESTS[1], CallOptions(digest=True)) as other,
    ):
        assert next(iter(left)) == expected[0].tokens[0]
        assert list(other) == list(expected[1].tokens)
        assert heart(other.result()) == heart(expected[1])
    result = left.result()
    assert result.reason == "cancelled" and result.tokens[0] == expected[0].tokens[0]


def test_one_callers_error_is_not_the_others(engine: Engine, expected: list[Result]) -> None:
    endless = replace(REQUESTS[2], params=replace(GREEDY, max_tokens=None))

    def broken(index: int, token: int) -> bool:
        raise ZeroDivisionError("a caller's")

    with engine.stream(REQUESTS[3], CallOptions(digest=True)) as other:
        with pytest.raises(ZeroDivisionError):
            engine.generate([endless, REQUESTS[1]], on_token=broken)
        assert heart(other.result()) == heart(expected[3])


def test_a_refusal_is_told_to_its_caller_alone(engine: Engine, expected: list[Result]) -> None:
    with engine.stream(REQUESTS[4], CallOptions(digest=True)) as other:
        with pytest.raises(ValueError, match="^the prompt has 300 tokens, but the context holds"):
            engine.generate([REQUESTS[0], asked(0, 300)])
        assert heart(other.result()) == heart(expected[4])


def test_an_event_loop_that_is_closed_ends_its_own_requests_only(
    engine: Engine, expected: list[Result]
) -> None:
    endless = replace(REQUESTS[0], params=replace(GREEDY, max_tokens=None))

    async def leave() -> None:
        engine.stream_async(endless)

    asyncio.run(leave())
    assert heart(engine.generate([REQUESTS[5]], digest=True)[0]) == heart(expected[5])
    deadline = time.monotonic() + 20
    while engine._router._open:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_statistics_are_told_during_a_generation(engine: Engine) -> None:
    endless = replace(REQUESTS[0], params=replace(GREEDY, max_tokens=None))
    told = [engine.statistics()]
    with engine.stream(endless) as stream:
        next(iter(stream))
        told.append(engine.statistics())
        stream.result()
    told.append(engine.statistics())
    for node in range(2):
        steps = [one[node].decode["steps"] for one in told]
        assert steps == sorted(steps) and steps[0] < steps[-1]


def test_cancel_ends_all_answers_under_way(engine: Engine) -> None:
    endless = [replace(one, params=replace(GREEDY, max_tokens=None)) for one in REQUESTS[:3]]
    streams = [engine.stream(one) for one in endless]
    for stream in streams:
        next(iter(stream))
    engine.cancel()
    assert {stream.result().reason for stream in streams} <= {"cancelled", "length"}


def test_reading_is_told_per_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "PERIOD", 0.02)
    options = EngineOptions(threads=1)
    with (
        Folder.open(demo_folder()) as folder,
        Engine.start(folder, options, ThreadLauncher()) as engine,
    ):
        long = asked(1, 1000, replace(GREEDY, max_tokens=1))
        heard: list[int] = []
        with engine.stream(replace(REQUESTS[0], params=replace(GREEDY, max_tokens=None))):
            engine.generate([long], on_read=heard.append, chunk=2)
        assert heard == sorted(heard) and all(0 <= count <= 1000 for count in heard)
        assert any(0 < count < 1000 for count in heard)


def test_everybody_hears_of_the_end() -> None:
    options = EngineOptions(shares=(1, 1), threads=1, run=RunOptions(context=256))  # type: ignore[arg-type]
    endless = replace(REQUESTS[0], params=replace(GREEDY, max_tokens=None))
    with Folder.open(demo_folder()) as folder:
        engine = Engine.start(folder, options, ThreadLauncher())
        streams = [engine.stream(endless) for _ in range(3)]
        next(iter(streams[0]))
        engine.close()
        for stream in streams:
            with contextlib.suppress(StopIteration), pytest.raises(StepError, match="closed"):
                stream.result()
        with pytest.raises(StepError, match="^the engine is closed$"):
            engine.generate([REQUESTS[0]])
        engine.close()
