"""Accounts: what the nodes' accounts say of the last seconds, while somebody wants to know.

Nodes are asked in threads that end with their answers, for an answer may take as long as a step.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import Any

from bandweave.engine.bill import StepBill, make_step_bill
from bandweave.serving.status.machines import Expected, Look, Machines

_SECONDS = 2.0  # between two looks
_CONTEXT_STEP = 256  # expectations are made for multiples of so many tokens
_LOG = logging.getLogger("bandweave.serving")


class Accounts:
    """Fed by ``wanted``. ``bill``: of the last seconds in which there was decoding, None before;
    ``busy``: which part of the last seconds each node worked and did not wait."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.bill: StepBill | None = None
        self.busy: tuple[float, ...] = ()
        self.peak_rss_bytes: tuple[int, ...] = ()
        self.expected: Expected | None = None
        self._before: Look | None = None
        self._known: dict[tuple[int, int], Expected | None] = {}
        self._looking = False
        self._due = 0.0

    def wanted(self, now: float, context: float) -> None:
        """Somebody wants to know; streams have so many tokens of context on average. ``now``:
        seconds of a clock that only grows."""
        if not self._looking and now >= self._due:
            self._looking, self._due = True, now + _SECONDS
            thread = threading.Thread(
                target=self._run, args=(context,), name="status-accounts", daemon=True
            )
            thread.start()

    def _run(self, context: float) -> None:
        try:
            self._compare(self.machines.look(), context)
        except (OSError, RuntimeError):
            pass  # the engine has failed, or is closed: the sampler tells of that
        except Exception:
            _LOG.exception("the nodes' accounts cannot be read")
        finally:
            self._looking = False

    def _compare(self, new: Look, context: float) -> None:
        old, self._before = self._before, new
        self.peak_rss_bytes = tuple(node.peak_rss_bytes for node in new.nodes)
        if old is None or len(old.nodes) != len(new.nodes) or new.state.steps < old.state.steps:
            return
        seconds = max(1e-9, new.at - old.at)
        worked = [
            sum(_worked(getattr(after, kind)) - _worked(getattr(before, kind))
                for kind in ("prefill", "decode"))
            for before, after in zip(old.nodes, new.nodes, strict=True)
        ]  # fmt: skip
        self.busy = tuple(min(1.0, max(0.0, one / seconds)) for one in worked)
        split = self.machines.split
        bill = make_step_bill(split, old.nodes, new.nodes, old.state, new.state)
        if bill is not None:
            self.bill = bill
            streams = bill.rows * max(1, new.state.in_flight)  # a step has a group of them
            self.expected = self._expect(max(1, round(streams)), context)

    def _expect(self, streams: int, context: float) -> Expected | None:
        key = (streams, max(1, math.ceil(context / _CONTEXT_STEP)))
        if key not in self._known:
            self._known[key] = self.machines.expect(streams, key[1] * _CONTEXT_STEP)
        return self._known[key]

    @property
    def measured(self) -> float | None:
        """Tokens a second of all streams, while nothing but answers was computed."""
        if self.bill is None or not self.bill.seconds[0]["wall"]:
            return None
        return self.bill.rows / self.bill.seconds[0]["wall"]

    def bill_json(self) -> dict[str, Any] | None:
        bill = self.bill
        if bill is None:
            return None
        nodes = [
            {"name": name, **seconds}
            for name, seconds in zip(bill.names, bill.seconds, strict=True)
        ]
        return {
            "steps": bill.steps,
            "streams": bill.rows,
            "nodes": nodes,
            "wire_bytes": dict(bill.wire_bytes),
            "weight_bytes": list(bill.weight_bytes),
        }


def _worked(account: dict[str, float]) -> float:
    return account["wall"] - account["exchange_wait"]
