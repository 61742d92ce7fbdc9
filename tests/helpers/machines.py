"""Machines that do not exist, for tests of the status and the page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bandweave.cluster.health import ClusterHealth, NodeHealth
from bandweave.cluster.recoveries import Recovery
from bandweave.engine.engine import NodeStatistics
from bandweave.messages import EngineState
from bandweave.programs.split import Split
from bandweave.serving.status.machines import Expected, Look, Machines

STEP_SECONDS = 0.05


def pretend_machines(nodes: int = 2) -> Machines:
    """Their accounts grow with the clock: steps of ``STEP_SECONDS`` that carry on two answers."""
    begun = time.monotonic()

    def look() -> Look:
        now = time.monotonic()
        return accounts(100 + int((now - begun) / STEP_SECONDS), nodes, now)

    plan = {
        "nodes": [
            {
                "name": f"node {rank}" + (f" (10.0.0.{rank + 1}:9000)" if rank else ""),
                "stage": 0, "layers": [0, 22], "heads": [rank * 8, rank * 8 + 8],
                "kv_heads": [rank, rank + 1], "columns": [rank * 1408, (rank + 1) * 1408],
                "columns_by_width": {}, "vocabulary": [0, 32000],
                "weight_bytes": 310_000_000 - 20_000_000 * rank, "kv_bytes": 92_000_000,
                "work_bytes": 24_000_000, "threads": 2, "isa": "avx512_vnni",
                "fetch_ahead_bytes": 0,
            }
            for rank in range(nodes)
        ],
        "stages": 1, "format": "q4", "kv_format": "f16", "wire": "exact", "emulated_link": None,
        "exact": True, "context": 4096, "content": {},
    }  # fmt: skip
    links = [
        {"nodes": [a, b], "transport": "tcp", "latency_seconds": 43e-6, "bytes_per_s": 1.16e9}
        for b in range(nodes) for a in range(b)
    ]  # fmt: skip
    return Machines(
        split=Split(shares=(), stages=(tuple(range(nodes)),)),
        plan=plan,
        links=links,
        look=look,
        expect=lambda streams, context: Expected(predicted=streams * 22.4, limit=streams * 31.0),
    )


def accounts(steps: int, nodes: int, at: float) -> Look:
    """What nodes have counted after so many steps of decoding."""
    items = {"weights": 0.55, "attention": 0.09, "exchange_wait": 0.06, "wire": 0.12, "other": 0.1}
    counted = ("rows", "weight_bytes", "activation_bytes", "logit_bytes", "control_bytes",
               "weight_wire_bytes", "kv_wire_bytes", "exchanges", "barriers", "steps", "wall",
               *items)  # fmt: skip
    told = []
    for rank in range(nodes):
        decode = {name: steps * part * STEP_SECONDS for name, part in items.items()}
        decode |= {"wall": sum(decode.values()), "steps": steps, "rows": 2 * steps}
        decode |= {"weight_bytes": 3e8 * steps, "activation_bytes": 9e4 * steps}
        decode |= {"logit_bytes": 64.0 * steps * (rank > 0), "control_bytes": 0.0}
        decode |= {"weight_wire_bytes": 0.0, "kv_wire_bytes": 0.0}
        told.append(
            NodeStatistics(
                name=f"node {rank}", prefill=dict.fromkeys(counted, 0.0),
                decode={**dict.fromkeys(counted, 0.0), **decode}, peak_rss_bytes=480_000_000,
            )
        )  # fmt: skip
    state = EngineState(
        running=2, waiting=0, pages=256, free_pages=180, kept_pages=12, preempted=0, steps=steps,
        seconds=steps * STEP_SECONDS, durations=(0,) * 12, read=0, written=2 * steps, ended=0,
    )  # fmt: skip
    return Look(state=state, nodes=told, at=at)


class PretendCluster:
    """Two groups of machines: one serves, one has lost a machine; beside them a spare one. Two
    recoveries, of which one has just begun."""

    nodes: Sequence[object] = ()
    num_recoveries = 7

    def health(self) -> ClusterHealth:
        def one(node: int, group: int, state: str = "serving", **more: Any) -> NodeHealth:
            name = f"group {group}, node {node} (10.0.{group}.{node + 1}:7101)"
            return NodeHealth(node=node, name=name, group=group, state=state, **more)

        lost = "node 1 (10.0.1.2:7101) made no progress for 5.0 s"
        return ClusterHealth(
            nodes=(
                one(0, 0, stage=0, share=0.6),
                one(1, 0, stage=0, share=0.4, slowed=2.5),
                one(2, 0, "spare"),
                one(0, 1, "loading"),
                one(1, 1, "missing", reason=lost),
            )
        )

    def recoveries(self) -> Sequence[Recovery]:
        failed = Recovery(
            node="group 0, node 1", cause="node 1 was killed by SIGKILL", at=1.8e9, noticed_s=0.01,
            planned_s=0.04, loaded_s=0.2, prefilled_s=0.15, nodes_before=3, nodes_after=2,
            streams=4, over=True,
        )  # fmt: skip
        hung = "node 1 (10.0.1.2:7101) made no progress for 5.0 s"
        begun = Recovery(node="group 1, node 1", cause=hung, at=1.8e9 + 60, noticed_s=5.02,
                         nodes_before=2, streams=9)  # fmt: skip
        return failed, begun

    def group_states(self) -> list[dict[str, Any]]:
        return [
            {"group": group, "serves": not group, "streams": 4 - 4 * group, "unread_tokens": 0,
             "nodes": [], "recoveries_total": 1, "reason": ""}
            for group in range(2)
        ]  # fmt: skip
