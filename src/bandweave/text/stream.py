"""TextStream: an answer's text as it grows, up to a stop string.

Whatever the token boundaries are, every piece is whole characters, the pieces in a row are the
answer, and no part of a stop string is ever shown. Knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bandweave.text.detokenizer import Detokenizer


class TextStream:
    """Fed an answer's token ids one at a time.

    Stops at the stop string that is complete first, the one of several that end there which starts
    first; so the answer does not depend on the token boundaries. ``stopped_by`` is that stop
    string, else None.

    A stop string is looked for in the text that is shown, and in the text with the names of the
    tokens in their places that are never shown: so ``<|end|>`` stops where that is such a token. A
    part of such a name stops nothing.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop: Sequence[str] = (),
        *,
        hidden: Callable[[int], str] = lambda token: "",
        marks: Mapping[int, str] | None = None,
    ) -> None:
        """``hidden``: the name of a token that is never shown, nothing for any other. ``marks``: a
        character for each of those whose places are told nevertheless; stop strings do not see it.
        ``ValueError`` for an empty stop string."""
        if isinstance(stop, str):
            raise ValueError(f"stop is {stop!r}; it must be a list of strings")
        self._detokenizer, self._hidden, self._marks = detokenizer, hidden, marks or {}
        texts = sorted(set(stop))
        self._in_shown = [_Matcher(text) for text in texts]
        self._in_whole = [_Matcher(text) for text in texts]
        # The end of the text, with what is not shown: it may be the start of a stop string.
        self._held: list[_Character] = []
        self.stopped_by: str | None = None

    @property
    def finished(self) -> bool:
        """Whether a stop string was met; no more text follows."""
        return self.stopped_by is not None

    def push(self, token: int) -> str:
        """The text to show next, possibly empty; always empty once finished."""
        if self.finished:
            return ""
        mark = self._marks.get(token, "")
        # Whatever is incomplete before a mark stays so: its rest does not come behind.
        before = self._detokenizer.flush() if mark else ""
        if not self._in_whole:
            return before + mark + self._detokenizer.push(token)
        text = self._advance(map(_Character, before))
        name = self._hidden(token)
        last = len(name) - 1
        if not self.finished:
            text += self._advance(
                [_Character(character, hides=True, starts=i == 0, ends=i == last,
                            mark=mark if i == last else "")
                 for i, character in enumerate(name)]
            )  # fmt: skip
        if not self.finished:
            text += self._advance(map(_Character, self._detokenizer.push(token)))
        return text

    def flush(self) -> str:
        """The rest of the text when no token follows; it may still meet a stop string."""
        if self.finished:
            return ""
        if not self._in_whole:
            return self._detokenizer.flush()
        text = self._advance(map(_Character, self._detokenizer.flush()))
        if not self.finished:
            text += self._release(len(self._held))
        return text

    def _advance(self, characters: Iterable[_Character]) -> str:
        """What can be shown once these characters follow."""
        for character in characters:
            self._held.append(character)
            stop = self._met(character)
            if stop is not None:
                place, self.stopped_by = stop
                return self._release(place)
        return self._release(len(self._held) - self._needed())

    def _met(self, character: _Character) -> tuple[int, str] | None:
        """The stop string that a character completes, behind where in the held text it starts;
        None where none is complete. Every matcher takes the character."""
        found: list[tuple[int, str]] = []
        for matcher in self._in_whole:
            if matcher.advance(character.text) and character.ends:
                place = len(self._held) - len(matcher.text)
                if self._held[place].starts:
                    found.append((place, matcher.text))
        if not character.hides:
            for matcher in self._in_shown:
                if matcher.advance(character.text):
                    found.append((self._place(len(matcher.text)), matcher.text))
        return min(found, default=None)

    def _place(self, count: int) -> int:
        """Where in the held text its last ``count`` shown characters start."""
        place = len(self._held)
        while count:
            place -= 1
            count -= not self._held[place].hides
        return place

    def _needed(self) -> int:
        """How much of the end of the held text may be the start of a stop string."""
        whole = max(matcher.matched for matcher in self._in_whole)
        shown = max(matcher.matched for matcher in self._in_shown)
        return max(whole, len(self._held) - self._place(shown))

    def _release(self, count: int) -> str:
        """What is told of the first ``count`` characters that are held, which then are no more."""
        text = "".join(one.mark if one.hides else one.text for one in self._held[:count])
        del self._held[:count]
        return text


@dataclass(frozen=True, slots=True)
class _Character:
    """A character of the text, or one of the name of a token that hides: whether that name starts
    and ends with it, and the mark that is told in its place."""

    text: str
    hides: bool = False
    starts: bool = True
    ends: bool = True
    mark: str = ""


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
        if self.matched == len(self.text):  # it was complete, and did not count
            self.matched = self._shorter[self.matched]
        while self.matched and self.text[self.matched] != character:
            self.matched = self._shorter[self.matched]
        self.matched += self.text[self.matched] == character
        return self.matched == len(self.text)
