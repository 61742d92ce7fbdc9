"""Predicted beside measured: many combinations of model, format, split, link and context.

Every round measures the links between nodes of this machine; every combination runs between two
short probes of the machine: so both see it as it is at the time, and as it becomes. Knows what is
combined; the predictions are those of the commands.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from bandweave.checkpoints.folder import Folder
from bandweave.engine.machine import usable_cpus
from bandweave.engine.probe.machine import Scope, quick_scope
from bandweave.engine.probe.session import probe_here
from bandweave.models.registry import build_graph
from bandweave.planning.emulation import emulated_link
from bandweave.planning.engine_node import EngineNode
from bandweave.planning.link_profile import LinkProfile
from bandweave.planning.prediction import Load, Prediction, predict
from bandweave.planning.profile import HERE, HERE_SHARED, HERE_TCP, Profile
from bandweave.planning.record import to_json
from bandweave.planning.server import ProbedServer
from bandweave.planning.split import make_split
from benchmarks import contestant
from benchmarks.contestant import Contestant, Sample
from benchmarks.models import Model, Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Point, Result, Series
from benchmarks.rounds import say
from benchmarks.statistics import estimate

LINKS = ("ethernet-10g", "thunderbolt-4-tcp")  # emulated
_LOCAL = ""
_SHORT, _LONG = 128, 4096  # tokens of a prompt
_NEAR = 0.95  # of the best speed: as good as the best
_SAMPLES = 3
_DECODE, _PREFILL = "decode_tokens_per_s", "prefill_tokens_per_s"
_SPEEDS = {"decode": _DECODE, "prefill": _PREFILL}


@dataclass(frozen=True, kw_only=True)
class Combination:
    """What runs: ``link`` is the name of an emulated link, empty for nodes that share memory; there
    are as many nodes as ``shares``; a node alone has all threads unless ``lone``: then one."""

    model: Model
    format: str = "q4"
    shares: tuple[int, ...] = (1,)
    stages: int = 1
    link: str = _LOCAL
    prompt_tokens: int = _SHORT
    lone: bool = False

    @property
    def name(self) -> str:
        words = [self.model.shape, self.format]
        if len(self.shares) == 1:
            words.append("1 thread" if self.lone else "1 node")
        else:
            kind = "stages" if self.stages > 1 else "tensor"
            words.append(f"{':'.join(map(str, self.shares))} {kind}")
        if self.link:
            words.append(self.link)
        return f"{' '.join(words)}, {self.prompt_tokens}"

    @property
    def threads(self) -> int:
        """Of each node."""
        if self.link or self.lone:
            return 1
        return max(1, len(usable_cpus()) // len(self.shares))

    def same_task(self, other: Combination) -> bool:
        """Whether a planner chooses between the two: only the split differs."""
        alike = replace(other, shares=self.shares, stages=self.stages, lone=self.lone)
        linked = self.link == other.link or _LOCAL in (self.link, other.link)
        return linked and replace(alike, link=self.link) == self


def combinations(scale: Scale) -> list[Combination]:
    """Those of an experiment: three sizes, two formats, all kinds of splits, links, contexts."""
    small, medium, large = three_sizes(scale)
    long = next((tokens for tokens in scale.contexts if tokens >= _LONG), _SHORT)
    found = [
        *(Combination(model=model) for model in (small, medium, large)),
        *(Combination(model=model, shares=(1, 1)) for model in (small, medium, large)),
        Combination(model=large, shares=(3, 1)),
        Combination(model=large, shares=(1, 1), stages=2),
        Combination(model=medium, format="q8"),
        Combination(model=medium, format="q8", shares=(1, 1)),
        Combination(model=large, format="q8", shares=(3, 1), stages=2),
        Combination(model=large, prompt_tokens=long),
        Combination(model=large, shares=(1, 1), prompt_tokens=long),
        Combination(model=medium, shares=(3, 1), prompt_tokens=long),
        Combination(model=large, lone=True),
    ]
    for link in LINKS:
        found += [
            Combination(model=large, shares=(1, 1), link=link),
            Combination(model=medium, shares=(1, 1), link=link),
            Combination(model=large, shares=(1, 1), stages=2, link=link),
        ]
    return list({one.name: one for one in found}.values())  # small ones may be alike


def three_sizes(scale: Scale) -> tuple[Model, Model, Model]:
    """Dense models, from small to large."""
    sizes = list(scale.sizes)
    if len(sizes) < 3:  # quick
        return sizes[0], sizes[0], sizes[-1]
    return (
        Model(shape="smollm2-135m"),
        Model(shape="qwen3-0.6b", changes={"context": 8192}),
        Model(shape="tinyllama-1.1b", changes={"context": 8192}),
    )


@dataclass(kw_only=True)
class _Found:
    """``speeds[kind]`` and ``expected[kind]`` of every round; kinds as in ``_SPEEDS``."""

    speeds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in _SPEEDS})
    expected: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in _SPEEDS})

    def add(self, sample: Sample, predictions: Sequence[Prediction]) -> None:
        """``predictions``: from the probes before and after; their mean time counts."""
        for kind, name in _SPEEDS.items():
            self.speeds[kind].append(sample[name])
            promised = [getattr(prediction, name) for prediction in predictions]
            self.expected[kind].append(statistics.harmonic_mean(promised))

    def error(self, kind: str) -> float:
        """Per cent by which the prediction misses the speed: the median over the rounds."""
        pairs = zip(self.expected[kind], self.speeds[kind], strict=True)
        return statistics.median(100 * abs(there / here - 1) for there, here in pairs)


def run(store: Store, scale: Scale) -> Result:
    chosen = combinations(scale)
    found = {one.name: _Found() for one in chosen}
    count = max(2, scale.rounds // 2)
    rounds: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        say(f"prediction: round {number} of {count}: probing the links")
        scope = _short_scope(chosen[0])
        latest = probe_here(nodes=2, scope=scope)
        rounds.append({"links": to_json(latest.links)})
        for one in chosen:
            say(f"prediction: round {number} of {count}: {one.name}")
            if _short_scope(one) != scope:
                scope = _short_scope(one)
                latest = latest.joined(probe_here(scope=scope))
            profiles = [latest]
            sample = _measure(store, scale, one)
            profiles.append(latest := latest.joined(probe_here(scope=scope)))
            promised = [_predict(store, scale, one, profile) for profile in profiles]
            found[one.name].add(sample, promised)
            machines = [to_json(profile.machines[HERE]) for profile in profiles]
            rounds.append({"name": one.name, "sample": sample, "machines": machines})
    picks = [_pick(task, found) for task in _tasks(chosen)]
    return Result(
        experiment="prediction",
        title="Predicted beside measured",
        figures=[*_figures(found), *([_picked(picks)] if picks else [])],
        series=[_series(kind, found) for kind in _SPEEDS],
        notes=(
            "A combination's error is the median over the rounds of |predicted / measured - 1|; "
            "the runs of a combination lie between two probes of some seconds, whose predicted "
            "times are averaged; links are probed once a round. Nodes of one host share memory; "
            "links by name are emulated, and their predictions add the link's latency and rate to "
            "what the probe found of TCP on this machine.",
            *(words for words, _ in picks),
        ),
        rounds=[*rounds, {name: vars(one) for name, one in found.items()}],
    )


# --- a round ---


def _short_scope(one: Combination) -> Scope:
    """What a prediction of this combination needs, in some seconds."""
    return replace(quick_scope(one.format, "f16"), together=(1, 4, 8))


def _work(scale: Scale, one: Combination) -> Work:
    return Work(prompt_tokens=one.prompt_tokens, new_tokens=scale.new_tokens)


def runner_of(store: Store, one: Combination, work: Work, *, streams: int = 1) -> Contestant:
    """What runs a combination, with places for ``streams`` answers."""
    return contestant.bandweave(
        store.folder(one.model), context=work.context, nodes=len(one.shares),
        threads=one.threads, format=one.format, streams=streams, shares=one.shares,
        stages=one.stages, link=one.link, name=one.name,
    )  # fmt: skip


def server_of(store: Store, one: Combination, profile: Profile) -> ProbedServer:
    """A combination by what was probed."""
    with Folder.open(store.folder(one.model)) as folder:
        graph = build_graph(folder.spec)
    node = EngineNode(machine=profile.machines[HERE], threads=one.threads, host=HERE)
    link = _link_profile(profile, one.link)
    return ProbedServer(
        graph=graph,
        split=make_split(graph.spec, tuple(map(Fraction, one.shares)), stages=one.stages),
        nodes=[node] * len(one.shares),
        links=lambda a, b: link,
        weight_format=one.format,
    )


def _measure(store: Store, scale: Scale, one: Combination) -> Sample:
    work = _work(scale, one)
    runner = runner_of(store, one, work)
    found: dict[str, list[float]] = {name: [] for name in _SPEEDS.values()}
    with runner.start() as running:
        running.sample(replace(work, prompt_tokens=_SHORT))
        for number in range(_SAMPLES):
            # A long prompt is read once: it takes most of a minute.
            again = replace(work, keep=number > 0 and one.prompt_tokens > _SHORT)
            sample = running.sample(again)
            found[_DECODE].append(sample[_DECODE])
            if not again.keep:
                found[_PREFILL].append(sample[_PREFILL])
    return {name: statistics.median(values) for name, values in found.items()}


def _predict(store: Store, scale: Scale, one: Combination, profile: Profile) -> Prediction:
    load = Load(
        prompt_tokens=one.prompt_tokens, new_tokens=scale.new_tokens, weight_format=one.format
    )
    server = server_of(store, one, profile)
    return predict(server.graph, server.split, server.nodes, server.links, load)


def _link_profile(profile: Profile, name: str) -> LinkProfile:
    """What joins nodes of this machine: an emulated link by name, or shared memory."""
    if name == _LOCAL:
        return profile.links[HERE_SHARED]
    return emulated_link(name).behind(profile.links[HERE_TCP])


# --- what came of it ---


def _figures(measured: Mapping[str, _Found]) -> list[Figure]:
    figures = []
    for kind in _SPEEDS:
        errors = [one.error(kind) for one in measured.values()]
        figures.append(
            Figure(title=f"{kind}: error of the prediction, median over combinations",
                   estimate=estimate(errors), unit="%", at_most=10.0)
        )  # fmt: skip
        figures.append(
            Figure(title=f"{kind}: the worst combination", estimate=estimate([max(errors)]),
                   unit="%", at_most=25.0)
        )  # fmt: skip
    return figures


def _tasks(chosen: Sequence[Combination]) -> list[list[Combination]]:
    """Combinations between which a planner chooses: on this machine, and over each link, where
    the choice is also to leave the other machine out."""
    tasks = []
    for link in dict.fromkeys(one.link for one in chosen):
        seen: list[Combination] = []
        for one in chosen:
            if one.link != link or any(one.same_task(other) for other in seen):
                continue
            seen.append(one)
            task = [
                other
                for other in chosen
                if one.same_task(other) and (other.link == link or other.lone)
            ]
            if link == _LOCAL:
                task = [other for other in task if not other.lone]
            if len(task) > 1:
                tasks.append(task)
    return tasks


def _pick(task: Sequence[Combination], measured: Mapping[str, _Found]) -> tuple[str, float]:
    """What the prediction would choose, in words, and its speed over the fastest's."""

    def speed(one: Combination) -> float:
        return statistics.median(measured[one.name].speeds["decode"])

    def promise(one: Combination) -> float:
        return statistics.median(measured[one.name].expected["decode"])

    picked, best = max(task, key=promise), max(task, key=speed)
    part = speed(picked) / speed(best)
    words = f"Of {len(task)} splits it picks {picked.name}, {100 * part:.0f}% of the fastest"
    return f"{words} ({best.name}).", part


def _picked(picks: Sequence[tuple[str, float]]) -> Figure:
    good = 100.0 * statistics.fmean(part >= _NEAR for _, part in picks)
    return Figure(
        title=f"split picked by prediction is within 5% of the fastest, of {len(picks)} tasks",
        estimate=estimate([good]), unit="%", at_least=100.0,
    )  # fmt: skip


def _series(kind: str, measured: Mapping[str, _Found]) -> Series:
    points = []
    for name, one in measured.items():
        points.append(Point(name="predicted", x=name, estimate=estimate(one.expected[kind])))
        points.append(Point(name="measured", x=name, estimate=estimate(one.speeds[kind])))
    return Series(
        title=f"{kind}, predicted and measured", axis="model, format, split, link, prompt",
        unit="tokens/s", points=tuple(points),
    )  # fmt: skip
