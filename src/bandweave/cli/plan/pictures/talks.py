"""The picture of conversations: how long each turn lets its user wait, and how fast it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bandweave.cli import output
from bandweave.cli.plan.answer import Setups
from bandweave.cli.plan.pictures.bars import Line, draw_lines
from bandweave.cli.plan.pictures.figure import footer_text, inline_svg, panels, save
from bandweave.planning.costs.cost import Prediction
from bandweave.planning.search.conversation import ConversationCost, Turn

_HEIGHTS = (3.1, 3.1)
_MOST_TICKS = 10


def draw_conversations(setups: Setups, costs: Mapping[str, ConversationCost], path: Path) -> None:
    """Into a file."""
    with panels(_HEIGHTS, title=_title(setups, costs)) as (figure, axes):
        _draw(axes, setups, costs)
        save(figure, path, footer_text(published=False))


def conversations_svg(setups: Setups, costs: Mapping[str, ConversationCost]) -> str:
    """For a page."""
    with panels(_HEIGHTS, title=_title(setups, costs)) as (figure, axes):
        _draw(axes, setups, costs)
        return inline_svg(figure, footer_text(published=False), "conversations")


def _title(setups: Setups, costs: Mapping[str, ConversationCost]) -> str:
    question, talk = setups.question, next(iter(costs.values())).conversation
    one = f" on {setups.fitting[0].machines.title}" if len(setups.entries) == 1 else ""
    return (
        f"{question.model.name} in {question.weights.name}{one}: "
        f"{output.count(talk.users, 'conversation')} of {output.count(talk.turns, 'turn')}, "
        f"prompts of {talk.prompt} and answers of {talk.answer} tokens"
    )


def _draw(axes: Sequence[Any], setups: Setups, costs: Mapping[str, ConversationCost]) -> None:
    talk = next(iter(costs.values())).conversation
    step = max(1, -(-talk.turns // _MOST_TICKS))
    shown = [n for n in range(1, talk.turns + 1) if (n - 1) % step == 0 or n == talk.turns]
    ticks = {float(n): str(n) for n in shown}
    waits, speeds = [], []
    for colour, (letter, cost) in enumerate(costs.items()):
        name = letter if len(setups.entries) > 1 else ""
        for kept, turns in ((True, cost.kept), (False, cost.again)):
            words = "kept" if kept else "read again"
            title = f"{name}, {words}" if name else f"what was read is {words}"
            picked = [turns[n - 1] for n in shown]
            waits.append(_wait(title, picked,
                               colour if name else int(not kept), dashed=not kept))  # fmt: skip
        speeds.append(
            Line(
                title=f"{name}: {setups_title(setups, letter)}" if name else "",
                xs=tuple(map(float, shown)),
                colour=colour,
                spans=tuple(_exactly(cost.turns[n - 1].tokens_per_s) for n in shown),
            )  # fmt: skip
        )
    who = ", of the first and the last of all who ask at once" if talk.users > 1 else ""
    draw_lines(axes[0], waits, title=f"First token after{who}", unit="seconds", across="turn",
               ticks=ticks, logarithmic=False, shown=output.seconds)  # fmt: skip
    each = ", for each user" if talk.users > 1 else ""
    draw_lines(axes[1], speeds, title=f"Answering{each}", unit="tokens/s", across="turn",
               ticks=ticks, logarithmic=False)  # fmt: skip


def setups_title(setups: Setups, letter: str) -> str:
    """The machines behind a letter."""
    return next(entry.machines.title for entry in setups.entries if entry.letter == letter)


def _wait(title: str, turns: Sequence[Turn], colour: int, *, dashed: bool) -> Line:
    return Line(
        title=title, xs=tuple(float(turn.number) for turn in turns), colour=colour, dashed=dashed,
        spans=tuple(
            Prediction(likely=turn.last_first_token_s, low=turn.first_token_s,
                       high=turn.last_first_token_s) for turn in turns
        ),
    )  # fmt: skip


def _exactly(value: float) -> Prediction:
    return Prediction(likely=value, low=value, high=value)
