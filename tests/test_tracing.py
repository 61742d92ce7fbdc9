"""Spans of requests, as a collector gets them over HTTP."""

# pyright: reportMissingImports=false
from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bandweave.executors.executor import StepError
from bandweave.generation.request import Request
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by, until

pytest.importorskip("opentelemetry.sdk", reason="brought by bandweave[traces]")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.proto.collector.trace.v1 import (  # noqa: E402
    trace_service_pb2 as wire,
)

from bandweave.serving.status.tracing import Tracing  # noqa: E402

_TRACE, _PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
_CHAT = {"messages": [{"role": "user", "content": "my secret"}], "max_tokens": 5}


class Collector:
    """Takes what is sent to it. ``paths``: to where; ``content``: all of it, as it came."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.content = b""
        self.spans: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                sent = wire.ExportTraceServiceRequest.FromString(content)
                for resource in sent.resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                collector.paths.append(self.path)
                collector.content += content
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def _play(request: Request, tokenizer: Tokenizer) -> Script:
    failure = StepError("node 1 is gone") if request.params.max_tokens == 1 else None
    tokens = tokenizer.encode("Hello there!", special_tokens=False)
    return Script(tokens=tokens, reading=0.02, reused=3, failure=failure)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


@pytest.fixture
def traced(collector: Collector) -> Iterator[ServerThread]:
    with Tracing.to(collector.url) as tracing, ServerThread(served_by(_play)) as server:
        server.app.state.status.tracing = tracing
        yield server


def _told(span: Any) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for one in span.attributes:
        value = one.value
        kind = value.WhichOneof("value")
        told[one.key] = getattr(value, kind)
        if kind == "array_value":
            told[one.key] = [entry.string_value for entry in value.array_value.values]
    return told


def test_a_request_is_a_span_of_its_callers_trace(
    traced: ServerThread, collector: Collector
) -> None:
    headers = {"traceparent": f"00-{_TRACE}-{_PARENT}-01"}
    status, _, _ = traced.post("/v1/chat/completions", {**_CHAT, "stream": True}, headers)
    assert status == 200
    until(lambda: len(collector.spans) == 4)
    (span,) = collector.named("chat demo")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (_TRACE, _PARENT)
    assert span.kind == 2  # a server's
    told, request = _told(span), traced.engine.requests[-1]
    assert told["gen_ai.usage.input_tokens"] == len(request.tokens)
    assert told["gen_ai.usage.output_tokens"] == told["gen_ai.request.max_tokens"] == 5
    assert told["gen_ai.usage.cache_read.input_tokens"] == 3
    assert told["gen_ai.response.finish_reasons"] == ["length"]
    assert told["bandweave.protocol"] == "chat"
    assert 0 < told["gen_ai.latency.time_to_first_token"] <= told["gen_ai.latency.e2e"] < 60
    phases = [collector.named(name)[0] for name in ("waiting", "prefill", "decode")]
    assert {phase.parent_span_id for phase in phases} == {span.span_id}
    place = span.start_time_unix_nano
    for phase in phases:
        assert phase.start_time_unix_nano == place
        place = phase.end_time_unix_nano
    assert collector.paths[0] == "/v1/traces"
    assert b"secret" not in collector.content and b"Hello" not in collector.content


def test_several_prompts_are_several_spans_and_failures_say_so(
    traced: ServerThread, collector: Collector
) -> None:
    assert traced.post("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 3})[0] == 200
    until(lambda: len(collector.named("text_completion demo")) == 2)
    one, other = collector.named("text_completion demo")
    assert one.trace_id != other.trace_id and not one.parent_span_id  # nobody's trace
    assert traced.post("/v1/chat/completions", {**_CHAT, "max_tokens": 1})[0] == 503
    until(lambda: collector.named("chat demo"))
    (failed,) = collector.named("chat demo")
    assert failed.status.code == 2 and _told(failed)["gen_ai.response.finish_reasons"] == ["error"]


@pytest.mark.parametrize("parent", ["", "00-0-0-00", "ff" * 999, f"00-{'0' * 32}-{_PARENT}-01"])
def test_what_is_no_trace_is_passed_over(
    traced: ServerThread, collector: Collector, parent: str
) -> None:
    assert traced.post("/v1/chat/completions", _CHAT, {"traceparent": parent})[0] == 200
    until(lambda: collector.named("chat demo"))
    assert not collector.named("chat demo")[0].parent_span_id


@pytest.mark.parametrize("listens", [False, True])
def test_answers_do_not_wait_for_a_collector_that_is_silent(
    listens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it refuses connections, or takes them and says nothing."""
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        if listens:
            sock.listen()
        port = sock.getsockname()[1]
        tracing = Tracing.to(f"http://127.0.0.1:{port}")
        server = stack.enter_context(ServerThread(served_by(_play)))
        server.app.state.status.tracing = tracing
        for _ in range(3):
            assert server.post("/v1/chat/completions", _CHAT)[0] == 200
        start = time.monotonic()
        with tracing:
            pass
        assert time.monotonic() - start < 30
    assert [record.message for record in caplog.records if "spans" in record.message] == [
        f"the collector at http://127.0.0.1:{port}/v1/traces takes no spans; they are lost until "
        "it does"
    ]


def test_the_operators_variables_hold(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our-models")
    with Tracing.to(collector.url) as tracing, ServerThread(served_by(_play)) as server:
        server.app.state.status.tracing = tracing
        assert server.post("/v1/chat/completions", _CHAT)[0] == 200
    assert collector.named("chat demo")  # sent before it closed
    assert b"our-models" in collector.content


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:4318", "grpc://a:4317", "http://", "", "file:///x"]
)
def test_addresses_that_are_none(endpoint: str) -> None:
    with pytest.raises(ValueError, match="no address of a collector"):
        Tracing.to(endpoint)
