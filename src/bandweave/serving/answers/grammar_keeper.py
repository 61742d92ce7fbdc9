"""GrammarKeeper: whether grammars can be kept to, found before an engine hears of them."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from typing import Any

from bandweave.serving.answers.teller import Teller
from bandweave.serving.answers.token_engine import TokenEngine
from bandweave.serving.errors import bad, unavailable
from bandweave.text.tokenizer import Tokenizer

_REMEMBERED = 512  # grammars
_BUSY_SECONDS = 5.0
_MOST_CHARACTERS = 1 << 20


class GrammarKeeper:
    """One check at a time, in a thread of its own, for which no end of the server waits:
    what is hostile waits for what is hostile."""

    def __init__(self, engine: TokenEngine, tokenizer: Tokenizer) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._teller = Teller()
        self._known: dict[str, str] = {}  # what is wrong with each
        self._learnt = False

    async def check(self, grammar: str, vocab_size: int, param: str) -> None:
        """``ApiError`` 400 for a grammar that cannot be kept to: one that is none, one that takes
        too much, and any where the library for them is not installed; 503 where the machine is too
        busy to find out. Tells the engine the vocabulary, the first time. ``grammar``: without
        tokens of its own; ``param``: the field that it comes from."""
        if importlib.util.find_spec("llguidance") is None:
            raise bad(f"{param} needs the library for grammars, which is not installed here; "
                      "install it with pip install 'bandweave[serve]'", param)  # fmt: skip
        if len(grammar) > _MOST_CHARACTERS:
            raise bad(f"{param} is too large: {len(grammar)} characters as a grammar, where there "
                      f"may be {_MOST_CHARACTERS}", param)  # fmt: skip
        wrong = self._known.get(grammar)
        if wrong is None:
            try:
                wrong = await self._run(lambda: self._look(grammar))
            except TimeoutError as error:
                raise unavailable(f"{param} cannot be checked: the machine is too busy",
                                  _BUSY_SECONDS) from error  # fmt: skip
        if wrong:
            raise bad(f"{param} cannot be kept to: {wrong}", param)
        if not self._learnt and (wrong := await self._run(lambda: self._learn(vocab_size))):
            raise bad(f"{param} cannot be kept to: {wrong}", param)

    async def _run(self, work: Callable[[], str]) -> str:
        """What ``work`` gives, which is left undone where nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def settle(how: Callable[[Any], None], what: str | Exception) -> None:
            if not answer.done():
                how(what)

        def do() -> None:
            if not answer.cancelled():
                loop.call_soon_threadsafe(settle, answer.set_result, work())

        def fail(error: Exception) -> None:
            loop.call_soon_threadsafe(settle, answer.set_exception, error)

        self._teller.tell(do, fail)
        return await answer

    def _look(self, grammar: str) -> str:
        """What is wrong with it. In the teller's thread; many may have asked at the same time."""
        known = self._known
        if grammar not in known:
            known[grammar] = _check(grammar)
            if len(known) > _REMEMBERED:
                del known[next(iter(known))]
        return known[grammar]

    def _learn(self, vocab_size: int) -> str:
        """Why the engine cannot have grammars; empty once it knows the vocabulary."""
        if self._learnt:
            return ""
        texts = [self._tokenizer.added_bytes(token) for token in range(vocab_size)]
        try:
            self._engine.learn(texts, self._tokenizer.eos_token_ids)
        except ValueError as error:
            return str(error)
        self._learnt = True
        return ""


def _check(grammar: str) -> str:
    from bandweave.generation.grammar_checker import check_grammar

    return check_grammar(grammar)
