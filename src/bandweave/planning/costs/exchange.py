"""The time of one exchange: every node of a stage adds up, or gets, what all of them have.

Knows links and sizes; knows no models. Two algorithms, the quicker one counts:

- one hop: everybody sends all of it to everybody. ``latency + (n-1) (message + bytes/rate)``;
- two steps: reduce-scatter, then all-gather, each sending 1/n of it to everybody:
  ``2 latency + 2 (n-1) (message + bytes/n/rate)``.

An engine may choose by bytes instead: two steps where they save more than ``hop_bytes``.

These are the alpha-beta costs of direct exchange (Thakur, Rabenseifner and Gropp 2005,
"Optimization of Collective Communication Operations in MPICH"). They hold where nodes send at once
without meeting: over cables, or a switch. On a shared medium (Wi-Fi, powerline, a hub) only one
frame travels at a time, so that the messages of all ``n (n-1)`` pairs add up, each as often as it
crosses the medium: twice over an access point. A half-duplex port carries what its node receives
too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bandweave.planning.costs.deployment import Network
from bandweave.planning.machines.rates import LinkRates


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
    if not targets:
        return NO_EXCHANGE
    own = _send(network, source, targets, size_bytes, case, ways=1)
    return _slowest([own, *_on_channels(network, [(source, t) for t in targets], size_bytes, case)])


def _round(network: Network, nodes: Sequence[int], size_bytes: float, case: str) -> ExchangeTime:
    # Where all links are alike one node's sends are everybody's.
    senders = nodes if network.links else nodes[:1]
    sends = [
        _send(network, node, [peer for peer in nodes if peer != node], size_bytes, case, ways=2)
        for node in senders
    ]
    if not network.links and not network.default.channel:
        return _slowest(sends)
    pairs = [(node, peer) for node in nodes for peer in nodes if peer != node]
    return _slowest([*sends, *_on_channels(network, pairs, size_bytes, case)])


def _send(
    network: Network,
    source: int,
    targets: Sequence[int],
    size_bytes: float,
    case: str,
    *,
    ways: int,
) -> ExchangeTime:
    """One node's sends; ``ways`` is 2 where it receives as much at the same time."""
    links = [network.link(source, target) for target in targets]
    # The processor handles messages one after the other; the last one out arrives last.
    busy = sum(link.message_s.time(case) for link in links)
    latency = max(link.latency_s.time(case) for link in links)
    transfers = [
        link.transfer_s(size_bytes, case) * (ways if link.half_duplex else 1) for link in links
    ]
    carried = sum(transfers) if network.shared_port else max(transfers)
    return ExchangeTime(latency_s=latency + busy, bytes_s=carried)


def _on_channels(
    network: Network, pairs: Sequence[tuple[int, int]], size_bytes: float, case: str
) -> list[ExchangeTime]:
    """What each shared medium takes for a message between each of the pairs, one after another."""
    by_channel: dict[str, list[LinkRates]] = {}
    for source, target in pairs:
        link = network.link(source, target)
        if link.channel:
            by_channel.setdefault(link.channel, []).append(link)
    return [
        ExchangeTime(
            latency_s=max(link.latency_s.time(case) for link in links)
            + sum(link.crossings * link.message_s.time(case) for link in links),
            bytes_s=sum(link.crossings * link.transfer_s(size_bytes, case) for link in links),
        )
        for links in by_channel.values()
    ]


def _slowest(times: Sequence[ExchangeTime]) -> ExchangeTime:
    return max(times, key=lambda time: time.total_s)
