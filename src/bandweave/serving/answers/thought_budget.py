"""Thought budgets: thoughts that end after so many tokens, for models whose thoughts close with a
token of their own."""

from __future__ import annotations

from bandweave.generation.thought_limit import ThoughtLimit
from bandweave.serving.answers.conversation import Prepared
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import unsupported

_ANYTHING = "start: /(?s:.*)/\n"


async def with_budget(served: Served, prepared: Prepared, most: int, param: str) -> str:
    """The grammar of an answer that thinks for at most so many tokens. ``ApiError`` 400 where that
    cannot be; ``param`` is the client's name for it."""
    syntax = prepared.syntax
    if syntax.speaks:
        return prepared.grammar
    opens = served.tokenizer.token_to_id(syntax.think_open) if syntax.think_open else None
    closes = served.tokenizer.token_to_id(syntax.think_close) if syntax.think_close else None
    if opens is None or closes is None:
        raise unsupported(param, "this model's thoughts cannot be ended early; leave it out")
    await served.answering.grammars.check(_ANYTHING, served.vocab_size, param)
    limit = ThoughtLimit(most=most, opens=opens, closes=closes, begun=syntax.thinks)
    return limit.before(prepared.grammar)
