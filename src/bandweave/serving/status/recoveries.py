"""Recoveries, nodes' states and outages, as the status tells them. Knows a cluster, or an engine
that has nothing of the kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from bandweave.cluster.health import ClusterHealth
from bandweave.cluster.recoveries import Recovery
from bandweave.cluster.standby import StandbySummary

_SHOWN = 20
_PARTS = ("noticed", "waited", "planned", "loaded", "prefilled")


class Recovering(Protocol):
    """What goes on when nodes fail. See ``cluster.Cluster``."""

    @property
    def num_recoveries(self) -> int: ...

    def recoveries(self) -> Sequence[Recovery]: ...

    def health(self) -> ClusterHealth: ...


def recoveries_json(engine: object) -> list[dict[str, Any]]:
    """The last ones, oldest first; none of an engine that ends with its nodes."""
    find = getattr(engine, "recoveries", None)
    return [] if find is None else [_recovery(one) for one in find()[-_SHOWN:]]


def cluster_json(cluster: Recovering | None) -> dict[str, Any]:
    """``recoveries_total``, ``recoveries``, ``members`` with their states, the ``outage``, the
    ``groups``, and what is on ``standby``."""
    if cluster is None:
        return {"recoveries_total": 0, "recoveries": [], "members": [], "outage": None,
                "groups": [], "standby": None}  # fmt: skip
    health = cluster.health()
    outage = health.outage
    return {
        "recoveries_total": cluster.num_recoveries,
        "recoveries": recoveries_json(cluster),
        "members": [
            {
                "node": one.node,
                "name": one.name,
                "group": one.group,
                "stage": one.stage,
                "share": None if one.share is None else round(one.share, 4),
                "state": one.state,
                "silent_seconds": round(one.since, 1),
                "slowed": round(one.slowed, 2),
                "reason": one.reason,
            }
            for one in health.nodes
        ],
        "outage": None
        if outage is None
        else {
            "reason": outage.reason,
            "seconds": round(outage.seconds, 1),
            "retry_seconds": round(outage.retry, 1),
            "over_patience": outage.over_patience,
        },
        "groups": _groups(cluster),
        "standby": _standby(getattr(cluster, "standby", None)),
    }


def _groups(cluster: object) -> list[dict[str, Any]]:
    """None where there is one group."""
    find = getattr(cluster, "group_states", None)
    return [] if find is None else find()


def _standby(summary: StandbySummary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {
        "where": summary.where,
        "over": summary.over,
        "num_bytes": list(summary.num_bytes),
        "spared_seconds": round(summary.seconds, 3),
        "reasons": list(summary.reasons),
    }


def _recovery(one: Recovery) -> dict[str, Any]:
    return {
        "at": round(one.at, 3),
        "kind": one.kind,
        "node": one.node,
        "cause": one.cause,
        "seconds": {
            **{part: round(getattr(one, f"{part}_s"), 4) for part in _PARTS},
            "total": round(one.total_s, 4),
        },
        "nodes_before": one.nodes_before,
        "nodes_after": one.nodes_after,
        "newcomers": list(one.newcomers),
        "retired": list(one.retired),
        "streams": one.streams,
        "over": one.over,
    }
