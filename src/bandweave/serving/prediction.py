"""What to expect of the engine, from the stored profile; and the shares that it picks.

Knows profiles and options; measures nothing but where ``quick_profile`` is asked for.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.checkpoints.folder import Folder
from bandweave.engine.lineup import Lineup
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import local_threads
from bandweave.environment import read_environment
from bandweave.generation.request import Timing
from bandweave.mesh.address import format_address, parse_address
from bandweave.models.registry import build_graph
from bandweave.planning.profile.bill import Bill as PredictedBill
from bandweave.planning.profile.emulation import EmulatedLink
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.planning.profile.link_profile import LinkProfile
from bandweave.planning.profile.prediction import Load, Prediction, choose_shares, predict
from bandweave.planning.profile.profile import HERE, HERE_TCP, Profile
from bandweave.programs.split import Split
from bandweave.serving.profile_store import read_profile, why_stale

_NOISE = 1.25  # between looks at machines of one kind, beyond which it is spoken of
_TYPICAL = Load(prompt_tokens=256, new_tokens=128)  # what shares are chosen for


Remark = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """The machines and links of a split, ready to predict; see ``find_predictor``."""

    nodes: tuple[EngineNode, ...]
    links: dict[tuple[int, int], LinkProfile]

    def link(self, a: int, b: int) -> LinkProfile:
        return self.links[min(a, b), max(a, b)]

    def predict(self, folder: Folder, split: Split, load: Load) -> Prediction:
        """``ValueError`` where the profiles lack the format."""
        return predict(build_graph(folder.spec), split, self.nodes, self.link, load)


def stored_profile() -> Profile:
    """The user's profile, empty where it cannot be used: a prediction is not worth an error."""
    try:
        return read_profile(read_environment().profile)
    except ValueError:
        return Profile()


def quick_profile(options: EngineOptions) -> Profile:
    """A few seconds' look at this machine, for the options' format and number of nodes."""
    from bandweave.probing.links import Schedule
    from bandweave.probing.machine import quick_scope
    from bandweave.probing.session import probe_here

    return probe_here(
        nodes=min(2, len(options.shares)),
        isa=options.run.isa,
        scope=quick_scope(options.run.weight_format, options.run.kv_format),
        schedule=Schedule(num_nodes=2, rounds=3) if len(options.shares) > 1 else None,
    )


def find_predictor(profile: Profile, options: EngineOptions) -> Predictor | None:
    """None where the profile does not know a machine or link of the split, or is stale."""
    names = [format_address(parse_address(host)) for host in options.hosts]
    names = names or [HERE] * len(options.shares)
    nodes = []
    for name in names:
        machine = profile.machines.get(name)
        if machine is None or why_stale(name, machine):
            return None
        if options.run.weight_format not in machine.formats:
            return None
        if options.run.isa and machine.isa != options.run.isa:
            return None
        threads = local_threads(options) if name == HERE else options.threads or machine.cpus
        host = name.rsplit(":", 1)[0]
        nodes.append(EngineNode(machine=machine, threads=threads, host=host))
    links = {}
    for b, second in enumerate(names):
        for a, first in enumerate(names[:b]):
            link = _link(profile, first, second, options.emulate)
            if link is None:
                return None
            links[a, b] = link
    return Predictor(nodes=tuple(nodes), links=links)


def _link(
    profile: Profile, first: str, second: str, emulate: EmulatedLink | None
) -> LinkProfile | None:
    """The link between two nodes of the split, None where it was not measured."""
    if emulate is None:
        return profile.link(first, second)
    own = profile.links.get(HERE_TCP)
    return None if own is None else emulate.behind(own)


def choose_split(
    folder: Folder, options: EngineOptions, remark: Remark = lambda sentence: None
) -> EngineOptions:
    """Options with the shares that decode fastest, with a remark, where the user leaves them to us
    and the machines differ; else the options as they are."""
    if not options.fit or len(options.shares) < 2:
        return options
    predictor = find_predictor(stored_profile(), options)
    if predictor is None:
        return options
    load = dataclasses.replace(
        _TYPICAL, weight_format=options.run.weight_format, kv_format=options.run.kv_format
    )
    graph, nodes = build_graph(folder.spec), levelled(predictor.nodes, options.hosts, remark)
    choice = choose_shares(graph, nodes, predictor.link, load, stages=options.stages)
    if choice.gain > 1.0:
        shares = ",".join(str(share) for share in choice.shares)
        remark(
            f"shares {shares}: the machines' profiles promise {100 * (choice.gain - 1):.0f}% more "
            "tokens/s than equal ones (--shares chooses others)"
        )
    return dataclasses.replace(options, shares=choice.shares)


def levelled(nodes: Sequence[EngineNode], names: Sequence[str], remark: Remark) -> list[EngineNode]:
    """Machines of one kind are as fast as each other, whatever one noisy look at them said: each
    counts as the fastest of its kind. Says so where their profiles disagree by much."""
    result = []
    for node, name in zip(nodes, names, strict=True):
        alike = [other for other in nodes if _kind(other) == _kind(node)]
        best = max(alike, key=_read_rate)
        if _read_rate(best) > _NOISE * _read_rate(node):
            times = _read_rate(best) / _read_rate(node)
            remark(
                f"({name} read its memory {times:.1f} times slower when it was probed than a "
                "machine of the same kind, and counts as fast as that one; `bandweave probe` looks "
                "again, --shares decides)"
            )
        result.append(dataclasses.replace(node, machine=best.machine))
    return result


def _kind(node: EngineNode) -> tuple[object, ...]:
    one = node.machine
    gigabytes = round(one.memory_bytes / 1e9)
    return one.processor, one.isa, one.cpus, gigabytes, one.cache_bytes, one.formats, node.threads


def _read_rate(node: EngineNode) -> float:
    return node.machine.read_bytes_per_s(node.threads)


def predict_answers(
    predictor: Predictor | None,
    folder: Folder,
    lineup: Lineup,
    timings: Sequence[Timing],
    *,
    logits: bool = False,
) -> Prediction | None:
    """What answers of these lengths were to be expected to take; None where nothing is known.
    ``logits``: every choice looked at all of them."""
    if predictor is None or not timings or len(predictor.nodes) != len(lineup.nodes):
        return None
    options = lineup.options
    load = Load(
        prompt_tokens=round(statistics.fmean(timing.prompt_tokens for timing in timings)),
        reused_tokens=round(statistics.fmean(timing.reused_tokens for timing in timings)),
        new_tokens=1 + round(statistics.fmean(timing.decode_tokens for timing in timings)),
        weight_format=options.run.weight_format,
        kv_format=options.run.kv_format,
        max_rows=options.run.max_rows,
        logits=logits,
    )
    # The nodes know best how many threads they took.
    nodes = tuple(
        dataclasses.replace(node, threads=info.threads)
        for node, info in zip(predictor.nodes, lineup.nodes, strict=True)
    )
    return dataclasses.replace(predictor, nodes=nodes).predict(folder, lineup.split, load)


def limit_tokens_per_s(predictor: Predictor, split: Split, prediction: Prediction) -> float:
    """Tokens/s of all streams if a step did nothing but read its weights, at the rate of a plain
    read by all threads of a machine, and messages took no time. ``inf`` where nothing is read."""
    seconds = 0.0
    for stage in split.stages:  # one after the other
        hosts: dict[str, list[int]] = {}
        for node in stage:
            hosts.setdefault(predictor.nodes[node].host, []).append(node)
        seconds += max(
            sum(prediction.decode.weight_bytes[node] for node in nodes)
            / predictor.nodes[nodes[0]].machine.read_bytes_per_s(
                sum(predictor.nodes[node].threads for node in nodes)
            )
            for nodes in hosts.values()
        )
    return prediction.load.streams / seconds if seconds > 0 else math.inf


def prediction_json(prediction: Prediction | None) -> dict[str, Any] | None:
    """The fields that a measurement has, as predicted."""
    if prediction is None:
        return None
    bill = prediction.decode
    return {
        "decode_tokens_per_s": prediction.decode_tokens_per_s,
        "prefill_tokens_per_s": prediction.prefill_tokens_per_s,
        "weight_bytes_per_token": sum(bill.weight_bytes),
        "weight_bytes_per_token_by_node": list(bill.weight_bytes),
        "wire_bytes_per_token": dict(bill.wire_bytes),
        "bill": bill_json(bill),
    }


def bill_json(bill: PredictedBill) -> dict[str, Any]:
    """As ``report.Bill.to_json``."""
    nodes = [{"name": f"node {i}", **seconds} for i, seconds in enumerate(bill.seconds)]
    return {**bill.seconds[0], "nodes": nodes}
