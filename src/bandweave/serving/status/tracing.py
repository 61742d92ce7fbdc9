"""Tracing: every request as a span of OpenTelemetry, with its wait, its reading and its writing as
spans within it, sent to a collector.

Names are those of OpenTelemetry's conventions for generative AI, and of vLLM where these have none.
What is said is never told. Knows no HTTP but the headers by which callers name their own trace. The
libraries are an extra, and imported here alone.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bandweave import __version__
from bandweave.serving.answers.answering import Account
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import End, Event, Read

_LOG = logging.getLogger("bandweave.serving")
_BILLION = 1_000_000_000  # nanoseconds
_PATH = "/v1/traces"  # where collectors listen, by the protocol
_SEND_SECONDS, _LATE_MILLIS = 2, 1000  # for one batch; that a span waits for others
_OPERATIONS = {"completions": "text_completion", "embeddings": "embeddings",
               "ollama_embed": "embeddings", "ollama_generate": "text_completion"}  # fmt: skip
_PHASES = ("waiting", "prefill", "decode")  # of an answer's timing, one behind the other


class Tracing:
    """A context manager: what has ended is sent before it closes, if that takes no longer than
    seconds. For the threads and tasks of one server."""

    def __init__(self, exporter: SpanExporter) -> None:
        own = {"service.name": "bandweave", "service.version": __version__}
        # What the operator's variables say counts more.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=_LATE_MILLIS)
        )
        self._tracer = self._provider.get_tracer("bandweave", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str) -> Self:
        """By OTLP over HTTP. ``ValueError`` for what is no address."""
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{endpoint} is no address of a collector; give one like "
                             "http://127.0.0.1:4318")  # fmt: skip
        if parts.path in ("", "/"):
            endpoint = parts._replace(path=_PATH).geturl()
        return cls(_Sender(endpoint))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._provider.shutdown()

    def follow(
        self, account: Account, ask: Ask, *, protocol: str, model: str, headers: Mapping[str, str]
    ) -> Account:
        """From now on, for the span of an ask. ``account``: which hears what the span hears."""
        operation = _OPERATIONS.get(protocol, "chat")
        params, now = ask.params, time.time_ns()
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "bandweave",
            "gen_ai.request.model": model,
            "gen_ai.request.choice.count": ask.choices,
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
            "gen_ai.usage.input_tokens": len(ask.tokens),
            "bandweave.protocol": protocol,
        }
        if params.max_tokens is not None:
            attributes["gen_ai.request.max_tokens"] = params.max_tokens
        span = self._tracer.start_span(
            f"{operation} {model}",
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=now,
        )
        return _Followed(account, self._tracer, span, now, ask.choices)


class _Sender(OTLPSpanExporter):
    """Says once that a collector takes nothing, and once that it does again."""

    def __init__(self, endpoint: str) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it says so every time
        super().__init__(endpoint=endpoint, timeout=_SEND_SECONDS)
        parts = urlsplit(endpoint)  # without a password
        self._where = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails and not self._fails:
            _LOG.warning("the collector at %s takes no spans; they are lost until it does",
                         self._where)  # fmt: skip
        elif self._fails and not fails:
            _LOG.warning("the collector at %s takes spans again", self._where)
        self._fails = fails
        return result


class _Followed:
    """The account of one ask, and its span."""

    def __init__(self, account: Account, tracer: Any, span: Any, since: int, choices: int) -> None:
        self._account, self._tracer, self._span, self._since = account, tracer, span, since
        self._choices = choices
        self._first: int | None = None
        self._ends: list[End] = []
        self._closed = False

    def hear(self, event: Event) -> None:
        self._account.hear(event)
        if isinstance(event, End):
            self._ends.append(event)
        elif self._first is None and not isinstance(event, Read):
            self._first = time.time_ns()

    def close(self, outcome: str) -> None:
        self._account.close(outcome)
        if self._closed:
            return
        self._closed = True
        now, ends = time.time_ns(), self._ends
        reasons = [end.reason for end in ends] + [outcome] * (self._choices - len(ends))
        self._span.set_attributes({
            "gen_ai.response.finish_reasons": reasons,
            "gen_ai.usage.output_tokens": sum(len(end.tokens) for end in ends),
            "gen_ai.usage.cache_read.input_tokens": max(
                (end.cached_tokens for end in ends), default=0),
            "gen_ai.latency.e2e": (now - self._since) / _BILLION,
        })  # fmt: skip
        if self._first is not None:
            first = (self._first - self._since) / _BILLION
            self._span.set_attribute("gen_ai.latency.time_to_first_token", first)
        if ends:
            self._phases(max(ends, key=lambda end: end.timing.waiting + end.timing.prefill
                             + end.timing.decode))  # fmt: skip
        if "error" in reasons:
            why = next((end.error for end in ends if end.error), "the answer failed")
            self._span.set_status(StatusCode.ERROR, why)
        self._span.end(end_time=now)

    def _phases(self, end: End) -> None:
        """Spans for what the answer that took longest was doing, by the engine's own clock."""
        context, place = set_span_in_context(self._span), self._since
        for name in _PHASES:
            seconds = getattr(end.timing, name)
            told = {"waiting": "time_in_queue"}.get(name, f"time_in_model_{name}")
            self._span.set_attribute(f"gen_ai.latency.{told}", seconds)
            child = self._tracer.start_span(name, context=context, start_time=place)
            place += int(seconds * _BILLION)
            child.end(end_time=place)
