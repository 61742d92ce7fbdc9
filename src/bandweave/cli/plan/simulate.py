"""``plan --simulate``: many streams over machines that queue, wait and fail."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.load import load_sentence, overloaded
from bandweave.cli.plan.report import WIDTH
from bandweave.planning.search.columns import (
    Machines,
    bandweave_question,
    bandweave_setup,
    limit_setup,
)
from bandweave.planning.search.explain import layout_phrase
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import Plan, find_plans
from bandweave.planning.search.shortage import shortage_sentence
from bandweave.planning.simulation.scenario import Outcome, Scenario, StageUse, percentile
from bandweave.planning.simulation.server import PlannedServer
from bandweave.planning.simulation.simulation import simulate

_PARTS = (0.5, 0.9, 0.99)
_FOR_EVER = 1e12
_MOST_STAGES = 8  # shown one by one


def show_simulation(
    question: Question, machines: Machines, values: dict[str, Any], *, as_json: bool
) -> None:
    """Machines are dealt out to the replicas in order, each replica planned on its own."""
    parts = _dealt(machines, values["replicas"])
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
        seed=values["seed"],
    )
    with output.status("Playing it through"):
        limit = _run([_plan(question, part) for part in parts], scenario)
        today = [_plan_today(question, part) for part in parts]
        own = _run([plan for plan in today if plan is not None], scenario) if all(today) else None
    if values["chart"]:
        from bandweave.cli.plan.pictures.others import draw_outcome

        title = (
            f"{question.model.name} in {question.weights.name} on {machines.described}: "
            f"{_streams(question, scenario)}, {_arriving(scenario)}"
        )
        draw_outcome(title, limit.outcome, values["chart"])
    if as_json:
        output.print_json(_json(question, machines, scenario, limit, own))
        return
    _show(question, machines, scenario, limit)
    _show_today(own, scenario)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A simulation. ``formula``: tokens/s of decoding alone, as ``plan`` gives them."""

    plans: list[Plan]
    outcome: Outcome
    formula: float


def _run(plans: list[Plan], scenario: Scenario) -> _Run:
    return _Run(
        plans=plans,
        outcome=simulate([PlannedServer(plan.deployment) for plan in plans], scenario),
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


def _plan(question: Question, machines: Machines) -> Plan:
    setup = limit_setup(machines)
    answer = find_plans(question, setup)
    if answer is None:
        raise ValueError(shortage_sentence(question, setup))
    return answer.best


def _plan_today(question: Question, machines: Machines) -> Plan | None:
    """bandweave's own plan for its processors; None where it can't run the model there."""
    setup = bandweave_setup(machines)
    if setup is None or question.model.why_not_run(question.context):
        return None
    answer = find_plans(bandweave_question(question), setup)
    return None if answer is None else answer.best


def _show(question: Question, machines: Machines, scenario: Scenario, run: _Run) -> None:
    plans, outcome = run.plans, run.outcome
    link = f", joined by {machines.link_title}" if machines.link_title else ""
    _say(
        f"{question.model.name} in {question.weights.name} on {machines.title}{link}: "
        f"{_layouts(plans)}. {_streams(question, scenario)}; {_arriving(scenario)}. "
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
        pairs.append(
            ("failures", f"{outcome.failures}; {outcome.recomputed_tokens} tokens read again; a "
                         f"replica is whole {outcome.available:.1%} of the time")
        )  # fmt: skip
    output.print_pairs(pairs)
    load = load_sentence(scenario, outcome, len(plans))
    if load:
        _say(load)
    if any(link.channel for link in machines.links) and len(plans) > 1:
        _say(
            "The replicas share one medium; that their traffic meets there is not in this "
            "simulation, which is too quick by that."
        )
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


def _layouts(plans: list[Plan]) -> str:
    kinds = Counter(layout_phrase(plan) for plan in plans)
    return "; ".join(f"{n} x {name}" if n > 1 else name for name, n in kinds.items())


def _json(
    question: Question, machines: Machines, scenario: Scenario, run: _Run, own: _Run | None
) -> dict[str, Any]:
    """What the hardware allows; under ``"bandweave"`` what bandweave does there today."""
    return {
        "model": question.model.name,
        "format": question.weights.name,
        "machines": [machine.name for machine in machines.hardware],
        "links": [link.name for link in machines.links],
        "scenario": asdict(scenario),
        **_run_json(run, scenario),
        "bandweave": None if own is None else _run_json(own, scenario),
    }


def _run_json(run: _Run, scenario: Scenario) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "replicas": [layout_phrase(plan) for plan in run.plans],
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
