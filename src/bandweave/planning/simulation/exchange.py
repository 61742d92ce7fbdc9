"""The exchange among many nodes, message by message: what the formula of ``costs.exchange`` cannot
know. Pure.

Everybody sends to everybody. A node's messages leave one after the other, each takes its time on
the way, which varies, and a node's port takes in one after the other too. The exchange is over
when the last message has arrived at the last node: with n nodes the slowest of n (n - 1) decides.

The formula was measured with few nodes. So what is played here is taken relative to two nodes, and
multiplies the formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bandweave.planning.costs.deployment import Deployment
from bandweave.planning.machines.rates import LinkRates

#: The time of a message on its way: log-normal, its 99th percentile twice its median.
_SIGMA = math.log(2) / 2.326
_MOST_ROUNDS, _MESSAGES = 64, 4_000_000  # that are played
_FEW = 8  # up to so many nodes the formula alone
_MOST_NODES = 1024


@dataclass(frozen=True, kw_only=True)
class Played:
    """Seconds of an exchange among ``nodes``."""

    nodes: int
    mean_s: float
    p99_s: float


def play_exchange(
    link: LinkRates,
    nodes: int,
    size_bytes: float,
    *,
    two_step: bool,
    shared_port: bool = True,
    seed: int = 0,
) -> Played:
    """Plays some exchanges of ``size_bytes`` from each node. ``two_step``: the quicker of one hop
    and of two, in each of which a node sends a part of it to everybody."""
    if not 2 <= nodes <= _MOST_NODES:
        raise ValueError(f"an exchange is played among 2 to {_MOST_NODES} nodes, not {nodes}")
    rounds = max(8, min(_MOST_ROUNDS, _MESSAGES // nodes**2))
    times = _hops(link, nodes, size_bytes, shared_port, rounds, seed)
    if two_step and nodes > 2:
        part = size_bytes / nodes
        twice = _hops(link, nodes, part, shared_port, rounds, seed + 1) + _hops(
            link, nodes, part, shared_port, rounds, seed + 2
        )
        times = min(times, twice, key=lambda one: float(one.mean()))
    return Played(nodes=nodes, mean_s=float(times.mean()), p99_s=float(np.quantile(times, 0.99)))


def crowd_factor(deployment: Deployment, rows: int) -> float:
    """What an exchange of the largest tensor split takes beyond the formula, as a factor; 1 where
    few take part, or where links of single pairs differ."""
    nodes = max(len(stage.nodes) for stage in deployment.stages)
    network = deployment.network
    if nodes <= _FEW or nodes > _MOST_NODES or network.links:
        return 1.0
    size = max(1, rows) * deployment.model.hidden * deployment.engine.wire_bytes_per_value
    factors = []
    for count in (2, nodes):
        shown = play_exchange(
            network.default, count, size,
            two_step=deployment.engine.two_step_exchange, shared_port=network.shared_port,
        )  # fmt: skip
        factors.append(shown.mean_s / _without_chance(deployment, count, size))
    return max(1.0, factors[1] / factors[0])


def _without_chance(deployment: Deployment, nodes: int, size_bytes: float) -> float:
    """The formula for equal links."""
    link, network = deployment.network.default, deployment.network
    peers = nodes - 1

    def hop(size: float) -> float:
        carried = link.transfer_s(size, "likely") * (peers if network.shared_port else 1)
        return link.latency_s.likely + peers * link.message_s.likely + carried

    one = hop(size_bytes)
    two = 2 * hop(size_bytes / nodes)
    return min(one, two) if deployment.engine.two_step_exchange else one


def _hops(
    link: LinkRates, nodes: int, size_bytes: float, shared_port: bool, rounds: int, seed: int
) -> np.ndarray:
    """Seconds of each of ``rounds`` hops, everybody to everybody."""
    random = np.random.default_rng([seed, nodes])
    peers = nodes - 1
    each = link.transfer_s(size_bytes, "likely")
    occupied = link.message_s.likely + (each if shared_port else 0.0)
    sent = occupied * np.arange(1, peers + 1) + (0.0 if shared_port else each)
    latency = link.latency_s.likely
    found = np.empty(rounds)
    # A node sends to its neighbours first: what the k-th message of all is is another node's k-th.
    for number in range(rounds):
        ways = latency * np.exp(_SIGMA * random.standard_normal((nodes, peers)))
        arrivals = np.sort(sent[None, :] + ways, axis=1)
        # One port in, too: message k is taken when it is there and the one before it is done.
        behind = occupied * np.arange(peers)
        ends = np.maximum.accumulate(arrivals - behind[None, :], axis=1) + behind[None, :]
        found[number] = ends[:, -1].max()
    return found
