"""Metrics: the status as Prometheus reads it. Names and units are in docs/serving.md.

The stems are those that boards for other servers know; the prefix is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from bandweave.cluster.health import STATES
from bandweave.generation.state import STEP_BOUNDS
from bandweave.serving.status.counting import Distribution
from bandweave.serving.status.status import Status

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "bandweave_"

_GAUGES = {
    "num_requests_running": ("running", "Answers that are being computed."),
    "num_requests_waiting": ("waiting", "Answers that wait for room."),
    "queued_requests": ("queued_requests", "Requests without a token of their answer yet."),
    "queued_tokens": ("queued_tokens", "Prompt tokens of the requests without an answer yet."),
    "steps_in_flight": (
        "steps_in_flight", "Steps that the model's stages compute at a time, each of a group."),
    "kv_pages": ("pages", "Pages of the KV cache."),
    "kv_pages_used": ("pages_used", "Pages of the KV cache that answers under way hold."),
    "kv_pages_kept": ("pages_kept", "Free pages whose content may be wanted again."),
    "tokens_per_second": ("tokens_per_s", "Tokens per second over the last seconds."),
    "prompt_tokens_per_second": (
        "prompt_tokens_per_s", "Prompt tokens computed per second over the last seconds."),
    "measured_tokens_per_second": (
        "measured_tokens_per_s", "Tokens per second while nothing but answers was computed."),
    "predicted_tokens_per_second": (
        "predicted_tokens_per_s", "Tokens per second that the machines' profiles promise."),
    "limit_tokens_per_second": (
        "limit_tokens_per_s", "Tokens per second if memory were read without a pause."),
}  # fmt: skip
_COUNTERS = {
    "prefix_cache_queries": (
        "prefix_cache_queries_total", "Prompt tokens that were looked up in the prefix cache."),
    "prefix_cache_hits": (
        "prefix_cache_hits_total", "Prompt tokens that were found in the prefix cache."),
    "num_preemptions": ("preemptions_total", "Answers that gave way and were computed again."),
    "prompt_tokens": ("prompt_tokens_total", "Prompt tokens of answers that have begun."),
    "computed_prompt_tokens": ("computed_prompt_tokens_total", "Prompt tokens that were computed."),
    "generation_tokens": ("generated_tokens_total", "Tokens of answers."),
}  # fmt: skip
_SUCCESS = ("stop", "length", "tool_calls")


class Collector:
    """Makes Prometheus's families from one look at the status."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        seen = self._status.look()
        for name, (field, text) in _GAUGES.items():
            if (value := seen[field]) is not None:
                yield GaugeMetricFamily(PREFIX + name, text, value=value)
        pages = seen["pages"]
        fill = seen["pages_used"] / pages if pages else 0.0
        yield GaugeMetricFamily(
            PREFIX + "kv_cache_usage_perc", "Part of the KV cache in use; 1 is all.", value=fill
        )
        up = GaugeMetricFamily(PREFIX + "up", "Whether the engine answers.", value=seen["ready"])
        yield up
        for name, (field, text) in _COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, text, value=seen[field])
        yield from self._outcomes()
        registry = self._status.registry
        for name, text, one in (
            ("time_to_first_token_seconds", "From a request to an answer's first token.",
             registry.first_token),
            ("inter_token_latency_seconds", "Between two tokens of an answer.",
             registry.between_tokens),
            ("e2e_request_latency_seconds", "From a request to an answer's end.", registry.whole),
            ("request_queue_time_seconds", "From a request to its first step.", registry.queue),
        ):  # fmt: skip
            yield _histogram(name, text, one)
        yield self._steps()
        yield from self._recoveries(seen)

    def _outcomes(self) -> Iterator[Metric]:
        every = CounterMetricFamily(
            PREFIX + "requests", "Answers and refusals, by protocol and outcome.",
            labels=["protocol", "outcome"],
        )  # fmt: skip
        success = CounterMetricFamily(
            PREFIX + "request_success", "Answers that came to their end, by its reason.",
            labels=["finished_reason"],
        )  # fmt: skip
        ended = dict.fromkeys(_SUCCESS, 0)
        for (protocol, outcome), count in sorted(self._status.registry.outcomes.items()):
            every.add_metric([protocol, outcome], count)
            if outcome in ended:
                ended[outcome] += count
        for reason, count in ended.items():
            success.add_metric([reason], count)
        yield every
        yield success

    def _recoveries(self, seen: dict[str, Any]) -> Iterator[Metric]:
        """Of failures, machines that joined and shares that changed; the times of the last one."""
        yield CounterMetricFamily(
            PREFIX + "recoveries", "Times that other nodes, or other shares, went on.",
            value=seen["recoveries_total"],
        )  # fmt: skip
        times = GaugeMetricFamily(
            PREFIX + "last_recovery_seconds", "Of the last one, by its parts.", labels=["part"]
        )
        for one in seen["recoveries"][-1:]:
            for part, seconds in one["seconds"].items():
                times.add_metric([part], seconds)
        yield times
        states = GaugeMetricFamily(
            PREFIX + "nodes", "Machines, or processes of this one, by their state.",
            labels=["state"],
        )  # fmt: skip
        for state in STATES:
            count = sum(one["state"] == state for one in seen["members"])
            states.add_metric([state], count)
        yield states
        serves = GaugeMetricFamily(
            PREFIX + "group_serves", "1 where a group of machines answers.", labels=["group"]
        )
        streams = GaugeMetricFamily(
            PREFIX + "group_streams", "Answers that a group of machines has.", labels=["group"]
        )
        for one in seen["groups"]:
            serves.add_metric([str(one["group"])], float(one["serves"]))
            streams.add_metric([str(one["group"])], one["streams"])
        yield serves
        yield streams
        yield GaugeMetricFamily(
            PREFIX + "standby_bytes", "Of weights that nodes hold ready beside their shares.",
            value=sum(seen["standby"]["num_bytes"]) if seen["standby"] else 0,
        )  # fmt: skip
        yield GaugeMetricFamily(
            PREFIX + "outage_seconds", "For which nobody could hold the model; 0 where one can.",
            value=seen["outage"]["seconds"] if seen["outage"] else 0.0,
        )  # fmt: skip

    def _steps(self) -> Metric:
        """The engine counts its steps by their duration itself."""
        steps = Distribution(STEP_BOUNDS)
        state = self._status.state
        if state is not None:
            steps.counts, steps.sum = list(state.durations), state.seconds
        return _histogram("step_duration_seconds", "Of one step of the engine.", steps)


def _histogram(name: str, text: str, one: Distribution) -> Metric:
    below = list(accumulate(one.counts))
    ends: Sequence[str] = [*map(str, one.bounds), "+Inf"]
    return HistogramMetricFamily(
        PREFIX + name, text, buckets=list(zip(ends, below, strict=True)), sum_value=one.sum
    )


def metrics(status: Status) -> bytes:
    """What Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(status))  # type: ignore[arg-type]
    return generate_latest(registry)
