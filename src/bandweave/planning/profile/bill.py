"""Bill: where the time of a predicted step goes, node by node. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ITEMS = ("weights", "attention", "exchange_wait", "wire", "sampling", "other")
WIRE_KINDS = ("activations", "logits", "control", "weights", "kv")


@dataclass(frozen=True, kw_only=True)
class Bill:
    """A step: seconds by node and item, with ``"wall"`` their sum; ``weight_bytes`` read by node;
    ``wire_bytes`` by kind over all nodes, headers of messages included."""

    seconds: tuple[Mapping[str, float], ...]
    weight_bytes: tuple[int, ...]
    wire_bytes: Mapping[str, int]

    @property
    def wall(self) -> float:
        """Seconds of the step, on node 0's clock."""
        return self.seconds[0]["wall"]

    @property
    def busy(self) -> list[float]:
        """Seconds that each node works, and waits for no other one."""
        return [items["wall"] - items["exchange_wait"] for items in self.seconds]


def bill_the_link(
    seconds: Sequence[Mapping[str, float]], stages: Sequence[Sequence[int]]
) -> tuple[dict[str, float], ...]:
    """Nodes' seconds, with what they all wait for under ``wire``.

    A node that sends sees its bytes gone once its own system has taken them, and then waits; the
    same goes for its peer. A wait that another node's work explains is a wait for that node. What
    no node's work explains (the wall time less the busiest node of every stage, one stage after
    the other) is the link's: its latency, its bytes, and what it had to send again.
    """
    wall = seconds[0]["wall"]
    busy = [wall - one["exchange_wait"] for one in seconds]
    unexplained = max(0.0, wall - sum(max(busy[node] for node in stage) for stage in stages))
    result = []
    for one in seconds:
        link = min(one["exchange_wait"], unexplained)
        wait, wire = one["exchange_wait"] - link, one["wire"] + link
        result.append({**one, "exchange_wait": wait, "wire": wire})
    return tuple(result)
