"""Doubts: whether a split would still pay over a link at the slow end of its range. Pure."""

from __future__ import annotations

from dataclasses import replace

from bandweave import figures
from bandweave.planning.costs.software import software_title
from bandweave.planning.machines.links import find_link
from bandweave.planning.machines.ports import most_cabled, remote_memory_link
from bandweave.planning.machines.rates import Estimate, LinkRates
from bandweave.planning.search.columns import Machines, best_answer
from bandweave.planning.search.explain import split_phrase
from bandweave.planning.search.layout import Question
from bandweave.planning.search.published import published_for
from bandweave.planning.search.search import Answer

_WORTH = 1.03  # by so much another link must be quicker, to be told
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


def untried_sentence(answer: Answer) -> str:
    """That nobody has published such a split over such a link, where that is so."""
    best = answer.best
    engine = best.deployment.engine
    if not engine.tensor_untried or all(len(stage) == 1 for stage in best.layout.stages):
        return ""
    return (
        f"Nobody has published a tensor split by {software_title(engine.name)} over "
        f"{best.deployment.network.default.name}: the range is a guess."
    )


def remote_memory_sentence(question: Question, machines: Machines, answer: Answer) -> str:
    """What the ports that these machines have would do by remote memory access, where that is
    quicker by more than a little; empty where it is not, or where a link does so already."""
    if len(machines.hardware) < 2 or machines.pairs or len(machines.links) != 1:
        return ""
    name = remote_memory_link(machines.links[0].name, machines.hardware)
    if name is None:
        return ""
    other = best_answer(question, replace(machines, links=(find_link(name),)))
    if other is None or answer.best.seconds < _WORTH * other.best.seconds:
        return _measured_over(name, question, machines, answer)
    return (
        f"Over {name}, which these ports have too, it would be "
        f"{software_title(other.setup.engine.name)}: {split_phrase(other, other.best)}, "
        f"{answer.best.seconds / other.best.seconds:.2f} times as fast."
    )


def _measured_over(name: str, question: Question, machines: Machines, answer: Answer) -> str:
    """That others measured more over a link than is predicted without it; empty where not."""
    found = published_for(question.model, question.weights, machines.hardware)
    speeds = [each.decode_tokens_per_s for each in found
              if each.link == name and each.streams == question.streams
              and each.decode_tokens_per_s is not None]  # fmt: skip
    most, predicted = max(speeds, default=0.0), answer.best.decode.tokens_per_s
    if question.objective != "decode" or most < _WORTH * predicted:
        return ""
    return (
        f"Over {name}, which these ports have too, others measured more than is predicted here: "
        f"{figures.figure(most)} tokens/s."
    )


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
