"""``plan`` without a model: which of the known ones fit on the machines, and how fast."""

from __future__ import annotations

import textwrap
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.report import WIDTH
from bandweave.cli.plan.setup import DEFAULT_CONTEXT, question_of
from bandweave.models.known_models import known_model, model_names
from bandweave.planning.costs.cost import decode_range
from bandweave.planning.search.columns import (
    Machines,
    both_columns,
)
from bandweave.planning.search.search import Answer

_FORMATS = ("q8", "q4")  # the first that fits
_NARROW = ("mxfp4-experts", "nvfp4")
_SMALLEST = 1e8  # parameters: below that it is for tests


def show_models(machines: Machines, values: dict[str, Any], *, as_json: bool) -> None:
    """A row a model; those that do not fit are named at the end, and those that take no context so
    long."""
    prompt, named = values["prompt"], values["context"]
    asked = named or max(DEFAULT_CONTEXT, 0 if prompt is None else prompt + values["answer"])
    rows: list[dict[str, Any]] = []
    too_large, too_short, on_host = [], [], []
    with output.status("Looking at every known model"):
        for name in model_names():
            model = known_model(name)
            if model.total_parameters < _SMALLEST:
                continue
            if model.context_length < asked and (named is not None or prompt is not None):
                too_short.append(name)
                continue
            options = {**values, "context": min(asked, model.context_length)}
            # What is published in 4 bits is not widened.
            usual = (model.stored_format,) if model.stored_format in _NARROW else _FORMATS
            formats = (values["format_name"],) if values["format_name"] else usual
            only_host = False
            for format_name in formats:
                question = question_of(model, format_name, options)
                answer, today = both_columns(question, machines)
                only_host |= today is not None
                if answer is None:
                    continue
                rows.append(_row(name, answer, today, model.runs_on_bandweave))
                break
            else:
                (on_host if only_host else too_large).append(name)
    if values["chart"]:
        from bandweave.cli.plan.pictures.others import draw_models

        if not rows:
            raise ValueError(f"no known model fits on {machines.title}: there is nothing to draw")
        title = f"What fits on {machines.described}, with {asked} tokens of context"
        ranked = sorted(rows, key=lambda row: -row["total_parameters"])
        draw_models(title, ranked, values["chart"])
    if as_json:
        output.print_json({"machines": [each.name for each in machines.hardware],
                           "links": [link.name for link in machines.links], "context": asked,
                           "models": rows, "do_not_fit": too_large,
                           "fit_in_host_memory": on_host,
                           "take_less_context": too_short})  # fmt: skip
        return
    link = f", joined by {machines.link_title}" if machines.link_title else ""
    streams = "" if values["streams"] == 1 else f"{values['streams']} streams of "
    _say(
        f"What fits on {machines.title}{link}{machines.assumption}, with {streams}{asked} tokens "
        "of context:"
    )
    output.print_text()
    output.print_table(
        ["model, weights", "split", "with", "decode, tokens/s", "prefill", "today"],
        [_cells(row) for row in sorted(rows, key=lambda row: -row["total_parameters"])],
    )
    _say(
        "decode and prefill: tokens/s with the best software that exists (--engine asks for one); "
        "today: decode by bandweave, on the processors (no: not yet)."
    )
    if on_host:
        _say(
            "Too large for the cards, though a processor with enough memory beside them would run "
            f'them (name it: --on "EPYC with CARD"): {", ".join(on_host)}.'
        )
    if too_large:
        _say(f"Too large: {', '.join(too_large)}.")
    if too_short:
        _say(f"Take less context than {asked} tokens: {', '.join(too_short)}.")


def _row(name: str, answer: Answer, today: Answer | None, runs: bool) -> dict[str, Any]:
    best, question = answer.best, answer.question
    decode = decode_range(best.deployment, question.decoding)
    return {
        "model": name,
        "total_parameters": question.model.total_parameters,
        "format": question.weights.name,
        "split": best.kind,
        "engine": answer.setup.engine.name,
        "machines": len(best.machines),
        "decode_tokens_per_s": {"likely": decode.likely, "low": decode.low, "high": decode.high},
        "prefill_tokens_per_s": best.prefill.tokens_per_s,
        "runs_on_bandweave": runs,
        "bandweave_decode_tokens_per_s": None if today is None else today.best.decode.tokens_per_s,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    speed = row["decode_tokens_per_s"]
    likely, low, high = (output.rate(speed[end]) for end in ("likely", "low", "high"))
    today = row["bandweave_decode_tokens_per_s"]
    split = row["split"] if row["machines"] == 1 else f"{row['split']} {row['machines']}"
    return [
        f"{row['model']} {row['format']}",
        split,
        row["engine"],
        f"{likely} ({low} to {high})",
        output.rate(row["prefill_tokens_per_s"]),
        ("no room" if row["runs_on_bandweave"] else "no") if today is None else output.rate(today),
    ]


def _say(sentence: str) -> None:
    output.print_text(textwrap.fill(sentence, WIDTH, break_on_hyphens=False))
