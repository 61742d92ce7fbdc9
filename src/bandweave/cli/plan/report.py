"""How ``plan`` shows an answer on a terminal of 80 columns. Decides nothing."""

from __future__ import annotations

import string
import textwrap
from collections.abc import Sequence

from bandweave import figures
from bandweave.cli import output
from bandweave.cli.plan.answer import Columns, first_token_s, memory_remarks
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.cost import Prediction, decode_range, prefill_range
from bandweave.planning.costs.economy import economy
from bandweave.planning.costs.software import ANY, software_title
from bandweave.planning.machines.hardware import Hardware
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
from bandweave.planning.search.search import Answer
from bandweave.planning.search.shortage import read_bytes

WIDTH = 80
_BAR = 40
_SHOWN_S = 0.5e-6
_NONE = "-"
_OTHERS = 3  # programs, beside the quickest


def show(columns: Columns, usd_per_kwh: float) -> None:
    """One setup, in full."""
    question, model = columns.question, columns.question.model
    _say(
        f"{model.name} in {question.weights.name}: "
        f"{figures.parameters(model.total_parameters)} parameters; a token reads "
        f"{figures.parameters(model.read_parameters)} of them, "
        f"{output.size(read_bytes(model, question.weights))}."
    )
    link = columns.machines.link_title
    assumed = " (assumed: no --link was given)" if columns.machines.assumed else ""
    joined = f", joined by {link}{assumed}" if link else ""
    _say(f"On {columns.machines.title}{joined}.")
    streams = output.count(question.streams, "stream")
    _say(
        f"{streams}, {question.context} tokens of context in the cache, prompts of "
        f"{question.prompt} tokens; best for {question.objective}."
    )
    output.print_text()
    _two_columns(columns)
    name = software_title(columns.engine)
    _time(columns.limit, f"A token's time with {name}"
          if question.objective == "decode" else f"The time with {name}")  # fmt: skip
    for sentence in (
        verdict_sentence(columns.limit),
        limiting_sentence(columns.limit),
        runner_up_sentence(columns.limit),
        *left_out_sentences(columns.limit),
        _split(columns.limit),
        _others(columns),
        _would(columns),
    ):
        if sentence:
            _say(sentence)
    for sentence in memory_remarks(columns):
        _say(sentence)
    _help(columns.limit)
    _money(columns.limit, usd_per_kwh)
    _prices(columns.machines.hardware)
    if columns.today is not None and not columns.hypothetical:
        output.print_text()
        _say(f"bandweave today: {_today(columns.today)}")


def show_comparison(
    all_columns: Sequence[Columns], unfit: Sequence[str], usd_per_kwh: float
) -> None:
    """Setups side by side; ``unfit``: what is to be said of those that do not hold the model."""
    rows = []
    output.print_text()
    for letter, columns in zip(string.ascii_uppercase * 40, all_columns, strict=False):
        best = columns.limit.best
        money = economy(best.deployment, best.decode, usd_per_kwh=usd_per_kwh)
        link = columns.machines.link_title
        with_what = f", with {software_title(columns.engine)}"
        _say(f"{letter}: {columns.machines.title}{f' over {link}' if link else ''}{with_what}")
        rows.append([
            letter,
            _short_kind(columns.limit),
            _range(decode_range(best.deployment, best.question.decoding)),
            output.rate(best.prefill.tokens_per_s),
            _today_figure(columns),
            _dash(money.joules_per_token, "figure"),
            _dash(money.usd_per_million_tokens, "{:.2f}"),
            _dash(money.usd_per_token_per_s, "{:.0f}"),
        ])  # fmt: skip
    headings = ["", "split", "decode/s", "prefill/s", "today/s", "J/token", "$/M", "$/(tok/s)"]
    output.print_table(headings, rows)
    _say(
        "decode and prefill: tokens/s with the software named; today: bandweave, on the "
        "processor; $/M: electricity for a million tokens; $/(tok/s): the machines' price."
    )
    for sentence in unfit:
        _say(f"Does not fit: {sentence}.")


def short_kind(answer: Answer) -> str:
    """The split in a word or two."""
    return _short_kind(answer)


def _two_columns(columns: Columns) -> None:
    limit, today = columns.limit, columns.today
    answers = [limit, None if columns.hypothetical else today]
    asked = columns.machines.engine != ANY
    heads = ["", "as asked for" if asked else "best software today", "bandweave today"]
    rows = [["", f"({software_title(columns.engine)})", "(processor only)"]]

    def row(name: str, cells: list[str]) -> None:
        rows.append([name, *cells])

    row("decode, tokens/s", [_decode(each) for each in answers])
    row("prefill, tokens/s", [_prefill(each) for each in answers])
    row("first token after", [_first(each) for each in answers])
    row("split", [_NONE if each is None else _short_kind(each) for each in answers])
    row("fullest memory, GiB", [_memory(each) for each in answers])
    formats = [_NONE if each is None else each.question.weights.name for each in answers]
    row("weights", formats)
    output.print_table(heads, rows)
    if columns.reason:
        also = ""
        if columns.hypothetical and today is not None:
            also = f"; its processor path would come to about {_decode(today)} tokens/s"
        _say(f"bandweave today: {columns.reason}{also}.")
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
        names = ", ".join(
            f"{best.deployment.nodes[node].name} {float(share / whole):.0%}"
            for node, share in zip(stage.nodes, stage.shares, strict=True)
        )
        layers = f"layers {stage.layers.start}-{stage.layers.stop - 1}: "
        if len(stage.nodes) == 1:
            names = names.removesuffix(" 100%")
        parts.append(names if best.kind == "tensor" else layers + names)
    shown = parts if len(parts) <= 8 else [*parts[:7], f"and {len(parts) - 7} more stages"]
    return f"Best: {layout_phrase(best)}: {'; '.join(shown)}."


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


def _help(answer: Answer) -> None:
    found = sensitivities(answer)
    useful = [f"{each.change} x{each.factor:.2f}" for each in found if each.factor >= 1.015]
    useless = [each.change for each in found if each.factor < 1.015]
    if useful:
        _say("What would help: " + "; ".join(useful[:6]) + ".")
    if useless:
        _say("Next to nothing: " + "; ".join(useless) + ".")


def _money(answer: Answer, usd_per_kwh: float) -> None:
    money = economy(answer.best.deployment, answer.best.decode, usd_per_kwh=usd_per_kwh)
    words = []
    if money.watts is not None and money.joules_per_token is not None:
        words.append(
            f"about {money.watts:.0f} W, {figures.figure(money.joules_per_token)} J a token, "
            f"${money.usd_per_million_tokens:.2f} of electricity for a million tokens "
            f"(${usd_per_kwh:.2f}/kWh)"
        )
    if money.price_usd is not None and money.usd_per_token_per_s is not None:
        words.append(
            f"${money.price_usd:,.0f} of machines, ${money.usd_per_token_per_s:,.0f} for each "
            "token/s"
        )
    if words:
        _say("Energy and price: " + "; ".join(words) + ".")


def _prices(machines: Sequence[Hardware]) -> None:
    """Where a machine has several prices, or one of a day that is known: all of them."""
    different = {each.name: each for one in machines for each in (one, *one.cards)}
    words = [
        f"{name} {' or '.join(str(price) for price in each.prices)}"
        for name, each in different.items()
        if len(each.prices) > 1 or any(price.date for price in each.prices)
    ]
    if words:
        _say(f"Prices: {'; '.join(words)}.")


def _today(answer: Answer) -> str:
    words = [layout_phrase(answer.best), verdict_sentence(answer), limiting_sentence(answer)]
    return ". ".join(word.rstrip(".") for word in words if word) + "."


def _today_figure(columns: Columns) -> str:
    if columns.today is None or columns.hypothetical:
        return _NONE
    return output.rate(columns.today.best.decode.tokens_per_s)


def _decode(answer: Answer | None) -> str:
    if answer is None:
        return _NONE
    return _range(decode_range(answer.best.deployment, answer.question.decoding))


def _prefill(answer: Answer | None) -> str:
    if answer is None:
        return _NONE
    return _range(prefill_range(answer.best.deployment, answer.question.reading))


def _first(answer: Answer | None) -> str:
    return _NONE if answer is None else output.seconds(first_token_s(answer.best))


def _memory(answer: Answer | None) -> str:
    if answer is None:
        return _NONE
    nodes = capacity(answer.best.deployment, answer.question.decoding).nodes
    memories = [
        each
        for node in nodes
        for each in node.memories or (("", node.needed_bytes, node.available_bytes),)
    ]
    _, needed, available = max(memories, key=lambda each: each[1] / each[2])
    return f"{figures.gib(needed)} of {figures.gib(available)}"


def _range(value: Prediction) -> str:
    likely, low, high = (output.rate(v) for v in (value.likely, value.low, value.high))
    return f"{likely} ({low} to {high})"


def _short_kind(answer: Answer) -> str:
    best = answer.best
    count = len(best.machines)
    if best.kind == "one":
        return "one machine"
    if best.kind == "mixed":
        return f"{len(best.layout.stages)} stages/{count}"
    return f"{best.kind} {count}"


def _dash(value: float | None, style: str) -> str:
    if value is None:
        return _NONE
    return figures.figure(value) if style == "figure" else style.format(value)


def _say(sentence: str) -> None:
    output.print_text(textwrap.fill(sentence, WIDTH, break_long_words=False,
                                    break_on_hyphens=False))  # fmt: skip
