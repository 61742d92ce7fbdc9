"""What goes on: requests are counted as they come and end, and one state of things is told to all:
as JSON, as a feed, and as metrics."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bandweave.generation.request import Request, Timing
from bandweave.generation.sampling import SamplingParams
from bandweave.messages import EngineState
from bandweave.programs.split import Split
from bandweave.serving.answers.admission import Admission
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import (
    CallArguments,
    CallBegun,
    End,
    Read,
    Reason,
    Text,
    TokenInfo,
)
from bandweave.serving.http.keys import read_keys
from bandweave.serving.status.accounts import Accounts
from bandweave.serving.status.counting import Distribution, Rate
from bandweave.serving.status.feed import Feed
from bandweave.serving.status.protocols import protocol_of
from bandweave.serving.status.registry import Registry
from bandweave.serving.status.sampler import Sampler
from bandweave.serving.status.service import Service
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.machines import STEP_SECONDS, accounts, pretend_machines
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

_DOCS = Path(__file__).parents[1] / "docs" / "serving.md"
_CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _token(choice: int, count: int = 1) -> Text:
    return Text(choice, "x", tuple(TokenInfo(7, b"x") for _ in range(count)))


def _end(choice: int, tokens: int, reason: Reason = "stop", **changes: Any) -> End:
    timing = Timing(waiting=0.3, prompt_tokens=40)
    return End(choice=choice, reason=reason, tokens=(7,) * tokens, timing=timing, **changes)


def _ask(**changes: Any) -> Ask:
    return Ask(tokens=tuple(range(40)), params=SamplingParams(), **changes)


# --- requests ---


def test_a_request_is_followed_from_its_queue_to_its_end() -> None:
    clock = Clock()
    registry = Registry(clock)
    live = registry.begin(_ask(), protocol="chat", key="ann")
    assert (live.phase, live.prompt, live.read) == ("waiting", 40, 0)
    live.hear(Read(0))
    assert live.phase == "waiting"
    live.hear(Read(16))
    assert (live.phase, live.read) == ("reading", 16)
    clock.now += 0.4
    live.hear(_token(0))
    assert (live.phase, live.read, live.generated) == ("writing", 40, 1)
    clock.now += 0.06
    live.hear(_token(0))
    clock.now += 0.2
    live.hear(_token(0, 2))  # two tokens that became one text
    live.hear(_end(0, 5, cached_tokens=32))  # the end token has no text
    live.close("cancelled")
    assert not registry.live
    assert registry.outcomes == {("chat", "stop"): 1}
    assert (registry.prompt_tokens, registry.generated_tokens) == (40, 5)
    assert (registry.cached_tokens, registry.looked_up_tokens) == (32, 40)
    assert registry.first_token.sum == pytest.approx(0.4)
    assert registry.between_tokens.sum == pytest.approx(0.26)
    assert sum(registry.between_tokens.counts) == 4
    assert registry.whole.sum == pytest.approx(0.66)
    assert registry.queue.sum == pytest.approx(0.3)


def test_answers_to_one_prompt_are_counted_each() -> None:
    registry = Registry(Clock())
    live = registry.begin(_ask(choices=3), protocol="chat", key="")
    for choice in (0, 1):
        live.hear(_token(choice))
    live.hear(_end(0, 1, "length"))
    live.close("cancelled")  # the client went
    live.close("cancelled")
    assert registry.outcomes == {("chat", "length"): 1, ("chat", "cancelled"): 2}
    assert registry.prompt_tokens == 80  # the third never began


def test_calls_of_tools_are_counted_from_their_beginning() -> None:
    clock = Clock()
    registry = Registry(clock)
    live = registry.begin(_ask(), protocol="chat", key="")
    clock.now += 0.5
    live.hear(CallBegun(0, 0, "id", "find"))
    live.hear(CallArguments(0, 0, '{"a": '))
    assert (live.phase, live.generated) == ("writing", 2)
    clock.now += 0.5
    live.hear(_end(0, 12, "tool_calls"))
    assert registry.first_token.sum == pytest.approx(0.5)
    assert registry.generated_tokens == 12
    assert registry.outcomes == {("chat", "tool_calls"): 1}


def test_who_reuses_nothing_is_no_miss_of_the_cache() -> None:
    registry = Registry(Clock())
    live = registry.begin(_ask(reuse=False), protocol="chat", key="")
    live.hear(_token(0))
    live.hear(_end(0, 1))
    assert registry.looked_up_tokens == 0


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/messages", "messages"),
        ("/completions", "completions"),
        ("/api/chat", "ollama_chat"),
        ("/api/embed", "ollama_embed"),
        ("/x/" * 99, "other"),
    ],
)
def test_protocols_have_few_names(path: str, name: str) -> None:
    assert protocol_of(path) == name


def test_a_distribution_counts_by_upper_ends() -> None:
    one = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        one.add(value)
    one.add(2.0, 3)
    assert one.counts == [2, 4, 1]
    assert one.sum == 18.0


def test_a_rate_is_of_the_last_seconds() -> None:
    rate = Rate(5.0)
    assert rate.per_s == 0.0
    for second in range(20):
        rate.see(float(second), 10.0 * min(second, 12))
    assert rate.per_s == 0.0  # nothing has grown since the twelfth
    rate.see(20.0, 170.0)
    assert rate.per_s == pytest.approx(10.0)


# --- the nodes' accounts ---


def test_the_bill_of_a_step_adds_up_on_every_node() -> None:
    machines = pretend_machines(3)
    told = iter([accounts(100, 3, 10.0), accounts(140, 3, 12.0)])
    one = Accounts(
        type(machines)(split=machines.split, plan=machines.plan, links=(),
                       look=lambda: next(told), expect=machines.expect)
    )  # fmt: skip
    one._run(300.0)
    assert one.measured is None  # it takes two looks
    one._run(300.0)
    bill = one.bill
    assert bill is not None and bill.steps == 40 and bill.rows == pytest.approx(2)
    for seconds in bill.seconds:
        parts = {name: value for name, value in seconds.items() if name != "wall"}
        assert sum(parts.values()) == pytest.approx(seconds["wall"])
        assert seconds["wall"] == pytest.approx(STEP_SECONDS)
    # 92 % of a step is the executor's; node 0 chooses tokens for the rest, the others wait for it.
    assert bill.seconds[0]["sampling"] == pytest.approx(0.08 * STEP_SECONDS)
    assert one.measured == pytest.approx(2 / STEP_SECONDS)
    assert one.busy == pytest.approx([40 * STEP_SECONDS * 0.86 / 2.0] * 3)
    assert one.expected is not None and one.expected.predicted == pytest.approx(44.8)
    told_json = one.bill_json()
    assert told_json is not None and json.loads(json.dumps(told_json)) == told_json


def test_a_pause_leaves_the_last_bill_as_it_was() -> None:
    machines = pretend_machines(2)
    told = iter([accounts(1, 2, 1.0), accounts(21, 2, 2.0), accounts(21, 2, 4.0)])
    one = Accounts(
        type(machines)(split=Split(shares=(), stages=((0, 1),)), plan=machines.plan, links=(),
                       look=lambda: next(told), expect=lambda streams, context: None)
    )  # fmt: skip
    for _ in range(3):
        one._run(1.0)
    assert one.bill is not None and one.bill.steps == 20
    assert one.busy == (0.0, 0.0)
    assert one.expected is None


# --- the feed ---


def test_listeners_share_one_encoding_and_hear_what_has_changed() -> None:
    async def run() -> None:
        feed = Feed()
        listeners = [feed.listen({"a": 0, "b": 0}) for _ in range(20)]
        for one in listeners:
            assert await anext(one) == b'event: status\ndata: {"a":0,"b":0}\n\n'
        taking = [asyncio.ensure_future(anext(one)) for one in listeners]
        await asyncio.sleep(0)
        assert feed.listeners == 20
        feed.publish({"a": 1, "b": 1})
        first = await asyncio.gather(*taking)
        assert first[0] == b'event: status\ndata: {"a":1,"b":1}\n\n'
        assert all(one is first[0] for one in first)
        feed.publish({"a": 1, "b": 2})
        await asyncio.sleep(0)
        second = [await anext(one) for one in listeners]
        assert second[0] == b'event: changes\ndata: {"b":2}\n\n'
        assert all(one is second[0] for one in second)
        for _ in range(3):  # nobody listens for a while, and then gets all
            feed.publish({"a": 1, "b": 3})
        await asyncio.sleep(0)
        assert await anext(listeners[0]) == b'event: status\ndata: {"a":1,"b":3}\n\n'
        feed.close()
        with pytest.raises(StopAsyncIteration):
            await anext(listeners[0])
        for one in listeners:
            await one.aclose()  # type: ignore[attr-defined]
        assert feed.listeners == 0

    asyncio.run(run())


# --- over HTTP ---


def _play(request: Request, tokenizer: Tokenizer) -> Script:
    slow = len(request.tokens) > 100
    return Script(
        tokens=tokenizer.encode("Hello there, my friends!"), reused=4, reads=[50] if slow else [],
        reading=20.0 if slow else 0.0,
    )  # fmt: skip


@contextmanager
def _serving(**options: Any) -> Iterator[ServerThread]:
    served = served_by(_play, admission=Admission(most_requests=1))
    with (
        Sampler(served.answering.engine, seconds=0.02) as sampler,
        ServerThread(Service(served, sampler), **options) as server,
    ):
        server.app.state.status.show(pretend_machines)
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with _serving() as server:
        yield server


def _status(server: ServerThread) -> dict[str, Any]:
    status, headers, content = server.ask("GET", "/v1/status")
    assert status == 200 and headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    return json.loads(content)


def _documented(heading: str) -> set[str]:
    """The names of the first column of the tables below a heading."""
    text = _DOCS.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    section = re.split(r"\n#{2,4} ", text, maxsplit=1)[0]
    names = set()
    for line in section.splitlines():
        if line.startswith("| `"):
            names |= set(re.findall(r"`([a-z_0-9]+)`", line.split("|")[1]))
    return names


def test_every_field_is_documented_and_every_documented_field_is_there(
    server: ServerThread,
) -> None:
    told = _status(server)
    assert told["ready"] is True and told["reason"] == ""
    assert set(told) == _documented("#### Fields of the status")
    with _one_that_reads(server):
        (stream,) = _status(server)["streams"]
    assert set(stream) == _documented("#### Fields of a stream")
    assert set(told["nodes"][0]) == _documented("#### Fields of a node")
    assert set(told["links"][0]) == _documented("#### Fields of a link")


@contextmanager
def _one_that_reads(server: ServerThread) -> Iterator[None]:
    """A streamed request whose prompt is being read."""
    words = {"model": "demo", "stream": True,
             "messages": [{"role": "user", "content": "word " * 200}]}  # fmt: skip
    body = json.dumps(words).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as one:
        head = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        one.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
        deadline = time.monotonic() + 10
        while not (found := _status(server)["streams"]) or found[0]["phase"] == "waiting":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    deadline = time.monotonic() + 10
    while _status(server)["streams"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_prompt_that_is_read_is_shown_with_its_true_length(server: ServerThread) -> None:
    with _one_that_reads(server):
        told = _status(server)
        (stream,) = told["streams"]
        assert (stream["phase"], stream["read_tokens"]) == ("reading", 50)
        assert stream["prompt_tokens"] > 200
        assert stream["context_fill"] == pytest.approx(50 / 4096, rel=1e-3)
        assert (told["queued_requests"], told["queued_tokens"]) == (1, stream["prompt_tokens"])
        refused, headers, _ = server.post("/v1/chat/completions", _CHAT)
        assert refused == 429 and "retry-after" in headers
    assert _metrics(server)["bandweave_requests_total", ("chat", "refused")] >= 1
    assert _metrics(server)["bandweave_requests_total", ("chat", "cancelled")] >= 1


def _metrics(server: ServerThread) -> dict[Any, float]:
    """Values by name and labels, as Prometheus's own parser finds them."""
    status, headers, content = server.ask("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=")
    found: dict[Any, float] = {}
    for family in text_string_to_metric_families(content.decode()):
        for sample in family.samples:
            order = ("protocol", "outcome", "finished_reason", "le")
            labels = tuple(sample.labels[name] for name in order if name in sample.labels)
            found[(sample.name, labels) if labels else sample.name] = sample.value
    return found


def test_metrics_parse_are_documented_and_say_what_the_status_says(server: ServerThread) -> None:
    assert server.post("/v1/chat/completions", _CHAT)[0] == 200
    found, told = _metrics(server), _status(server)
    names = {key if isinstance(key, str) else key[0] for key in found}
    stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    optional = {f"bandweave_{name}_tokens_per_second" for name in
                ("measured", "predicted", "limit")}  # fmt: skip
    optional |= {f"bandweave_{name}" for name in
                 ("last_recovery_seconds", "group_serves", "group_streams")}  # fmt: skip
    assert stems | optional == _documented("#### Metrics")
    for name, field in {
        "num_requests_running": "running",
        "num_requests_waiting": "waiting",
        "kv_pages": "pages",
        "kv_pages_used": "pages_used",
        "kv_pages_kept": "pages_kept",
        "num_preemptions_total": "preemptions_total",
        "prompt_tokens_total": "prompt_tokens_total",
        "generation_tokens_total": "generated_tokens_total",
        "prefix_cache_hits_total": "prefix_cache_hits_total",
        "prefix_cache_queries_total": "prefix_cache_queries_total",
    }.items():
        assert found[f"bandweave_{name}"] == told[field], name
    assert told["generated_tokens_total"] > 5 and told["prefix_cache_hits_total"] >= 4
    answers = found["bandweave_requests_total", ("chat", "length")]
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds"):
        assert found[f"bandweave_{name}_count"] >= answers >= 1
        assert found[f"bandweave_{name}_bucket", ("+Inf",)] == found[f"bandweave_{name}_count"]
    assert found["bandweave_inter_token_latency_seconds_count"] >= 5


def test_the_steps_histogram_is_the_engines(server: ServerThread) -> None:
    state: EngineState = server.engine.state()
    found = _metrics(server)
    assert found["bandweave_step_duration_seconds_sum"] == pytest.approx(state.seconds)
    assert found["bandweave_step_duration_seconds_count"] == sum(state.durations)


def test_the_feed_begins_with_all_and_goes_on(server: ServerThread) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as one:
        one.sendall(b"GET /v1/status/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        heard = b""
        while heard.count(b"event: ") < 3:
            piece = one.recv(1 << 16)
            assert piece
            heard += piece
    head, _, _ = heard.partition(b"\r\n\r\n")
    assert b"text/event-stream" in head
    names = re.findall(rb"event: (\w+)\n", heard)
    assert names[:3] == [b"status", b"status", b"changes"]


def test_a_server_that_ends_does_not_wait_for_listeners() -> None:
    with _serving() as server:
        one = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        one.sendall(b"GET /v1/status/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert one.recv(1 << 16)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.5
    one.close()


def test_without_a_model_the_status_says_so() -> None:
    with ServerThread(Service()) as server:
        told = _status(server)
        assert (told["ready"], told["model"], told["nodes"]) == (False, None, [])
        assert "loading" in told["reason"]
        assert _metrics(server)["bandweave_up"] == 0


def test_keys_guard_the_figures_and_not_the_page(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("a-key-that-is-long-enough ann\n")
    path.chmod(0o600)
    with _serving(keys=read_keys(path)) as server:
        for figures in ("/v1/status", "/v1/status/stream", "/metrics"):
            assert server.ask("GET", figures)[0] == 401
        key = {"Authorization": "Bearer a-key-that-is-long-enough"}
        for figures in ("/v1/status", "/metrics"):
            assert server.ask("GET", figures, headers=key)[0] == 200
        for free in ("/", "/page/js/main.js"):
            assert server.ask("GET", free)[0] == 200


def test_looking_ends_when_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bandweave.serving.status.status._IDLE_SECONDS", 0.0)
    monkeypatch.setattr("bandweave.serving.status.status.TICK_SECONDS", 0.01)
    before = {one for one in threading.enumerate() if one.name == "status"}
    with _serving() as server:
        _status(server)
        deadline = time.monotonic() + 5
        while {one for one in threading.enumerate() if one.name == "status"} - before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert _status(server)["ready"]  # and begins again


def test_twenty_open_pages_cost_next_to_nothing() -> None:
    """Of one processor: what the server computes for them, measured by its own clock."""
    seconds = 2.0
    with _serving() as server:
        with ExitStack() as pages:
            for _ in range(20):
                one = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                pages.callback(one.close)
                one.sendall(b"GET /v1/status/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            deadline = time.monotonic() + 10
            while server.app.state.status.feed.listeners < 20:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            busy = _busy(seconds)
        idle = _busy(seconds / 2)
    assert busy - idle < 0.02, (busy, idle)


def _busy(seconds: float) -> float:
    """Processor seconds of this process a second."""
    begun, computed = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - computed) / (time.monotonic() - begun)
