"""Doubts: whether a split would still pay over a link at the slow end of its range. Pure."""

from __future__ import annotations

from dataclasses import replace

from bandweave.planning.machines.ports import most_cabled
from bandweave.planning.machines.rates import Estimate, LinkRates
from bandweave.planning.search.columns import Machines
from bandweave.planning.search.search import Answer

_MEDIA = {
    "wifi": "All machines share one Wi-Fi channel, and each frame crosses it twice, up to the "
    "access point and down again",
    "powerline": "All adapters share the house's wiring",
    "moca": "All adapters share the coaxial cable",
    "hub": "All machines share the hub's one wire",
}


def doubt_sentence(answer: Answer) -> str:
    """What is to be said of the link where several machines are the best plan, or would have been
    over another one; empty where there is nothing."""
    network = answer.best.deployment.network
    channel = answer.setup.networks[0].default.channel
    words = []
    if channel and len(answer.setup.nodes) > 1:
        medium = _MEDIA.get(channel, "All machines share one medium")
        words.append(f"{medium}: what all of them send adds up.")
    if len(answer.best.machines) > 1 and answer.single is not None:
        slow = replace(
            network,
            default=_slow(network.default),
            links={pair: _slow(link) for pair, link in network.links.items()},
        )
        plan = answer.best
        deployment = replace(plan.deployment, network=slow)
        seconds = replace(plan, deployment=deployment).seconds
        gain = answer.single.seconds / seconds
        if gain < 1.0:
            words.append(
                f"That is not certain: where {network.default.name} is as slow as it is at some "
                f"people's, the split is {gain:.2f} times as fast as the one machine."
            )
    return " ".join(words)


def cables_sentence(machines: Machines) -> str:
    """Where there are more machines than each has sockets for a cable to every other."""
    for link in machines.links:
        try:
            most = most_cabled(link.name, machines.hardware)
        except ValueError:  # a user's own
            continue
        if most is not None and len(machines.hardware) > most:
            return (
                f"By {link.name} at most {most} of these machines can each have a cable to all "
                "others, so no tensor split is wider."
            )
    return ""


def _slow(link: LinkRates) -> LinkRates:
    return replace(
        link,
        latency_s=Estimate.exactly(link.latency_s.high),
        bytes_per_s=Estimate.exactly(link.bytes_per_s.low),
        message_s=Estimate.exactly(link.message_s.high),
    )
