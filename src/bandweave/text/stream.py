"""TextStream: an answer's text as it grows, up to a stop string.

Whatever the token boundaries are, every piece is whole characters, the pieces in a row are the
answer, and no part of a stop string is ever shown. Knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

from bandweave.text.detokenizer import Detokenizer


class TextStream:
    """Fed an answer's token ids one at a time.

    Stops at the stop string that is complete first, the longest of several that end there; so the
    answer does not depend on the token boundaries. ``stopped_by`` is that stop string, else None.
    """

    def __init__(self, detokenizer: Detokenizer, stop: Sequence[str] = ()) -> None:
        """``ValueError`` for an empty stop string."""
        if isinstance(stop, str):
            raise ValueError(f"stop is {stop!r}; it must be a list of strings")
        self._detokenizer = detokenizer
        # The longest first: of two that end at the same place it starts earlier.
        self._matchers = [_Matcher(text) for text in sorted(set(stop), key=len, reverse=True)]
        self._held = ""  # may be the start of a stop string
        self.stopped_by: str | None = None

    @property
    def finished(self) -> bool:
        """Whether a stop string was met; no more text follows."""
        return self.stopped_by is not None

    def push(self, token: int) -> str:
        """The text to show next, possibly empty; always empty once finished."""
        if self.finished:
            return ""
        return self._advance(self._detokenizer.push(token))

    def flush(self) -> str:
        """The rest of the text when no token follows; it may still meet a stop string."""
        if self.finished:
            return ""
        text = self._advance(self._detokenizer.flush())
        if not self.finished:
            text, self._held = text + self._held, ""
        return text

    def _advance(self, text: str) -> str:
        if not self._matchers:
            return text
        before = self._held + text
        start = len(self._held)
        for index, character in enumerate(text, start + 1):
            for matcher in self._matchers:
                if matcher.advance(character):
                    self._held = ""
                    self.stopped_by = matcher.text
                    return before[: index - len(matcher.text)]
        held = max(matcher.matched for matcher in self._matchers)
        keep = len(before) - held
        self._held = before[keep:]
        return before[:keep]


class _Matcher:
    """How much of one stop string the text so far ends in (Knuth, Morris and Pratt 1977)."""

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("a stop string is empty; give at least one character")
        self.text = text
        self.matched = 0
        # _shorter[n]: the longest proper prefix of text that its first n characters end in.
        self._shorter = [0, 0]
        length = 0
        for character in text[1:]:
            while length and text[length] != character:
                length = self._shorter[length]
            length += text[length] == character
            self._shorter.append(length)

    def advance(self, character: str) -> bool:
        """Takes the next character; whether the stop string is complete with it."""
        while self.matched and self.text[self.matched] != character:
            self.matched = self._shorter[self.matched]
        self.matched += self.text[self.matched] == character
        return self.matched == len(self.text)
