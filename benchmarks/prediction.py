"""Predicted beside measured: many combinations of model, format, split, link and context.

Every round measures the links between nodes of this machine; every combination runs between two
short probes of the machine: so both see it as it is at the time, and as it becomes. The predictions
are those of the commands.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bandweave.planning.profile.prediction import Load, Prediction, predict
from bandweave.planning.profile.profile import HERE, Profile
from bandweave.probing.machine import Scope, quick_scope
from bandweave.probing.session import probe_here
from bandweave.record import to_json
from benchmarks.combination import (
    LOCAL,
    SHORT,
    Combination,
    combinations,
    mixture_combinations,
    runner_of,
    server_of,
)
from benchmarks.contestant import Sample
from benchmarks.models import Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Point, Result, Series
from benchmarks.rounds import say
from benchmarks.statistics import estimate

_NEAR = 0.95  # of the best speed: as good as the best
_SAMPLES = 3
_DECODE, _PREFILL = "decode_tokens_per_s", "prefill_tokens_per_s"
_SPEEDS = {"decode": _DECODE, "prefill": _PREFILL}


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
    """Dense models."""
    return _run(store, scale, combinations(scale), "prediction", "Predicted beside measured", 10.0)


def run_mixtures(store: Store, scale: Scale) -> Result:
    """Mixtures of experts."""
    title = "Predicted beside measured: mixtures of experts"
    return _run(store, scale, mixture_combinations(scale), "prediction-mixtures", title, 12.0)


def _run(
    store: Store,
    scale: Scale,
    chosen: Sequence[Combination],
    experiment: str,
    title: str,
    at_most: float,
) -> Result:
    """``at_most``: per cent by which the median combination may be missed."""
    found = {one.name: _Found() for one in chosen}
    count = max(2, scale.rounds // 2)
    rounds: list[dict[str, Any]] = []
    probed: dict[str, list[Profile]] = {one.format: [] for one in chosen}
    for number in range(1, count + 1):
        say(f"prediction: round {number} of {count}: probing the links")
        scope = _short_scope(chosen[0])
        latest = probe_here(nodes=2, scope=scope)
        rounds.append({"links": to_json(latest.links)})
        for one in chosen if number % 2 else reversed(chosen):
            say(f"prediction: round {number} of {count}: {one.name}")
            if _short_scope(one) != scope:
                scope = _short_scope(one)
                latest = latest.joined(probe_here(scope=scope))
            profiles = [latest]
            sample = _measure(store, scale, one)
            profiles.append(latest := latest.joined(probe_here(scope=scope)))
            promised = [_predict(store, scale, one, profile) for profile in profiles]
            found[one.name].add(sample, promised)
            probed[one.format] += profiles
            machines = [to_json(profile.machines[HERE]) for profile in profiles]
            rounds.append({"name": one.name, "sample": sample, "machines": machines})
    promises = {
        one.name: statistics.harmonic_mean(
            _predict(store, scale, one, profile).decode_tokens_per_s
            for profile in probed[one.format]
        )
        for one in chosen
    }
    # As a planner has them that chooses: of all combinations from the same probes.
    picks = [_pick(task, found, promises) for task in _tasks(chosen)]
    return Result(
        experiment=experiment,
        title=title,
        figures=[*_figures(found, at_most), *([_picked(picks)] if picks else [])],
        series=[_series(kind, found) for kind in _SPEEDS],
        notes=(
            "A combination's error is the median over the rounds of |predicted / measured - 1|; "
            "the runs of a combination lie between two probes of some seconds, whose predicted "
            "times are averaged; links are probed once a round. Nodes of one host share memory; "
            "links by name are emulated, and their predictions add the link's latency and rate to "
            "what the probe found of TCP on this machine. A split is picked by what all probes "
            "together say of it, and compared with the others of its task within each round.",
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


def _measure(store: Store, scale: Scale, one: Combination) -> Sample:
    work = _work(scale, one)
    runner = runner_of(store, one, work)
    found: dict[str, list[float]] = {name: [] for name in _SPEEDS.values()}
    with runner.start() as running:
        running.sample(replace(work, prompt_tokens=SHORT))
        for number in range(_SAMPLES):
            # A long prompt is read once: it takes most of a minute.
            again = replace(work, keep=number > 0 and one.prompt_tokens > SHORT)
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


# --- what came of it ---


def _figures(measured: Mapping[str, _Found], at_most: float) -> list[Figure]:
    figures = []
    for kind in _SPEEDS:
        errors = [one.error(kind) for one in measured.values()]
        figures.append(
            Figure(title=f"{kind}: error of the prediction, median over combinations",
                   estimate=estimate(errors), unit="%", at_most=at_most)
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
            if link == LOCAL:
                task = [other for other in task if not other.lone]
            if len(task) > 1:
                tasks.append(task)
    return tasks


def _pick(
    task: Sequence[Combination], measured: Mapping[str, _Found], promises: Mapping[str, float]
) -> tuple[str, float]:
    """What the prediction would choose, in words, and its speed over the fastest's: a median of
    ratios, each within a round."""
    picked = max(task, key=lambda one: promises[one.name])

    def gain(one: Combination) -> float:
        """Over the picked one."""
        pairs = zip(
            measured[one.name].speeds["decode"], measured[picked.name].speeds["decode"], strict=True
        )
        return statistics.median(speed / picked_speed for speed, picked_speed in pairs)

    best = max(task, key=gain)
    part = 1 / gain(best)
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
