"""The time of one exchange: every node of a stage adds up, or gets, what all of them have.

Knows links and sizes; knows no models. Two algorithms, the quicker one counts:

- one hop: everybody sends all of it to everybody. ``latency + (n-1) (message + bytes/rate)``;
- two steps: reduce-scatter, then all-gather, each sending 1/n of it to everybody:
  ``2 latency + 2 (n-1) (message + bytes/n/rate)``.

An engine may choose by bytes instead: two steps where they save more than ``hop_bytes``.

These are the alpha-beta costs of direct exchange (Thakur, Rabenseifner and Gropp 2005,
"Optimization of Collective Communication Operations in MPICH").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bandweave.planning.costs.deployment import Network


@dataclass(frozen=True, kw_only=True)
class ExchangeTime:
    """Seconds: what a tiny message would take too, and what the bytes add."""

    latency_s: float
    bytes_s: float

    @property
    def total_s(self) -> float:
        return self.latency_s + self.bytes_s


NO_EXCHANGE = ExchangeTime(latency_s=0.0, bytes_s=0.0)


def exchange(
    network: Network,
    nodes: Sequence[int],
    size_bytes: float,
    case: str,
    *,
    two_step: bool = True,
    hop_bytes: float = 0.0,
) -> ExchangeTime:
    """One all-reduce (or all-gather of equal parts) of ``size_bytes`` over the nodes."""
    if len(nodes) < 2:
        return NO_EXCHANGE
    one = _round(network, nodes, size_bytes, case)
    if not two_step:
        return one
    half = _round(network, nodes, size_bytes / len(nodes), case)
    two = ExchangeTime(latency_s=2 * half.latency_s, bytes_s=2 * half.bytes_s)
    if hop_bytes:
        saved = (len(nodes) - 1) * size_bytes * (1 - 2 / len(nodes))
        return two if saved > hop_bytes else one
    return min(one, two, key=lambda time: time.total_s)


def broadcast(
    network: Network, source: int, targets: Sequence[int], size_bytes: float, case: str
) -> ExchangeTime:
    """One node sends the same to each of the others."""
    targets = [target for target in targets if target != source]
    return _send(network, source, targets, size_bytes, case) if targets else NO_EXCHANGE


def _round(network: Network, nodes: Sequence[int], size_bytes: float, case: str) -> ExchangeTime:
    # Where all links are alike one node's sends are everybody's.
    senders = nodes if network.links else nodes[:1]
    sends = [
        _send(network, node, [peer for peer in nodes if peer != node], size_bytes, case)
        for node in senders
    ]
    return max(sends, key=lambda time: time.total_s)


def _send(
    network: Network, source: int, targets: Sequence[int], size_bytes: float, case: str
) -> ExchangeTime:
    links = [network.link(source, target) for target in targets]
    # The processor handles messages one after the other; the last one out arrives last.
    busy = sum(link.message_s.time(case) for link in links)
    latency = max(link.latency_s.time(case) for link in links)
    transfers = [link.transfer_s(size_bytes, case) for link in links]
    carried = sum(transfers) if network.shared_port else max(transfers)
    return ExchangeTime(latency_s=latency + busy, bytes_s=carried)
