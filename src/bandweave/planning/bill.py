"""Bill: where the time of a predicted step goes, node by node. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
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
