"""An answer's two columns as a table: what was asked for, and bandweave today. Decides nothing."""

from __future__ import annotations

from bandweave import figures
from bandweave.cli import output
from bandweave.cli.plan.answer import Columns, first_token_s, request_range
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.cost import Prediction, decode_range, prefill_range
from bandweave.planning.costs.software import ANY, software_title
from bandweave.planning.search.search import Answer

NONE = "-"


def column_rows(columns: Columns) -> tuple[list[str], list[list[str]]]:
    """Both columns as a table: headings and rows."""
    limit, today = columns.limit, columns.today
    answers = [limit, None if columns.hypothetical else today]
    asked = columns.machines.engine != ANY
    heads = ["", "as asked for" if asked else "best software today", "bandweave today"]
    rows = [["", f"({software_title(columns.engine)})", "(processor only)"]]

    def row(name: str, cells: list[str]) -> None:
        rows.append([name, *cells])

    row("decode, tokens/s", [decode_text(each) for each in answers])
    if columns.question.streams > 1:
        row("for each stream", [_each(each) for each in answers])
    row("prefill, tokens/s", [_prefill(each) for each in answers])
    row("first token after", [_first(each) for each in answers])
    row(f"all {columns.question.answer} tokens after", [_request(each) for each in answers])
    row("split", [NONE if each is None else short_kind(each) for each in answers])
    row("fullest memory, GiB", [_memory(each) for each in answers])
    formats = [NONE if each is None else each.question.weights.name for each in answers]
    row("weights", formats)
    return heads, rows


def decode_text(answer: Answer | None) -> str:
    if answer is None:
        return NONE
    return range_text(decode_range(answer.best.deployment, answer.question.decoding))


def _prefill(answer: Answer | None) -> str:
    if answer is None:
        return NONE
    return range_text(prefill_range(answer.best.deployment, answer.question.reading))


def _first(answer: Answer | None) -> str:
    return NONE if answer is None else output.seconds(first_token_s(answer.best))


def _each(answer: Answer | None) -> str:
    return NONE if answer is None else output.rate(answer.best.decode.tokens_per_s_per_stream)


def _request(answer: Answer | None) -> str:
    return NONE if answer is None else output.seconds(request_range(answer.best).likely)


def _memory(answer: Answer | None) -> str:
    if answer is None:
        return NONE
    nodes = capacity(answer.best.deployment, answer.question.decoding).nodes
    memories = [
        each
        for node in nodes
        for each in node.memories or (("", node.needed_bytes, node.available_bytes),)
    ]
    _, needed, available = max(memories, key=lambda each: each[1] / each[2])
    return f"{figures.gib(needed)} of {figures.gib(available)}"


def range_text(value: Prediction) -> str:
    likely, low, high = (output.rate(v) for v in (value.likely, value.low, value.high))
    return f"{likely} ({low} to {high})"


def short_kind(answer: Answer) -> str:
    """The split in a word or two."""
    best = answer.best
    count = len(best.machines)
    if best.kind == "one":
        return "one machine"
    if best.kind == "mixed":
        return f"{len(best.layout.stages)} stages/{count}"
    return f"{best.kind} {count}"
