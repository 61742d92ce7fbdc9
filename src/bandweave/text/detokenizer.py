"""Detokenizers: token ids, one at a time, to text, one piece at a time.

A token may end in the middle of a character; what is not a character yet is held back. The work
is linear in the length of the answer. Knows no stop strings.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol

_REPLACEMENT = "\ufffd"  # what an incomplete or invalid character decodes to
# A character has at most four bytes and a token at least one, a few (a dropped space) none: text
# that still ends in the replacement after eight more tokens is invalid rather than incomplete.
_MAX_HELD_TOKENS = 8


class Detokenizer(Protocol):
    """Turns one answer's ids into text; the pieces in a row are the whole text."""

    def push(self, token: int) -> str:
        """The text that the next token completes; may be empty."""
        ...

    def flush(self) -> str:
        """The text held back, when no token follows."""
        ...


class ByteDetokenizer:
    """For vocabularies of byte strings: exact for any bytes whatever.

    ``token_bytes`` gives a token's bytes, none for one that is not shown. Invalid bytes become
    U+FFFD, one for each maximal part of a character, as in a decode of the whole answer.
    ``drops_space``: whether a space that the answer starts with is none of its text.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], *, drops_space: bool = False) -> None:
        self._token_bytes, self._drops_space = token_bytes, drops_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        content = self._token_bytes(token)
        if self._drops_space and content:
            content = content.removeprefix(b" ")
            self._drops_space = False
        return self._decoder.decode(content)

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """For any other vocabulary: decodes a short window of tokens with and without the new one.

    ``decode`` may treat the first token of its input in its own way (dropping a space), so the
    window starts with tokens that have been shown already: at first those of ``before``, which the
    answer goes on from. Equal to a decode of the whole where ``decode`` looks no further back than
    that. ``skips`` says which tokens it leaves out.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        skips: Callable[[int], bool] = lambda token: False,
        before: Sequence[int] = (),
    ) -> None:
        self._decode, self._skips = decode, skips
        self._window = [token for token in before if not skips(token)]
        self._shown = len(self._window)  # tokens of the window whose text has been given out
        self._shown_text = decode(self._window) if self._window else ""

    def push(self, token: int) -> str:
        if self._skips(token):
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        held = len(self._window) - self._shown
        if text.endswith(_REPLACEMENT) and held < _MAX_HELD_TOKENS:
            return ""
        if len(text) <= len(self._shown_text) and held < _MAX_HELD_TOKENS:
            return ""  # a token without text of its own
        return self._show(text)

    def flush(self) -> str:
        return self._show(self._decode(self._window)) if self._window else ""

    def _show(self, text: str) -> str:
        piece = text[len(self._shown_text) :]
        del self._window[: self._shown]
        self._shown = len(self._window)
        self._shown_text = self._decode(self._window)
        return piece
