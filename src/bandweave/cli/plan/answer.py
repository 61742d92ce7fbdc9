"""An answer of ``plan``: both columns searched, as data and as JSON. Prints nothing."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bandweave import figures
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.cost import Prediction, decode_range, prefill, prefill_range
from bandweave.planning.costs.deployment import BANDWEAVE
from bandweave.planning.costs.economy import economy
from bandweave.planning.costs.software import ANY, software_title
from bandweave.planning.machines.hardware import find_hardware
from bandweave.planning.machines.memory import memory_remark
from bandweave.planning.search.columns import (
    Machines,
    bandweave_question,
    bandweave_setup,
    both_columns,
    engine_answer,
    engine_answers,
    limit_setup,
    would_allow,
)
from bandweave.planning.search.conversation import most_streams
from bandweave.planning.search.explain import (
    item_times,
    layout_phrase,
    left_out_sentences,
    limiting_sentence,
    plan_items,
    runner_up_sentence,
    sensitivities,
    split_phrase,
    verdict_sentence,
)
from bandweave.planning.search.layout import Question
from bandweave.planning.search.published import published_for
from bandweave.planning.search.search import Answer, Plan, find_plans
from bandweave.planning.search.shortage import needed_bytes, shortage_sentence

_OF_HOST = 0.9  # of a host's memory, what a system leaves
_MORE = 1.03  # by so much the hardware must allow more than software does, to be told


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The best software that exists (``limit``, which ``engine`` names), and bandweave today.

    ``others``: what other software does, the quickest first; ``would``: what the hardware would
    allow, where that is more than any software does; ``reason``: why there is no answer for
    bandweave; ``hypothetical``: it would be that, did it run the model."""

    question: Question
    machines: Machines
    limit: Answer
    today: Answer | None
    reason: str
    hypothetical: bool
    would: Answer | None = None
    others: tuple[Answer, ...] = ()

    @property
    def engine(self) -> str:
        return self.limit.setup.engine.name


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One setup of a comparison. ``columns`` is None where it does not hold the model, which
    ``shortage`` says."""

    letter: str
    machines: Machines
    columns: Columns | None
    shortage: str = ""


@dataclass(frozen=True, kw_only=True)
class Setups:
    """What is asked, and the answer of each setup: at least one holds the model."""

    question: Question
    entries: tuple[Entry, ...]

    @property
    def fitting(self) -> tuple[Columns, ...]:
        return tuple(entry.columns for entry in self.entries if entry.columns is not None)


def answer_setups(question: Question, machines: Sequence[Machines]) -> Setups:
    """All setups; ``ValueError`` where none holds the model."""
    entries = []
    for letter, each in zip(_letters(), machines, strict=False):
        try:
            columns, shortage = answer_columns(question, each), ""
        except ValueError as error:  # it does not fit: that is its answer
            columns, shortage = None, str(error)
        entries.append(Entry(letter=letter, machines=each, columns=columns, shortage=shortage))
    if all(entry.columns is None for entry in entries):
        shortages = [f"{e.letter}: {e.shortage}" if len(entries) > 1 else e.shortage
                     for e in entries]  # fmt: skip
        raise ValueError("; ".join(shortages))
    return Setups(question=question, entries=tuple(entries))


def _letters() -> Iterator[str]:
    """A, B, ... Z, AA, AB, ..."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_uppercase, repeat=length):
            yield "".join(letters)


def answer_columns(question: Question, machines: Machines) -> Columns:
    """Both columns; ``ValueError`` says by how much the model does not fit."""
    answers = engine_answers(question, machines)
    limit, today = both_columns(question, machines, answers)
    would = would_allow(question, machines)
    if limit is None:
        raise ValueError(_why_none(question, machines, would))
    if would is not None and would.best.seconds * _MORE > limit.best.seconds:
        would = None
    reason, own = question.model.why_not_run(question.context), bandweave_setup(machines)
    runs = not reason
    if own is None:
        reason = (
            reason
            or "not known: its processor's bandwidth or FLOP/s are unknown (flops=... says them)"
        )
    elif today is None:
        asked = bandweave_question(question)
        today = None if runs else find_plans(asked, own)
        memory = figures.gib(sum(node.memory_bytes for node in own.nodes))
        need = figures.gib(needed_bytes(asked, own))
        reason = reason or f"does not fit: {need} GiB of {memory} GiB"
    return Columns(
        question=question,
        machines=machines,
        limit=limit,
        today=today,
        reason=reason,
        hypothetical=not runs,
        would=would,
        others=tuple(each for each in answers if each is not limit),
    )


def _why_none(question: Question, machines: Machines, would: Answer | None) -> str:
    """Why no software that may be used does it."""
    if would is None:
        return shortage_sentence(question, limit_setup(machines)) + _beside(question, machines)
    asked = "no software that the planner knows"
    if machines.engine != ANY:
        asked = software_title(machines.engine)
        if engine_answer(question, replace(machines, engine=ANY), "llama.cpp") is not None:
            asked += " cannot split it so, or does not run on these machines; --engine any finds "
            return f"{question.model.name} on {machines.title}: {asked}what does"
    return (
        f"{question.model.name} on {machines.title}: {asked} splits it so that it fits; the "
        f"hardware would allow {split_phrase(would, would.best)}"
    )


def _beside(question: Question, machines: Machines) -> str:
    """How to ask for bare cards in a machine whose memory holds the rest, where that would do."""
    first, count = machines.hardware[0], len(machines.hardware)
    if first.host is None or any(each != first for each in machines.hardware):
        return ""
    host = find_hardware(first.host)
    if needed_bytes(question, limit_setup(machines)) > _OF_HOST * host.memory_bytes:
        return ""
    return (
        "; with a part of it in the memory of the machine that the card sits in, ask for "
        f'--on "{host.name} with {count}x {first.name}"'
    )


def memory_remarks(columns: Columns) -> list[str]:
    """What must be done on the machines for the best plan to have its memory, a sentence a kind."""
    best = columns.limit.best
    if best.deployment.engine.name == BANDWEAVE.name:  # on processors nothing stands in its way
        return []
    needed: dict[str, float] = {}
    for node in capacity(best.deployment, columns.limit.question.decoding).nodes:
        needed[node.name] = max(node.needed_bytes, needed.get(node.name, 0.0))
    machines = {each.name: each for one in columns.machines.hardware for each in (one, *one.cards)}
    remarks = [memory_remark(machines[name], size) for name, size in needed.items()
               if name in machines]  # fmt: skip
    return [remark for remark in remarks if remark]


def columns_json(columns: Columns, usd_per_kwh: float) -> dict[str, Any]:
    """One setup as JSON."""
    question, model = columns.question, columns.question.model
    today = columns.today
    return {
        "model": {
            "name": model.name,
            "architecture": model.architecture,
            "total_parameters": model.total_parameters,
            "active_parameters": model.active_parameters,
            "runs_on_bandweave": model.runs_on_bandweave,
        },
        "format": question.weights.name,
        "weight_bytes": round(question.weights.total(model.parameters_by_role())),
        "context": question.context,
        "streams": question.streams,
        "prompt": question.prompt,
        "objective": question.objective,
        "machines": [machine.name for machine in columns.machines.hardware],
        "links": [link.name for link in columns.machines.links],
        "engine": columns.engine,
        "link_assumed": bool(columns.machines.assumption),
        "published": [
            asdict(each)
            for each in published_for(model, question.weights, columns.machines.hardware)
        ],
        "hardware": answer_json(columns.limit, usd_per_kwh),
        "other_engines": [
            {"engine": each.setup.engine.name, **plan_json(each.best)} for each in columns.others
        ],
        "hardware_would_allow": None if columns.would is None else plan_json(columns.would.best),
        "bandweave": None if today is None or columns.hypothetical
        else answer_json(today, usd_per_kwh),
        "bandweave_reason": columns.reason,
        "memory_remarks": memory_remarks(columns),
        "prices": {
            each.name: [{"kind": price.kind, "usd": price.usd, "date": price.date,
                         "source": price.source} for price in each.prices]
            for one in columns.machines.hardware for each in (one, *one.cards)
        },
    }  # fmt: skip


def answer_json(answer: Answer, usd_per_kwh: float) -> dict[str, Any]:
    """An answer with its reasons."""
    others = [plan_json(plan) for plan in answer.plans[1:]]
    money = economy(answer.best.deployment, answer.best.decode, usd_per_kwh=usd_per_kwh)
    return {
        **plan_json(answer.best),
        "engine": answer.setup.engine.name,
        "items_s": dict(item_times(plan_items(answer.best))),
        "memory": [
            {"machine": node.name, "needed_bytes": round(node.needed_bytes),
             "available_bytes": node.available_bytes}
            for node in capacity(answer.best.deployment, answer.question.decoding).nodes
        ],
        "single_machine": None if answer.single is None else plan_json(answer.single),
        "one_machine_is_best": answer.best.kind == "one",
        "verdict": verdict_sentence(answer),
        "limited_by": limiting_sentence(answer),
        "runner_up": runner_up_sentence(answer),
        "left_out": left_out_sentences(answer),
        "others": others,
        "what_would_help": {each.change: each.factor for each in sensitivities(answer)},
        "watts": money.watts,
        "joules_per_token": money.joules_per_token,
        "energy_usd_per_million_tokens": money.usd_per_million_tokens,
        "price_usd": money.price_usd,
        "price_usd_per_token_per_s": money.usd_per_token_per_s,
    }  # fmt: skip


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan: who gets what, and how fast it is."""
    question = plan.question
    stages = [
        {
            "machines": [plan.deployment.nodes[node].name for node in stage.nodes],
            "shares": [float(share / sum(stage.shares)) for share in stage.shares],
            "layers": len(stage.layers),
        }
        for stage in plan.deployment.stages
    ]
    return {
        "split": plan.kind,
        "description": layout_phrase(plan),
        "whole_experts": plan.layout.whole_experts,
        "link": plan.link or None,
        "stages": stages,
        "decode_tokens_per_s": _range(decode_range(plan.deployment, question.decoding)),
        "prefill_tokens_per_s": _range(prefill_range(plan.deployment, question.reading)),
        "first_token_s": first_token_s(plan),
        "request_s": _range(request_range(plan)),
        "most_streams": most_streams(plan),
    }


def first_token_s(plan: Plan) -> float:
    """Seconds until the first token of the prompt's answer."""
    return prefill(plan.deployment, plan.question.reading).total_s


def request_range(plan: Plan) -> Prediction:
    """Seconds that one user waits for an answer: a prompt is read, then every step of all streams
    gives a token. ``low`` is the quickest."""
    question = plan.question
    reading = prefill_range(plan.deployment, question.reading)
    writing = decode_range(plan.deployment, question.decoding)

    def wait(read: float, written: float) -> float:
        return question.prompt / read + question.answer * question.streams / written

    return Prediction(
        likely=wait(reading.likely, writing.likely),
        low=wait(reading.high, writing.high),
        high=wait(reading.low, writing.low),
    )


def objective_range(plan: Plan) -> Prediction:
    """What the objective asks for: tokens/s, prompt tokens/s or seconds a request."""
    question = plan.question
    if question.objective == "decode":
        return decode_range(plan.deployment, question.decoding)
    if question.objective == "prefill":
        return prefill_range(plan.deployment, question.reading)
    return request_range(plan)


def objective_unit(question: Question) -> str:
    return {"decode": "tokens/s", "prefill": "prompt tokens/s"}.get(question.objective, "seconds")


def objective_words(question: Question) -> str:
    """A heading for figures of the objective."""
    if question.objective == "decode":
        return "Decoding, tokens/s" + (" of all streams" if question.streams > 1 else "")
    if question.objective == "prefill":
        return "Reading prompts, tokens/s"
    return f"A prompt of {question.prompt} and an answer of {question.answer} tokens, seconds"


def _range(value: Prediction) -> dict[str, float]:
    return {"likely": value.likely, "low": value.low, "high": value.high}
