"""How ``plan --users`` shows conversations on a terminal of 80 columns. Decides nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from bandweave.cli import output
from bandweave.cli.plan.answer import Setups
from bandweave.planning.search.conversation import ConversationCost, Turn
from bandweave.planning.search.explain import layout_phrase

_WIDTH = 80
_SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def show_conversations(
    setups: Setups, costs: Mapping[str, ConversationCost], own: Mapping[str, ConversationCost]
) -> None:
    """A table of turns for each setup, and a sentence on what bandweave does there (``own``)."""
    several = len(setups.entries) > 1
    for entry in setups.entries:
        if entry.letter in costs:
            output.print_text()
            prefix = f"{entry.letter}: {entry.machines.title}: " if several else ""
            _show(costs[entry.letter], prefix)
            if entry.letter in own:
                _say(_today(own[entry.letter]))


def conversation_sentences(cost: ConversationCost) -> list[str]:
    """What the turns come to, and what a prefix cache makes of them."""
    talk, last = cost.conversation, cost.turns[-1]
    who = "the user" if talk.users == 1 else f"each of {talk.users} users"
    sentences = [
        f"{output.count(talk.turns, 'turn')} for {who}: {_wait(cost.seconds)} in all, "
        "without anybody's pauses."
    ]
    if last.last_first_token_s > last.first_token_s * 1.01:
        sentences.append(
            "All ask at once: prompts are read one after another, then all answers are written "
            "together. First tokens come after the first and the last of these times."
        )
    kept, again = cost.kept[-1], cost.again[-1]
    factor = again.last_first_token_s / kept.last_first_token_s
    if talk.turns > 1 or talk.prefix:
        which = "the first" if talk.users == 1 else "the last user's first"
        words = (
            f"in turn {last.number} {which} token comes after "
            f"{_wait(kept.last_first_token_s)} where the engine keeps what it has read, "
            f"after {_wait(again.last_first_token_s)} where it reads all of it again "
            f"(x{factor:.3g})"
        )
        sentences.append(f"What a prefix cache does: {words}.")
        if not talk.reuse and factor > 1.5:
            sentences.append(
                "--reuse counts with such an engine: vLLM, SGLang, llama.cpp's server, and "
                "bandweave serve keep it."
            )
    return sentences


def turn_rows(cost: ConversationCost) -> list[list[str]]:
    """Some of the turns as cells: number, cached, read, first token, speed, whole turn."""
    return [_cells(turn) for turn in _some(cost.turns)]


HEADINGS = ("turn", "in the cache", "to read", "first token after", "tokens/s each", "turn takes")


def _show(cost: ConversationCost, prefix: str) -> None:
    talk = cost.conversation
    begin = f"behind {talk.prefix} tokens that all share, " if talk.prefix else ""
    keeps = "keeps what it has read" if talk.reuse else "reads all of it again each turn"
    _say(
        f"{prefix}{output.count(talk.users, 'conversation')} of {output.count(talk.turns, 'turn')}"
        f", {begin}prompts of {talk.prompt} and answers of {talk.answer} tokens; the engine "
        f"{keeps}; {layout_phrase(cost.plan)}."
    )
    output.print_table(HEADINGS, turn_rows(cost))
    for sentence in conversation_sentences(cost):
        _say(sentence)


def _today(cost: ConversationCost) -> str:
    last = cost.turns[-1]
    return (
        f"bandweave today: in turn {last.number} first tokens after {_wait(last.first_token_s)} to "
        f"{_wait(last.last_first_token_s)}, {output.rate(last.tokens_per_s)} tokens/s each; "
        f"{_wait(cost.seconds)} in all."
    )


def _some(turns: tuple[Turn, ...]) -> list[Turn]:
    return [turn for turn in turns if turn.number in _SHOWN or turn is turns[-1]]


def _cells(turn: Turn) -> list[str]:
    first = output.seconds(turn.first_token_s)
    if turn.last_first_token_s > turn.first_token_s * 1.01:
        first = f"{first} to {output.seconds(turn.last_first_token_s)}"
    return [
        str(turn.number),
        str(turn.cached),
        str(turn.read),
        first,
        output.rate(turn.tokens_per_s),
        output.seconds(turn.seconds),
    ]


def _wait(value: float) -> str:
    return output.seconds(value) if value < 90 else output.duration(value)


def _say(sentence: str) -> None:
    output.print_text(textwrap.fill(sentence, _WIDTH, break_on_hyphens=False))
