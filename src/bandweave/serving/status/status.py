"""Status: all that is known of what goes on, in one place; page, JSON and metrics say nothing else.

Every figure is documented in docs/serving.md.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bandweave.messages import EngineState
from bandweave.serving.answers.answering import Account
from bandweave.serving.answers.ask import Ask
from bandweave.serving.status.accounts import Accounts
from bandweave.serving.status.counting import Rate
from bandweave.serving.status.feed import Feed
from bandweave.serving.status.machines import Machines
from bandweave.serving.status.recoveries import Recovering, cluster_json
from bandweave.serving.status.registry import Live, Registry
from bandweave.serving.status.service import Service

if TYPE_CHECKING:
    from bandweave.serving.status.tracing import Tracing

_LOG = logging.getLogger("bandweave.serving")
TICK_SECONDS = 0.5
_WANTED_SECONDS = 10.0  # for which one question keeps the nodes' accounts coming
_IDLE_SECONDS = 60.0  # after which nobody is told anything, and nothing looks


class Status:
    """Looks twice a second while anything goes on or anybody wants to know, in a thread of its
    own. The ``service`` may have no model yet."""

    def __init__(self, service: Service, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._service, self._clock = service, clock
        self.registry = Registry(clock)
        self.feed = Feed()
        self._accounts: Accounts | None = None
        self._find: Callable[[], Machines] | None = None
        self._found_for: tuple[object, object] = (None, None)
        self._cluster: Recovering | None = None
        self._reading, self._steps, self._step_seconds = Rate(), Rate(), Rate()
        self._begun = clock()
        self._wanted = -math.inf
        self._awake = False
        self._lock = threading.Lock()  # of awake
        self.tracing: Tracing | None = None  # where a collector hears of every request

    def begin(
        self, ask: Ask, *, protocol: str, key: str, model: str, headers: Mapping[str, str]
    ) -> Account:
        """A request was asked; the account hears what becomes of it. ``headers``: its own."""
        live = self.registry.begin(ask, protocol=protocol, key=key)
        if self.tracing is None:
            return live
        return self.tracing.follow(live, ask, protocol=protocol, model=model, headers=headers)

    def show(self, machines: Callable[[], Machines], cluster: Recovering | None = None) -> None:
        """How to find the machines to tell of; they are sought anew when the service, or the
        ``cluster``, goes on with others."""
        self._cluster = cluster
        self._find, self._found_for = machines, (None, None)

    def want(self) -> None:
        """Somebody looks: the nodes are asked for their accounts for some seconds."""
        self._wanted = self._clock()
        self.wake()

    def wake(self) -> None:
        """Something goes on."""
        if self._awake:
            return
        with self._lock:
            if not self._awake:
                self._awake = True
                threading.Thread(target=self._run, name="status", daemon=True).start()

    def tick(self) -> None:
        """Looks at all that has a rate, and tells whoever listens."""
        now = self._clock()
        self.registry.tick()
        self._find_machines()
        state, sampler = self.state, self._service.sampler
        if state is not None and sampler is not None:
            self._reading.see(sampler.at, state.read)
            self._steps.see(sampler.at, state.steps)
            self._step_seconds.see(sampler.at, state.seconds)
        if self.feed.listeners:
            self._wanted = now
        if self._accounts is not None and now < self._wanted + _WANTED_SECONDS:
            self._accounts.wanted(now, self._mean_context())
        if self.feed.listeners:
            self.feed.publish(self.look())

    @property
    def state(self) -> EngineState | None:
        """What the engine last said."""
        sampler = self._service.sampler
        return None if sampler is None else sampler.latest()

    @property
    def is_new(self) -> bool:
        """Whether there is an engine that has not said anything yet."""
        sampler = self._service.sampler
        return sampler is not None and self.state is None and not sampler.failure

    def look(self) -> dict[str, Any]:
        """What goes on, as ``GET /v1/status`` gives it."""
        self._find_machines()
        return {**self._server(), **self._counts(), **self._speeds(), **self._machines(),
                **cluster_json(self._cluster), "streams": self._streams()}  # fmt: skip

    def _find_machines(self) -> None:
        sampler = self._service.sampler
        found_for = sampler, getattr(self._cluster, "nodes", None)
        if self._find is None or sampler is None:
            return
        if all(old is new for old, new in zip(self._found_for, found_for, strict=True)):
            return
        self._found_for = found_for
        self._accounts = Accounts(self._find())

    # --- parts of it ---

    def _server(self) -> dict[str, Any]:
        from bandweave import __version__

        served, trouble = self._service.served, self._service.trouble()
        return {
            "object": "status",
            "version": __version__,
            "time": round(time.time(), 3),
            "uptime_seconds": round(self._clock() - self._begun, 1),
            "model": None if served is None else served.name,
            "context": None if served is None else served.context,
            "ready": not trouble,
            "reason": trouble,
        }

    def _counts(self) -> dict[str, Any]:
        registry, served, state = self.registry, self._service.served, self.state
        found = registry.cached_tokens, registry.looked_up_tokens
        return {
            "running": state.running if state else 0,
            "waiting": state.waiting if state else 0,
            "queued_requests": served.admission.waiting if served else 0,
            "queued_tokens": served.admission.waiting_tokens if served else 0,
            "pages": state.pages if state else 0,
            "pages_used": state.pages - state.free_pages if state else 0,
            "pages_kept": state.kept_pages if state else 0,
            "steps_in_flight": state.in_flight if state else 0,
            "preemptions_total": state.preempted if state else 0,
            "steps_total": state.steps if state else 0,
            "requests_total": sum(registry.outcomes.values()),
            "prompt_tokens_total": registry.prompt_tokens,
            "computed_prompt_tokens_total": state.read if state else 0,
            "generated_tokens_total": registry.generated_tokens,
            "prefix_cache_hits_total": found[0],
            "prefix_cache_queries_total": found[1],
            "prefix_cache_hit_rate": _rounded(found[0] / found[1]) if found[1] else None,
        }

    def _speeds(self) -> dict[str, Any]:
        accounts = self._accounts
        expected = accounts.expected if accounts else None
        steps = self._steps.per_s
        return {
            "tokens_per_s": _rounded(self.registry.generating.per_s),
            "prompt_tokens_per_s": _rounded(self._reading.per_s),
            "step_seconds": _rounded(self._step_seconds.per_s / steps) if steps else None,
            "measured_tokens_per_s": _rounded(accounts.measured) if accounts else None,
            "predicted_tokens_per_s": _rounded(expected.predicted) if expected else None,
            "limit_tokens_per_s": _rounded(expected.limit) if expected else None,
            "bill": accounts.bill_json() if accounts else None,
        }

    def _machines(self) -> dict[str, Any]:
        accounts = self._accounts
        if accounts is None:
            return {"nodes": [], "links": []}
        plan = accounts.machines.plan
        whole = sum(node["weight_bytes"] for node in plan["nodes"]) or 1
        nodes = []
        for rank, node in enumerate(plan["nodes"]):
            live = {"share": _rounded(node["weight_bytes"] / whole), "busy": None,
                    "peak_rss_bytes": None}  # fmt: skip
            if rank < len(accounts.busy):
                live["busy"] = _rounded(accounts.busy[rank])
            if rank < len(accounts.peak_rss_bytes):
                live["peak_rss_bytes"] = accounts.peak_rss_bytes[rank]
            nodes.append({**node, **live})
        told = ("stages", "format", "kv_format", "wire", "exact", "emulated_link")
        return {
            **{name: plan[name] for name in told},
            "nodes": nodes,
            "links": list(accounts.machines.links),
        }

    def _streams(self) -> list[dict[str, Any]]:
        now, served = self._clock(), self._service.served
        context = served.context if served else 1
        return [
            {
                "id": live.number,
                "protocol": live.protocol,
                "key": live.key,
                "phase": live.phase,
                "seconds": round(now - live.since, 1),
                "prompt_tokens": live.prompt,
                "read_tokens": live.read,
                "cached_tokens": live.cached,
                "generated_tokens": live.generated,
                "answers": live.choices,
                "context_fill": _rounded(_length(live) / context),
                "tokens_per_s": _rounded(live.rate.per_s) if live.rate.known else None,
            }
            for live in list(self.registry.live.values())
        ]

    def _mean_context(self) -> float:
        lengths = [_length(live) for live in list(self.registry.live.values())]
        return sum(lengths) / len(lengths) if lengths else 1.0

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            try:
                self.tick()
            except Exception:  # the next look may tell more
                _LOG.exception("the status cannot be told")
            with self._lock:
                idle = not self.registry.live and not self.feed.listeners
                if idle and self._clock() > self._wanted + _IDLE_SECONDS:
                    self._awake = False
                    return


def _length(live: Live) -> int:
    """Tokens of context that a request's longest answer has."""
    return (live.prompt if live.generated else live.read) + live.longest


def _rounded(value: float | None) -> float | None:
    """Four figures; None for what JSON cannot say."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
