"""Why a plan won, what limits it, and what would help, from an Answer. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from bandweave import figures
from bandweave.planning.costs.beside import placement_phrase
from bandweave.planning.costs.deployment import Network
from bandweave.planning.costs.layer_cost import Items
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.rates import ComputeRate, LinkRates, NodeRates
from bandweave.planning.search.layout import Question, Setup
from bandweave.planning.search.search import Answer, Plan, evaluate, find_plans

#: Items in the words of the reports: a short name, and what it is when it is too long.
ITEMS = {
    "weights_s": ("weights", "reading weights from memory"),
    "compute_s": ("arithmetic", "arithmetic"),
    "attention_s": ("attention", "attention over the cache"),
    "overhead_s": ("fixed", "the engine's fixed time of each layer"),
    "exchange_latency_s": ("latency", "waiting for the link's latency"),
    "exchange_bytes_s": ("bytes", "bytes on the link"),
    "handover_s": ("handover", "handing over between stages"),
}
_CROSSING = "crossing to the cards and back"  # what one machine has in the place of a link
_FEWER_BITS = (("f32", "bf16"), ("bf16", "q8"), ("f16", "q8"), ("fp8", "q4"), ("q8", "q4"))
_ANEW = 16
_REPLANNED = ("one more", "twice the memory,")
_SEARCHED = 4  # up to so many machines a change may change the plan, else the plan stays


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What one change would do. ``factor``: of the speed; 1 is nothing."""

    change: str
    factor: float


def item_times(items: Items) -> list[tuple[str, float]]:
    """Short names and seconds of what takes time, in the order of a step."""
    times = [(ITEMS[field.name][0], getattr(items, field.name)) for field in fields(Items)]
    return [(name, seconds) for name, seconds in times if seconds > 0]


def plan_items(plan: Plan) -> Items:
    """The items of what the objective counts."""
    question = plan.question
    if question.objective == "prefill":
        return plan.prefill.items
    if question.objective == "decode":
        return plan.decode.items
    token = plan.decode.period_s / plan.decode.streams / plan.decode.step_s
    return plan.prefill.items.plus(plan.decode.items.times(question.answer * token))


def limiting_sentence(answer: Answer) -> str:
    """The item that takes most, and its part."""
    items = plan_items(answer.best)
    name = max(ITEMS, key=lambda key: getattr(items, key))
    part = getattr(items, name) / items.total_s
    latency = items.exchange_latency_s + items.handover_s
    alone = len(answer.best.machines) == 1
    reason = _CROSSING if alone and name == "handover_s" else ITEMS[name][1]
    words = f"Limited by {reason}: {part:.0%} of the time."
    if alone:
        crossing = (latency + items.exchange_bytes_s) / items.total_s
        if name != "handover_s" and crossing > 0:
            words += f" {_CROSSING.capitalize()} takes {crossing:.0%}."
        return words
    if name != "exchange_latency_s" and latency > 0:
        carried = items.exchange_bytes_s / items.total_s
        words += (
            f" The link takes {(latency + items.exchange_bytes_s) / items.total_s:.0%}: "
            f"{latency / items.total_s:.1%} for its latency, {carried:.1%} for bytes."
        )
    return words


def verdict_sentence(answer: Answer) -> str:
    """The best plan beside the best machine alone."""
    names, best, single = answer.setup.nodes, answer.best, answer.single
    if len(best.machines) == 1:
        if len(names) == 1:
            return ""
        split = next((plan for plan in answer.plans if len(plan.machines) > 1), None)
        less = (
            ""
            if split is None
            else (
                f": the best split reaches {split_phrase(answer, split)}, "
                f"{best.seconds / split.seconds:.0%} of its speed"
            )
        )
        return f"One machine is faster: {names[best.machines[0]].name} alone{less}."
    count = len(best.machines)
    if single is None:
        return f"No single machine here holds the model; {count} together do."
    return (
        f"{count} machines are {single.seconds / best.seconds:.2f} times as fast as the best one "
        f"alone ({names[single.machines[0]].name}, {speed_phrase(single)})."
    )


def runner_up_sentence(answer: Answer) -> str:
    """What came second, and the item that it lost by."""
    best, second = answer.best, answer.runner_up
    if second is None:
        return ""
    ours, theirs = plan_items(best), plan_items(second)
    period = best.decode.step_s < best.decode.period_s or second.decode.step_s < (
        second.decode.period_s
    )
    lost = max(ITEMS, key=lambda key: getattr(theirs, key) - getattr(ours, key))
    more = getattr(theirs, lost) - getattr(ours, lost)
    words = f"Second: {split_phrase(answer, second)}"
    if best.question.streams > 1 and (period or more <= 0):
        return f"{words}."
    if more <= 0:
        return f"{words}, as good as equal."
    return f"{words}; it loses {figures.seconds(more)} by {ITEMS[lost][1]}."


def left_out_sentences(answer: Answer) -> list[str]:
    """Which machines the plan does without, and what they would do to it."""
    left = answer.left_out
    if not left:
        return []
    counts: dict[str, int] = {}
    for node in left:
        counts[answer.setup.nodes[node].name] = counts.get(answer.setup.nodes[node].name, 0) + 1
    names = " and ".join(f"{n} x {name}" if n > 1 else name for name, n in counts.items())
    words = f"Left out: {names}."
    everyone = answer.with_all
    elsewhere = {node.name: None for number, node in enumerate(answer.setup.nodes)
                 if not answer.setup.runs_on(number)}  # fmt: skip
    if elsewhere:
        return [f"{words} The software does not run on {' and '.join(elsewhere)}."]
    if everyone is None:
        return [f"{words} No split over all of them fits, or the software has none."]
    ours, theirs = plan_items(answer.best), plan_items(everyone)
    lost = max(ITEMS, key=lambda key: getattr(theirs, key) - getattr(ours, key))
    more = getattr(theirs, lost) - getattr(ours, lost)
    reason = f", because of {ITEMS[lost][1]} (+{figures.seconds(more)})" if more > 0 else ""
    return [f"{words} With all machines it would be {speed_phrase(everyone)}{reason}."]


def split_phrase(answer: Answer, plan: Plan) -> str:
    """``tensor split over 2 machines, 21.3 tokens/s``."""
    return f"{layout_phrase(plan)}, {speed_phrase(plan)}"


def layout_phrase(plan: Plan) -> str:
    """What a plan is, in words."""
    count, stages = len(plan.machines), len(plan.layout.stages)
    whole = ", experts whole" if plan.layout.whole_experts else ""
    return {
        "one": _one_phrase(plan),
        "tensor": f"tensor split over {count} machines{whole}",
        "pipeline": f"pipeline of {count} machines",
        "mixed": f"pipeline of {stages} stages over {count} machines, tensor inside{whole}",
    }[plan.kind]


def _one_phrase(plan: Plan) -> str:
    if plan.deployment.nodes[0].host is None:
        return "one machine"
    return f"one machine, {placement_phrase(plan.deployment, 0)}"


def speed_phrase(plan: Plan) -> str:
    """The speed that the objective asks for."""
    if plan.question.objective == "decode":
        return f"{figures.figure(plan.decode.tokens_per_s)} tokens/s"
    if plan.question.objective == "prefill":
        return f"{figures.figure(plan.prefill.tokens_per_s)} prompt tokens/s"
    return f"{figures.seconds(plan.seconds)} a request"


def sensitivities(answer: Answer) -> list[Sensitivity]:
    """What single changes would bring, the most helpful first."""
    question, setup, best = answer.question, answer.setup, answer.best
    several = len(setup.nodes) > 1
    uniform = not any(network.links for network in setup.networks)
    changes: list[tuple[str, Question, Setup]] = [
        ("twice the memory bandwidth", question, _nodes(setup, _twice_bandwidth)),
        ("twice the FLOP/s", question, _nodes(setup, _twice_flops)),
        ("half the engine's fixed time", question, _nodes(setup, _half_overhead)),
    ]
    if several:
        changes += [
            ("half the link's latency", question, _links(setup, _half_latency)),
            ("twice the link's bandwidth", question, _links(setup, _twice_link)),
        ]
    changes.append(("twice the memory, same bandwidth", question, _nodes(setup, _twice_memory)))
    fewer = dict(_FEWER_BITS).get(question.weights.name)
    if fewer is not None:
        weights = find_format(fewer)
        changes.append((f"fewer bits: {fewer}", replace(question, weights=weights), setup))
    if uniform and setup.networks[0].default.name != "none":
        more = setup.with_more(setup.nodes[best.machines[0]])
        changes.append((f"one more {setup.nodes[best.machines[0]].name}", question, more))
    result = []
    if len(setup.nodes) > _ANEW:
        changes = [
            each for each in changes if not each[0].startswith(("one more", "twice the memory,"))
        ]
    for name, asked, changed in changes:
        # More memory and more machines show only in another plan.
        anew = len(setup.nodes) <= _ANEW and name.startswith(_REPLANNED)
        if (len(setup.nodes) <= _SEARCHED and uniform) or anew:
            near = None if len(setup.nodes) <= _SEARCHED else _near_sets(best, changed)
            found = find_plans(asked, changed, near)
            seconds = best.seconds if found is None else found.best.seconds
        else:
            seconds = _same_plan(best, asked, changed).seconds
        result.append(Sensitivity(change=name, factor=best.seconds / seconds))
    return sorted(result, key=lambda each: -each.factor)


def _near_sets(plan: Plan, changed: Setup) -> list[tuple[int, ...]] | None:
    """Of many unlike machines those sets that a change may make the best: the plan's own, fewer of
    them, with what was added, and each machine alone. None for all, where machines are alike."""
    if all(node == changed.nodes[0] for node in changed.nodes):
        return None
    own = plan.machines
    added = [node for node in [len(changed.nodes) - 1] if node not in own]
    sets = [own[:count] for count in range(1, len(own) + 1)]
    sets += [(*own, *added), *((node,) for node in range(len(changed.nodes)))]
    return list(dict.fromkeys(sets))


def _same_plan(plan: Plan, question: Question, setup: Setup) -> Plan:
    networks = [network for network in setup.networks
                if network.default.name == plan.deployment.network.default.name]  # fmt: skip
    return evaluate(question, setup, (networks or list(setup.networks))[0], plan.layout)


def _nodes(setup: Setup, change: Callable[[NodeRates], NodeRates]) -> Setup:
    return replace(setup, nodes=tuple(change(node) for node in setup.nodes))


def _links(setup: Setup, change: Callable[[LinkRates], LinkRates]) -> Setup:
    def changed(network: Network) -> Network:
        links = {pair: change(link) for pair, link in network.links.items()}
        return replace(network, default=change(network.default), links=links)

    return replace(setup, networks=tuple(changed(network) for network in setup.networks))


def _twice_bandwidth(node: NodeRates) -> NodeRates:
    rates = {name: rate.times(2) for name, rate in node.weight_bytes_per_s.items()}
    return _with_host(
        replace(node, weight_bytes_per_s=rates, kv_bytes_per_s=node.kv_bytes_per_s.times(2)),
        _twice_bandwidth,
    )


def _twice_flops(node: NodeRates) -> NodeRates:
    def twice(compute: ComputeRate) -> ComputeRate:
        return ComputeRate(points=tuple((rows, rate.times(2)) for rows, rate in compute.points))

    changed = replace(
        node,
        compute={name: twice(compute) for name, compute in node.compute.items()},
        expert_compute=None if node.expert_compute is None else twice(node.expert_compute),
        attention_flop_per_s=node.attention_flop_per_s.times(2),
    )
    return _with_host(changed, _twice_flops)


def _half_overhead(node: NodeRates) -> NodeRates:
    experts = node.expert_layer_overhead_s
    changed = replace(
        node,
        layer_overhead_s=node.layer_overhead_s.times(0.5),
        expert_layer_overhead_s=None if experts is None else experts.times(0.5),
        step_overhead_s=node.step_overhead_s.times(0.5),
    )
    return _with_host(changed, _half_overhead)


def _twice_memory(node: NodeRates) -> NodeRates:
    changed = replace(node, memory_bytes=node.memory_bytes * 2)
    if changed.host is None:
        return changed
    return replace(changed, host=replace(changed.host, card_bytes=changed.host.card_bytes * 2))


def _with_host(node: NodeRates, change: Callable[[NodeRates], NodeRates]) -> NodeRates:
    """With the same change of the processor beside its cards."""
    if node.host is None:
        return node
    return replace(node, host=replace(node.host, node=change(node.host.node)))


def _half_latency(link: LinkRates) -> LinkRates:
    return replace(link, latency_s=link.latency_s.times(0.5), message_s=link.message_s.times(0.5))


def _twice_link(link: LinkRates) -> LinkRates:
    return replace(link, bytes_per_s=link.bytes_per_s.times(2))
