"""Simulated beside measured: many requests at once, over links of several kinds.

Every round probes this machine, plays each crowd through event by event with what the probe found,
and then lets the engine answer the same requests: more than it has places for, so that some wait
and prompts share steps with answers.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bandweave.planning.profile.profile import Profile
from bandweave.planning.simulation.scenario import Scenario
from bandweave.planning.simulation.simulation import simulate
from bandweave.probing.machine import Scope
from bandweave.probing.session import probe_here
from benchmarks.combination import Combination, runner_of, server_of, three_sizes
from benchmarks.models import Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Point, Result, Series
from benchmarks.rounds import say
from benchmarks.statistics import estimate

_TURNS = 2  # requests for each place
_SPEED = "answer_tokens_per_s"


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """``streams`` places for answers, on nodes as a combination says."""

    nodes: Combination
    streams: int

    @property
    def name(self) -> str:
        return f"{self.nodes.name}, {self.streams} at once"


def crowds(scale: Scale) -> list[Crowd]:
    """One machine and two, tensor and stages, equal and 3:1, links where one or many gain."""
    _, medium, large = three_sizes(scale)
    alone = Combination(model=large)
    pair = Combination(model=large, shares=(1, 1))
    staged = replace(pair, stages=2)
    found = [
        Crowd(nodes=alone, streams=4),
        Crowd(nodes=pair, streams=4),
        Crowd(nodes=replace(pair, model=medium, shares=(3, 1)), streams=8),
        Crowd(nodes=staged, streams=4),
        *(Crowd(nodes=replace(pair, link="ethernet-10g"), streams=n) for n in (1, 4, 16)),
        Crowd(nodes=replace(pair, link="ethernet-1g"), streams=4),
        Crowd(nodes=replace(staged, link="ethernet-1g"), streams=4),
        *(Crowd(nodes=replace(pair, link="thunderbolt-4-tcp"), streams=n) for n in (1, 8)),
        Crowd(nodes=replace(staged, link="thunderbolt-4-tcp"), streams=8),
        Crowd(nodes=replace(pair, model=medium, link="wifi-6"), streams=8),
    ]
    return list({one.name: one for one in found}.values())  # small ones may be alike


@dataclass(kw_only=True)
class _Found:
    """Tokens a second of all answers together, prompts included, by round."""

    measured: list[float] = field(default_factory=list)
    simulated: list[float] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Per cent: the median over the rounds."""
        pairs = zip(self.simulated, self.measured, strict=True)
        return statistics.median(100 * abs(there / here - 1) for there, here in pairs)


def run(store: Store, scale: Scale) -> Result:
    chosen = crowds(scale)
    found = {one.name: _Found() for one in chosen}
    rounds: list[Any] = []
    count = max(2, scale.rounds // 2)
    for number in range(count):
        say(f"simulation: round {number + 1} of {count}: probing")
        profile = probe_here(nodes=2, scope=_scope(scale))
        for one in chosen:
            say(f"simulation: round {number + 1} of {count}: {one.name}")
            here = found[one.name]
            here.simulated.append(_simulate(store, scale, one, profile))
            here.measured.append(_measure(store, scale, one))
        rounds.append({"profile": profile.to_json()})
    errors = [one.error for one in found.values()]
    return Result(
        experiment="simulation",
        title="Simulated beside measured",
        figures=(
            Figure(title="tokens/s of many answers: error of the simulation, median over crowds",
                   estimate=estimate(errors), unit="%"),
            Figure(title="the worst crowd", estimate=estimate([max(errors)]), unit="%"),
        ),
        series=(_series(found),),
        notes=(
            f"{_TURNS} requests for each place, all there from the start; tokens of answers per "
            "second until the last has ended, reading prompts included. The simulation's service "
            "times are those of the profile; links by name are emulated, others are shared memory.",
        ),
        rounds=[*rounds, {name: vars(one) for name, one in found.items()}],
    )  # fmt: skip


def _scope(scale: Scale) -> Scope:
    scope = Scope(formats=("q4",), kv_formats=("f16",))
    return replace(scope, rounds=2) if len(scale.sizes) < 3 else scope


def _simulate(store: Store, scale: Scale, crowd: Crowd, profile: Profile) -> float:
    one = crowd.nodes
    scenario = Scenario(
        streams=crowd.streams,
        prompt=one.prompt_tokens,
        answer=scale.new_tokens,
        context=one.prompt_tokens + scale.new_tokens // 2,
        requests=_TURNS * crowd.streams,
        seconds=1e6,
    )
    return simulate([server_of(store, one, profile)], scenario).tokens_per_s


def _measure(store: Store, scale: Scale, crowd: Crowd) -> float:
    one = crowd.nodes
    work = Work(
        prompt_tokens=one.prompt_tokens,
        new_tokens=scale.new_tokens,
        streams=_TURNS * crowd.streams,
    )
    with runner_of(store, one, work, streams=crowd.streams).start() as running:
        running.sample(replace(work, streams=1))
        return running.sample(work)[_SPEED]


def _series(found: Mapping[str, _Found]) -> Series:
    points = []
    for name, one in found.items():
        points.append(Point(name="simulated", x=name, estimate=estimate(one.simulated)))
        points.append(Point(name="measured", x=name, estimate=estimate(one.measured)))
    return Series(
        title="many answers, simulated and measured",
        axis="model, format, split, link, prompt, answers", unit="tokens/s", points=tuple(points),
    )  # fmt: skip
