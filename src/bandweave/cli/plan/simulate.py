"""``plan --simulate``: many streams over machines that queue, wait and fail."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.load import load_sentence, overloaded
from bandweave.cli.plan.report import WIDTH
from bandweave.cli.plan.simulated_failures import (
    exchange_sentences,
    failure_pairs,
    failure_sentences,
    failures_json,
    takeover_of,
)
from bandweave.planning.costs.software import software_title
from bandweave.planning.search.columns import (
    Machines,
    bandweave_question,
    bandweave_setup,
    engine_answers,
    limit_setup,
)
from bandweave.planning.search.explain import layout_phrase
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import Plan
from bandweave.planning.search.shortage import shortage_sentence
from bandweave.planning.simulation.lineup import PlannedLineup, server_of
from bandweave.planning.simulation.scenario import Outcome, Scenario, StageUse, percentile
from bandweave.planning.simulation.sealing import sealed
from bandweave.planning.simulation.simulation import simulate

_PARTS = (0.5, 0.9, 0.99)
_FOR_EVER = 1e12
_MOST_STAGES = 8  # shown one by one


def show_simulation(
    question: Question, machines: Machines, values: dict[str, Any], *, as_json: bool
) -> None:
    """Machines are dealt out to the replicas in order, each replica planned on its own."""
    takeover = takeover_of(values)
    encrypted = not values["no_encrypt"]
    if encrypted:
        machines = replace(
            machines,
            links=tuple(sealed(link) for link in machines.links),
            pairs=tuple((a, b, sealed(link)) for a, b, link in machines.pairs),
        )
    parts = _dealt(machines, values["replicas"])
    spares: int = values["spares"]
    if spares >= len(parts[0].hardware):
        raise ValueError(
            f"--spare {spares} leaves no machine to work: a replica has {len(parts[0].hardware)}"
        )
    hours: float | None = values["uptime"]
    requests: int = values["requests"]
    scenario = Scenario(
        streams=question.streams,
        prompt=question.prompt,
        answer=question.answer,
        context=question.context,
        seconds=_FOR_EVER if requests else values["seconds"],
        # A given number of requests is counted from the first.
        warm_up_s=0.0 if requests else values["seconds"] / 5,
        arrivals_per_s=values["arrivals"],
        requests=requests,
        mean_uptime_s=None if hours is None else hours * 3600,
        repair_s=values["repair"] * 60,
        takeover=takeover,
        seed=values["seed"],
    )
    with output.status("Playing it through"):
        limit = _run([_lineup(question, part, spares) for part in parts], scenario)
        today = [_lineup_today(question, part, spares) for part in parts]
        own = _run([each for each in today if each is not None], scenario) if all(today) else None
    if values["chart"]:
        from bandweave.cli.plan.pictures.others import draw_outcome

        title = (
            f"{question.model.name} in {question.weights.name} on {machines.described}: "
            f"{_streams(question, scenario)}, {_arriving(scenario)}"
        )
        draw_outcome(title, limit.outcome, values["chart"])
    if as_json:
        output.print_json(_json(question, machines, scenario, limit, own, encrypted=encrypted))
        return
    _show(question, machines, scenario, limit, encrypted=encrypted)
    _show_today(own, scenario)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A simulation. ``formula``: tokens/s of decoding alone, as ``plan`` gives them."""

    plans: list[Plan]
    lineups: list[PlannedLineup]
    outcome: Outcome
    formula: float


def _run(lineups: list[PlannedLineup], scenario: Scenario) -> _Run:
    plans = []
    for lineup in lineups:
        plan = lineup.plan(frozenset(range(len(lineup.machines))))
        assert plan is not None
        plans.append(plan)
    servers = [server_of(plan) for plan in plans]
    return _Run(
        plans=plans,
        lineups=lineups,
        outcome=simulate(servers, scenario, lineups if scenario.takeover else ()),
        formula=sum(plan.decode.tokens_per_s for plan in plans),
    )


def _dealt(machines: Machines, replicas: int) -> list[Machines]:
    count = len(machines.hardware) // replicas
    if count < 1:
        raise ValueError(f"{len(machines.hardware)} machines cannot make {replicas} replicas")
    if replicas > 1 and machines.pairs:
        raise ValueError("links of single pairs are for one replica; give --replicas 1")
    return [
        replace(
            machines,
            hardware=machines.hardware[part * count : (part + 1) * count],
            profiled=machines.profiled[part * count : (part + 1) * count],
        )
        for part in range(replicas)
    ]


def _lineup(question: Question, machines: Machines, spares: int) -> PlannedLineup:
    """With the software that is quickest on the machines that work while all are up."""
    quickest: tuple[float, PlannedLineup] | None = None
    for answer in engine_answers(question, machines):
        lineup = PlannedLineup(answer.question, answer.setup, spares)
        plan = lineup.plan(frozenset(range(len(answer.setup.nodes))))
        if plan is not None and (quickest is None or plan.seconds < quickest[0]):
            quickest = plan.seconds, lineup
    if quickest is None:
        raise ValueError(shortage_sentence(question, limit_setup(machines)))
    return quickest[1]


def _lineup_today(question: Question, machines: Machines, spares: int) -> PlannedLineup | None:
    """bandweave's own plan for its processors; None where it can't run the model there."""
    setup = bandweave_setup(machines)
    if setup is None or question.model.why_not_run(question.context):
        return None
    spares = min(spares, len(setup.nodes) - 1)  # cards of one machine are one node
    lineup = PlannedLineup(bandweave_question(question), setup, spares)
    return None if lineup.plan(frozenset(range(len(setup.nodes)))) is None else lineup


def _show(
    question: Question, machines: Machines, scenario: Scenario, run: _Run, *, encrypted: bool
) -> None:
    plans, outcome = run.plans, run.outcome
    link = f", joined by {machines.link_title}" if machines.link_title else ""
    if link:
        link += ", encrypted" if encrypted else ", not encrypted"
    engines = dict.fromkeys(plan.deployment.engine.name for plan in plans)
    with_what = " and ".join(map(software_title, engines))
    _say(
        f"{question.model.name} in {question.weights.name} on {machines.title}{link}, with "
        f"{with_what}: {_layouts(plans)}. {_streams(question, scenario)}; {_arriving(scenario)}. "
        f"{_length(scenario, outcome)}, seed {scenario.seed}."
    )
    output.print_text()
    pairs = [
        ("tokens/s", f"{output.rate(outcome.tokens_per_s)}; the formula for decoding alone says "
                     f"{output.rate(run.formula)}"),
        ("requests", f"{outcome.requests} finished, {outcome.waiting} waiting at the end"),
        ("between tokens", _percentiles(outcome.gaps_s)),
        ("first token", _percentiles(outcome.first_tokens_s)),
    ]  # fmt: skip
    if scenario.mean_uptime_s is not None:
        pairs += failure_pairs(outcome)
    output.print_pairs(pairs)
    sentences = failure_sentences(scenario, outcome, run.lineups, run.plans)
    sentences += exchange_sentences(run.plans)
    sentences.append(load_sentence(scenario, outcome, len(plans)))
    if any(link.channel for link in machines.links) and len(plans) > 1:
        sentences.append(
            "The replicas share one medium; that their traffic meets there is not in this "
            "simulation, which is too quick by that."
        )
    for sentence in filter(None, sentences):
        output.print_text()
        _say(sentence)
    output.print_text()
    shown = sorted(outcome.stages, key=lambda stage: -stage.utilisation)
    title = "busy"
    if len(shown) > _MOST_STAGES:
        values = [stage.utilisation for stage in shown]
        _say(
            f"{len(shown)} stages compute {min(values):.0%} to {max(values):.0%} of the time, half "
            f"of them more than {values[len(values) // 2]:.0%}. The busiest:"
        )
        shown = shown[:_MOST_STAGES]
    else:
        shown = sorted(shown, key=lambda stage: (stage.replica, stage.stage))
    output.print_table(
        ["stage", "machines", title, ""],
        [
            [f"{stage.replica}.{stage.stage}", _names(stage), f"{stage.utilisation:.0%}",
             ("#" * round(stage.utilisation * 30)).ljust(30)]
            for stage in shown
        ],
    )  # fmt: skip
    if outcome.cut_short and outcome.requests:
        _say("Too many events: it ended early. Fewer --seconds or streams show the same.")


def _streams(question: Question, scenario: Scenario) -> str:
    streams = output.count(question.streams, "stream")
    return f"{streams} a replica, prompts of {scenario.prompt}, answers of {scenario.answer} tokens"


def _arriving(scenario: Scenario) -> str:
    if scenario.arrivals_per_s:
        return f"{scenario.arrivals_per_s:g} requests/s arrive"
    return "every place is always taken"


def _length(scenario: Scenario, outcome: Outcome) -> str:
    if scenario.requests:
        return f"{outcome.requests} requests take {output.seconds(outcome.seconds)}"
    return f"{outcome.seconds:.0f} s simulated after {scenario.warm_up_s:.0f} s of warming up"


def _show_today(run: _Run | None, scenario: Scenario) -> None:
    output.print_text()
    if run is None:
        _say("bandweave today: not known there; `bandweave plan` without --simulate says why.")
        return
    _say(
        f"bandweave today, on the processors ({_layouts(run.plans)}): "
        f"{output.rate(run.outcome.tokens_per_s)} tokens/s, {run.outcome.requests} requests "
        f"finished in {output.seconds(run.outcome.seconds)}; between tokens "
        f"{_percentiles(run.outcome.gaps_s)}; first token "
        f"{_percentiles(run.outcome.first_tokens_s)}. "
        f"{load_sentence(scenario, run.outcome, len(run.plans))}".rstrip()
    )
    if run.outcome.recoveries:
        output.print_pairs(failure_pairs(run.outcome))
    for sentence in exchange_sentences(run.plans):
        _say(sentence)


def _layouts(plans: list[Plan]) -> str:
    kinds = Counter(layout_phrase(plan) for plan in plans)
    return "; ".join(f"{n} x {name}" if n > 1 else name for name, n in kinds.items())


def _json(
    question: Question,
    machines: Machines,
    scenario: Scenario,
    run: _Run,
    own: _Run | None,
    *,
    encrypted: bool,
) -> dict[str, Any]:
    """What the best software does there, by name; under ``"bandweave"`` what bandweave does."""
    return {
        "model": question.model.name,
        "format": question.weights.name,
        "machines": [machine.name for machine in machines.hardware],
        "links": [link.name for link in machines.links],
        "encrypted": encrypted,
        "scenario": asdict(scenario),
        **_run_json(run, scenario),
        "bandweave": None if own is None else _run_json(own, scenario),
    }


def _run_json(run: _Run, scenario: Scenario) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "replicas": [layout_phrase(plan) for plan in run.plans],
        "engines": [plan.deployment.engine.name for plan in run.plans],
        "seconds": outcome.seconds,
        "tokens_per_s": outcome.tokens_per_s,
        "formula_tokens_per_s": run.formula,
        "requests": outcome.requests,
        "waiting": outcome.waiting,
        "served_per_s": outcome.requests / outcome.seconds,
        "overloaded": overloaded(scenario, outcome, len(run.plans)),
        "between_tokens_s": {f"p{part * 100:g}": _or_none(outcome.gaps_s, part) for part in _PARTS},
        "first_token_s": {
            f"p{part * 100:g}": _or_none(outcome.first_tokens_s, part) for part in _PARTS
        },
        "stages": [asdict(stage) for stage in outcome.stages],
        "failures": outcome.failures,
        "recomputed_tokens": outcome.recomputed_tokens,
        "available": outcome.available,
        **failures_json(outcome, run.plans),
        "events": outcome.events,
        "cut_short": outcome.cut_short,
    }


def _or_none(values: Any, part: float) -> float | None:
    return percentile(values, part) if values else None


def _percentiles(values: Any) -> str:
    if not values:
        return "none"
    words = [f"{output.seconds(percentile(values, part))}" for part in _PARTS]
    return f"half within {words[0]}, 90% within {words[1]}, 99% within {words[2]}"


def _names(stage: StageUse) -> str:
    counts = Counter(stage.nodes)
    text = " + ".join(f"{n} x {name}" if n > 1 else name for name, n in counts.items())
    return text if len(text) <= 32 else f"{len(stage.nodes)} machines"


def _say(sentence: str) -> None:
    output.print_text(textwrap.fill(sentence, WIDTH, break_on_hyphens=False))
