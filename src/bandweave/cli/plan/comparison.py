"""Setups side by side, as ``plan --compare`` shows them. Decides nothing."""

from __future__ import annotations

from bandweave import figures
from bandweave.cli import output
from bandweave.cli.plan.answer import Columns, Entry, Setups
from bandweave.cli.plan.column_table import NONE, range_text, short_kind
from bandweave.cli.plan.report import say, say_model, say_work
from bandweave.planning.costs.cost import decode_range
from bandweave.planning.costs.economy import economy
from bandweave.planning.costs.software import software_title


def show_comparison(setups: Setups, usd_per_kwh: float) -> None:
    """Setups side by side, and what is to be said of those that do not hold the model."""
    say_model(setups.question)
    say_work(setups.question)
    output.print_text()
    for entry in setups.entries:
        say(f"{entry.letter}: {setup_title(entry)}")
    output.print_table(COMPARED, comparison_rows(setups, usd_per_kwh))
    for sentence in comparison_notes(setups):
        say(sentence)


def setup_title(entry: Entry) -> str:
    """Its machines, what joins them, and the software that is counted there."""
    software = "" if entry.columns is None else f", with {software_title(entry.columns.engine)}"
    return f"{entry.machines.described}{entry.machines.assumption}{software}"


COMPARED = ("", "split", "decode/s", "prefill/s", "today/s", "J/token", "$/M", "$/(tok/s)")


def comparison_rows(setups: Setups, usd_per_kwh: float) -> list[list[str]]:
    """Cells of the table of setups, by ``COMPARED``."""
    rows = []
    for entry in setups.entries:
        if entry.columns is None:
            rows.append([entry.letter, "does not fit", *[NONE] * 6])
            continue
        best = entry.columns.limit.best
        money = economy(best.deployment, best.decode, usd_per_kwh=usd_per_kwh)
        rows.append([
            entry.letter,
            short_kind(entry.columns.limit),
            range_text(decode_range(best.deployment, best.question.decoding)),
            output.rate(best.prefill.tokens_per_s),
            _today_figure(entry.columns),
            NONE if money.joules_per_token is None else figures.figure(money.joules_per_token),
            _dash(money.usd_per_million_tokens, "{:.2f}"),
            _dash(money.usd_per_token_per_s, "{:.0f}"),
        ])  # fmt: skip
    return rows


def comparison_notes(setups: Setups) -> list[str]:
    """Which is quickest, what the columns mean, and what does not fit."""
    fitting = [entry for entry in setups.entries if entry.columns is not None]
    sentences = []
    if len(fitting) > 1:
        ranked = sorted(fitting, key=lambda e: e.columns.limit.best.seconds if e.columns else 0.0)
        seconds = [e.columns.limit.best.seconds for e in ranked if e.columns is not None]
        factor = seconds[1] / seconds[0]
        lead = (
            f"{ranked[0].letter} is the quickest, {factor:.2f} times as fast as {ranked[1].letter}."
            if factor >= 1.05
            else f"{ranked[0].letter} and {ranked[1].letter} are about as fast."
        )
        sentences.append(lead)
    sentences.append(
        "decode and prefill: tokens/s with the software named; today: bandweave, on the "
        "processor; $/M: electricity for a million tokens; $/(tok/s): the machines' price."
    )
    sentences += [
        f"{entry.letter} does not fit: {entry.shortage}."
        for entry in setups.entries
        if entry.columns is None
    ]
    return sentences


def _today_figure(columns: Columns) -> str:
    if columns.today is None or columns.hypothetical:
        return NONE
    return output.rate(columns.today.best.decode.tokens_per_s)


def _dash(value: float | None, style: str) -> str:
    return NONE if value is None else style.format(value)
