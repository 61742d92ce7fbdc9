"""How ``plan`` shows an answer on a terminal of 80 columns. Decides nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from bandweave import figures
from bandweave.cli import output
from bandweave.cli.plan.answer import Columns, memory_remarks
from bandweave.cli.plan.column_table import column_rows, decode_text
from bandweave.cli.plan.money import money_sentences
from bandweave.planning.costs.software import software_title
from bandweave.planning.search.conversation import most_streams
from bandweave.planning.search.doubt import (
    cables_sentence,
    doubt_sentence,
    remote_memory_sentence,
    untried_sentence,
)
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
from bandweave.planning.search.published import published_for, published_sentence
from bandweave.planning.search.search import Answer
from bandweave.planning.search.shortage import read_bytes

WIDTH = 80
_BAR = 40
_SHOWN_S = 0.5e-6
_OTHERS = 3  # programs, beside the quickest


def show(columns: Columns, usd_per_kwh: float, *, heading: bool = True) -> None:
    """One setup, in full; ``heading``: with what is asked."""
    question = columns.question
    if heading:
        say_model(question)
    link = columns.machines.link_title
    joined = f", joined by {link}{columns.machines.assumption}" if link else ""
    say(f"On {columns.machines.title}{joined}.")
    if heading:
        say_work(question)
    output.print_text()
    _two_columns(columns)
    name = software_title(columns.engine)
    _time(columns.limit, f"A token's time with {name}"
          if question.objective == "decode" else f"The time with {name}")  # fmt: skip
    for sentence in reasons(columns):
        say(sentence)
    for sentence in (*what_would_help(columns.limit), *money_sentences(columns, usd_per_kwh)):
        say(sentence)
    if columns.today is not None and not columns.hypothetical:
        output.print_text()
        say(f"bandweave today: {_today(columns.today)}")


def reasons(columns: Columns) -> list[str]:
    """Why the answer is what it is, a sentence each."""
    limit, question = columns.limit, columns.question
    sentences = [
        verdict_sentence(limit),
        doubt_sentence(limit),
        untried_sentence(limit),
        remote_memory_sentence(question, columns.machines, limit),
        limiting_sentence(limit),
        runner_up_sentence(limit),
        *left_out_sentences(limit),
        _split(limit),
        _others(columns),
        _would(columns),
        cables_sentence(columns.machines),
        _room(limit),
        published_sentence(
            published_for(question.model, question.weights, columns.machines.hardware),
            question.streams,
            question.context,
        ),
        *memory_remarks(columns),
    ]
    return [sentence for sentence in sentences if sentence]


def asked_sentences(question: Question) -> tuple[str, str]:
    """The model as it is stored, and the work."""
    model = question.model
    first = (
        f"{model.name} in {question.weights.name}: "
        f"{figures.parameters(model.total_parameters)} parameters; a token reads "
        f"{figures.parameters(model.read_parameters)} of them, "
        f"{output.size(read_bytes(model, question.weights))}."
    )
    streams = output.count(question.streams, "stream")
    second = (
        f"{streams}, {question.context} tokens of context in the cache, prompts of "
        f"{question.prompt} tokens; best for {question.objective}."
    )
    return first, second


def say_model(question: Question) -> None:
    say(asked_sentences(question)[0])


def say_work(question: Question) -> None:
    say(asked_sentences(question)[1])


def _room(answer: Answer) -> str:
    """How many streams fit, where there are several."""
    if answer.question.streams < 2:
        return ""
    most = most_streams(answer.best)
    return f"Memory holds {most} streams of {answer.question.context} tokens at once."


def _two_columns(columns: Columns) -> None:
    output.print_table(*column_rows(columns))
    if columns.reason:
        also = ""
        if columns.hypothetical and columns.today is not None:
            also = f"; its processor path would come to about {decode_text(columns.today)} tokens/s"
        say(f"bandweave today: {columns.reason}{also}.")
    output.print_text()


def _time(answer: Answer, title: str) -> None:
    items = plan_items(answer.best)
    output.print_text(f"{title}: {output.seconds(items.total_s)}")
    for name, seconds in item_times(items):
        if seconds < _SHOWN_S:
            continue
        part = seconds / items.total_s
        bar = "#" * round(part * _BAR)
        line = f"  {name:<10} {output.seconds(seconds):>8}  {part:>4.0%}  {bar}"
        output.print_text(line.rstrip())
    best = answer.best
    if answer.question.objective == "decode" and best.decode.period_s != best.decode.step_s:
        period = output.seconds(best.decode.period_s)
        output.print_text(f"  every stream gets a token each {period}: stages work at once")
    output.print_text()


def _split(answer: Answer) -> str:
    best = answer.best
    if best.kind == "one":
        beside = best.deployment.nodes[0].host is not None
        return f"Best: {layout_phrase(best)}." if beside else ""
    parts = []
    for stage in best.deployment.stages:
        whole = sum(stage.shares)
        names = _names(
            [
                f"{best.deployment.nodes[node].name} {float(share / whole):.0%}"
                for node, share in zip(stage.nodes, stage.shares, strict=True)
            ]
        )
        layers = f"layers {stage.layers.start}-{stage.layers.stop - 1}: "
        if len(stage.nodes) == 1:
            names = names.removesuffix(" 100%")
        parts.append(names if best.kind == "tensor" else layers + names)
    shown = parts if len(parts) <= 8 else [*parts[:7], f"and {len(parts) - 7} more stages"]
    return f"Best: {layout_phrase(best)}: {'; '.join(shown)}."


def _names(machines: Sequence[str]) -> str:
    """Machines with their shares; three and more that are alike, one after the other, as one."""
    runs = [(words, len(list(run))) for words, run in groupby(machines)]
    return ", ".join(
        f"{count} x {words} each" if count > 2 else ", ".join([words] * count)
        for words, count in runs
    )


def _others(columns: Columns) -> str:
    """What else there is to run it with."""
    words = [
        f"{software_title(each.setup.engine.name)}: {split_phrase(each, each.best)}"
        for each in columns.others[:_OTHERS]
    ]
    return f"Other software: {'; '.join(words)}." if words else ""


def _would(columns: Columns) -> str:
    """What no software does yet."""
    if columns.would is None:
        return ""
    more = columns.limit.best.seconds / columns.would.best.seconds
    return (
        "What the hardware would allow, with software that does not exist: "
        f"{split_phrase(columns.would, columns.would.best)}, {more:.2f} times as fast."
    )


def what_would_help(answer: Answer) -> list[str]:
    """Changes with their factors, and those that bring nothing."""
    found = sensitivities(answer)
    useful = [f"{each.change} x{each.factor:.2f}" for each in found if each.factor >= 1.015]
    useless = [each.change for each in found if each.factor < 1.015]
    sentences = []
    if useful:
        sentences.append("What would help: " + "; ".join(useful[:6]) + ".")
    if useless:
        sentences.append("Next to nothing: " + "; ".join(useless) + ".")
    return sentences


def _today(answer: Answer) -> str:
    words = [layout_phrase(answer.best), verdict_sentence(answer), limiting_sentence(answer)]
    return ". ".join(word.rstrip(".") for word in words if word) + "."


def say(sentence: str) -> None:
    output.print_text(textwrap.fill(sentence, WIDTH, break_long_words=False,
                                    break_on_hyphens=False))  # fmt: skip
