"""Guidance: grammars by ``llguidance``, over the bytes of a vocabulary's tokens.

Masks come from its Earley parser, some ten microseconds each. Its own limits bound what a hostile
grammar takes. An extra: ``pip install 'bandweave[serve]'``.
"""

from __future__ import annotations

from collections.abc import Sequence

import llguidance
import numpy as np
import numpy.typing as npt
from llguidance import numpy as masks

from bandweave.generation.grammar import Mask, Matcher
from bandweave.generation.grammar_check import first_line, grammar_limits
from bandweave.generation.sampling import NoTokenError
from bandweave.generation.thought_limit import LimitedMatcher, split_limit

_MOST_CHARACTERS = 1 << 20


class _Vocabulary:
    """What ``llguidance`` asks of a tokenizer."""

    def __init__(self, texts: Sequence[bytes], end_token: int) -> None:
        # Those that are no text need names, for alike tokens are one to the library.
        self.tokens = [bytes(text) or b"<|%d|>" % token for token, text in enumerate(texts)]
        self.eos_token_id, self.bos_token_id = end_token, None
        self.special_token_ids = [token for token, text in enumerate(texts) if not text]
        self._longest = max(map(len, texts), default=0)
        self._by_text = {text: token for token, text in reversed(list(enumerate(texts))) if text}

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens of a text, the longest first; the library checks what it forces with it."""
        rest, found = text.encode() if isinstance(text, str) else bytes(text), list[int]()
        while rest:
            for length in range(min(self._longest, len(rest)), 0, -1):
                token = self._by_text.get(rest[:length])
                if token is not None:
                    found.append(token)
                    rest = rest[length:]
                    break
            else:
                rest = rest[1:]
        return found


class Guidance:
    """Grammars over one vocabulary: ``texts`` are the bytes of its tokens, empty for those that are
    no text; ``end_tokens`` may end an answer wherever the grammar may end."""

    def __init__(self, texts: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        if not end_tokens:
            raise ValueError("the model has no token that ends an answer, as grammars need")
        self._size, self._end_tokens = len(texts), tuple(end_tokens)
        self._texts = tuple(texts)
        wrapper = llguidance.TokenizerWrapper(_Vocabulary(texts, end_tokens[0]))
        self._tokenizer = llguidance.LLTokenizer(wrapper, eos_token=list(end_tokens))
        self._limits = grammar_limits()

    def matcher(self, grammar: str) -> Matcher:
        """``ValueError`` for what is no grammar, or one that takes too much. A limit of thoughts
        may stand before it, or alone."""
        limit, grammar = split_limit(grammar)
        if limit is None:
            return self._grammar(grammar)
        inner = self._grammar(grammar) if grammar else None
        return LimitedMatcher(inner, limit, self._texts)

    def _grammar(self, grammar: str) -> Matcher:
        if len(grammar) > _MOST_CHARACTERS:
            raise ValueError(f"a grammar of {len(grammar)} characters; at most {_MOST_CHARACTERS}")
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise ValueError(f"the grammar cannot be used: {first_line(matcher.get_error())}")
        return _Matcher(matcher, self._size, self._end_tokens)


class _Matcher:
    def __init__(
        self, matcher: llguidance.LLMatcher, size: int, end_tokens: tuple[int, ...]
    ) -> None:
        self._matcher, self._size, self._end_tokens = matcher, size, end_tokens
        self._bits = masks.allocate_token_bitmask(1, size)

    def allowed(self) -> Mask:
        if self._matcher.is_stopped():
            allowed = np.zeros(self._size, np.bool_)
            allowed[list(self._end_tokens)] = True
            return allowed
        masks.fill_next_token_bitmask(self._matcher, self._bits, 0)
        if self._matcher.is_error():
            raise NoTokenError(f"the grammar failed: {first_line(self._matcher.get_error())}")
        bits: npt.NDArray[np.uint8] = np.unpackbits(self._bits.view(np.uint8), bitorder="little")
        allowed = bits[: self._size].astype(np.bool_)
        allowed[list(self._end_tokens)] = allowed[self._end_tokens[0]]
        return allowed

    def accept(self, token: int) -> None:
        if token not in self._end_tokens:
            self._matcher.consume_token(token)
