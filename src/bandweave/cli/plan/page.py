"""``plan --html``: an answer as one page, a file that needs no network and no other file.

Knows HTML; every text goes through ``escape``. What it says is what the terminal says.
"""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bandweave import __version__
from bandweave.cli import output
from bandweave.cli.plan.answer import Columns, Setups, objective_range, objective_unit
from bandweave.cli.plan.column_table import column_rows
from bandweave.cli.plan.comparison import (
    COMPARED,
    comparison_notes,
    comparison_rows,
    setup_title,
)
from bandweave.cli.plan.money import money_sentences
from bandweave.cli.plan.pictures.overview import answer_svg
from bandweave.cli.plan.pictures.sweeps import sweep_svg
from bandweave.cli.plan.pictures.talks import conversations_svg
from bandweave.cli.plan.report import asked_sentences, reasons, what_would_help
from bandweave.cli.plan.sweep import sweep_series
from bandweave.cli.plan.talk import HEADINGS, conversation_sentences, turn_rows
from bandweave.planning.search.conversation import ConversationCost
from bandweave.planning.search.explain import layout_phrase, verdict_sentence
from bandweave.planning.search.published import published_for
from bandweave.shown import printable
from bandweave.whole_file import whole_file

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 0 auto;
       max-width: 58rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ddd; }
.verdict { font-size: 1.15rem; background: #eef4fb; border-left: 4px solid #2f6db3;
           padding: .7rem 1rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #eee; }
td { white-space: nowrap; }
td:last-child { white-space: normal; overflow-wrap: anywhere; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; overflow-x: auto; }
svg { width: 100%; min-width: 42rem; height: auto; }
code { background: #f4f4f4; padding: .1rem .3rem; overflow-wrap: anywhere; }
footer { color: #666; font-size: .85rem; margin-top: 2.5rem; border-top: 1px solid #ddd; }
@media print { body { max-width: none; padding: 0; } figure { break-inside: avoid; } }
"""

_MOST_SWEPT = 4  # machines: of more every link takes long
_MOST_NAMED = 4


def write_page(
    setups: Setups, costs: Mapping[str, ConversationCost], values: Mapping[str, Any]
) -> None:
    """The page, into the file of ``--html``."""
    path: Path = values["page"]
    text = page(setups, costs, values)
    try:
        with whole_file(path) as file:
            file.write(text.encode(errors="backslashreplace"))  # what was typed is in it
    except OSError as error:
        raise ValueError(f"--html {printable(path)}: {error.strerror or error}") from error
    output.say(f"wrote {printable(path)}")


def page(setups: Setups, costs: Mapping[str, ConversationCost], values: Mapping[str, Any]) -> str:
    """The question, the verdict, tables, pictures, and what would help."""
    first = setups.fitting[0]
    price: float = values["power_price"]
    question = setups.question
    title = _title(setups)
    body = [f"<h1>{escape(title)}</h1>", _paragraphs(asked_sentences(question))]
    body.append(f'<p class="verdict">{escape(_verdict(setups))}</p>')
    if len(setups.entries) > 1:
        body += ["<h2>The setups</h2>", _setups_list(setups)]
        body += [_table(COMPARED, comparison_rows(setups, price))]
        body += [_paragraphs(comparison_notes(setups)[int(len(setups.fitting) > 1) :])]
    body.append(f"<figure>{answer_svg(setups)}</figure>")
    named = f" of {_named(setups, first)}" if len(setups.entries) > 1 else ""
    heads, rows = column_rows(first)
    body += [f"<h2>The figures{escape(named)}</h2>", _table(heads, rows), _paragraphs(
        _reason_sentences(first))]  # fmt: skip
    body += ["<h2>What would help</h2>", _paragraphs(
        [*what_would_help(first.limit), *money_sentences(first, price)])]  # fmt: skip
    if costs:
        body += _talk_parts(setups, costs)
    body += _sweep_parts(setups, values)
    body += _published_part(first)
    body.append(_footer())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _title(setups: Setups) -> str:
    model, count = setups.question.model.name, len(setups.entries)
    if count == 1:
        return f"How fast is {model} on {setups.entries[0].machines.described}?"
    return f"Where is {model} fastest: {count} setups compared"


def _verdict(setups: Setups) -> str:
    """The most important sentences."""
    if len(setups.entries) > 1:
        ranked = sorted(setups.fitting, key=lambda columns: columns.limit.best.seconds)
        lead = comparison_notes(setups)[0] if len(ranked) > 1 else "Only one holds the model."
        figures = [f"{_named(setups, each)}: {_speed(each)}." for each in ranked[:_MOST_NAMED]]
        return " ".join([lead, *figures])
    columns = setups.fitting[0]
    words = f"Probably {_speed(columns)}, {layout_phrase(columns.limit.best)}."
    return " ".join(filter(None, [words, verdict_sentence(columns.limit)]))


def _speed(columns: Columns) -> str:
    """``27 tokens/s (23 to 31.3)``."""
    question, span = columns.question, objective_range(columns.limit.best)
    if question.objective == "request":
        likely, low, high = map(output.seconds, (span.likely, span.low, span.high))
        return f"{likely} ({low} to {high})"
    likely, low, high = map(output.rate, (span.likely, span.low, span.high))
    return f"{likely} {objective_unit(question)} ({low} to {high})"


def _named(setups: Setups, columns: Columns) -> str:
    entry = next(each for each in setups.entries if each.columns is columns)
    return f"{entry.letter}, {entry.machines.described}"


def _reason_sentences(columns: Columns) -> list[str]:
    link = columns.machines.link_title
    joined = f", joined by {link}{columns.machines.assumption}" if link else ""
    today = f"bandweave today: {columns.reason}." if columns.reason else ""
    return [f"On {columns.machines.title}{joined}.", *reasons(columns), today]


def _setups_list(setups: Setups) -> str:
    items = [
        f"<li>{escape(f'{entry.letter}: {setup_title(entry)}')}</li>" for entry in setups.entries
    ]
    return f"<ul>{''.join(items)}</ul>"


def _talk_parts(setups: Setups, costs: Mapping[str, ConversationCost]) -> list[str]:
    parts = ["<h2>Turn by turn</h2>", f"<figure>{conversations_svg(setups, costs)}</figure>"]
    for letter, cost in costs.items():
        name = f"{letter}: " if len(setups.entries) > 1 else ""
        parts.append(_paragraphs([f"{name}{layout_phrase(cost.plan)}."]))
        parts += [_table(HEADINGS, turn_rows(cost)), _paragraphs(conversation_sentences(cost))]
    return parts


def _sweep_parts(setups: Setups, values: Mapping[str, Any]) -> list[str]:
    """The sweep that was asked for, else the links of a setup of several machines."""
    what: str | None = values["sweep"]
    first = setups.fitting[0].machines
    machines = [entry.machines for entry in setups.entries] if what else [first]
    if what is None:
        if len(first.hardware) < 2 or len(first.hardware) > _MOST_SWEPT:
            return []
        what = "link"
    with output.status(f"Looking at every {what}"):
        series = [sweep_series(what, setups.question, each) for each in machines]
    return [
        f"<h2>By {escape(what)}</h2>",
        f"<figure>{sweep_svg(what, setups.question, series)}</figure>",
    ]


def _published_part(columns: Columns) -> list[str]:
    question = columns.question
    found = published_for(question.model, question.weights, columns.machines.hardware)
    rows = [
        [each.engine, each.model, each.format, str(each.streams), str(each.context),
         f"{each.decode_tokens_per_s:.3g}", each.source]
        for each in found
        if each.decode_tokens_per_s
    ]  # fmt: skip
    if not rows:
        return []
    heads = ["engine", "model", "weights", "streams", "context", "tokens/s", "source"]
    return ["<h2>What others measured</h2>", _table(heads, rows)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _paragraphs(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences if sentence)


def _footer() -> str:
    words = sys.argv[1:]
    asked = f": <code>{escape(shlex.join(['bandweave', *words]))}</code>" if (
        words[:1] == ["plan"]
    ) else ""  # fmt: skip
    return (
        "<footer><p>Predicted, not measured: a figure is the most likely value, the figures in "
        "brackets the range in which four of five published measurements of the kind lay. “Best "
        "software today” is the quickest that exists, by name; “bandweave today” computes on "
        "processors.</p>"
        f"<p>Made by bandweave {escape(__version__)} on {datetime.date.today().isoformat()}{asked}."
        "</p></footer>"
    )
