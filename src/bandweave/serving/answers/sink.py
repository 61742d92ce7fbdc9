"""Sink: where a splitter's readers put what they find, which becomes events."""

from __future__ import annotations

from collections.abc import Callable

from bandweave.serving.answers.events import (
    CallArguments,
    CallBegun,
    Event,
    Text,
    Thought,
    TokenInfo,
)
from bandweave.serving.answers.marks import shown
from bandweave.serving.identifiers import new_id

_HELD = 256  # characters of a call that may still turn out to be none


class Sink:
    """``calls`` that were begun. ``thinking``: whether the answer thinks at the moment. Tokens come
    with the next piece of text or thought; ``thought_tokens`` are those that came with thoughts."""

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self.calls = self.thought_tokens = 0
        self.thinking = False
        self._events: list[Event] = []
        self._tokens: list[TokenInfo] = []
        self._spaces = ""
        self._spoke = self._thought = self._parts = False

    # --- what the splitter does ---

    def token(self, info: TokenInfo) -> None:
        self._tokens.append(info)

    def take(self) -> list[Event]:
        """The events since the last time."""
        if self._events and self._tokens:
            self._add(Thought if self.thinking else Text, "")
        events, self._events = self._events, []
        return events

    def end(self) -> list[Event]:
        """The last events."""
        if self._spaces and not self.thinking and not self.calls:
            self._add(Text, self._spaces)
        if self._tokens:
            self._add(Thought if self.thinking else Text, "")
        return self.take()

    # --- what readers find ---

    def raw(self, text: str) -> None:
        """What is said, exactly."""
        if text := shown(text):
            self._spoke = True
            self._add(Text, text)

    def text(self, text: str) -> None:
        """What is said, without white space next to thoughts and calls."""
        if said := self._without_spaces(text, self._parts and not self._spoke):
            self._spoke = True
            self._add(Text, said)

    def think(self) -> None:
        """Thoughts begin."""
        self.thinking, self._spaces, self._thought = True, "", False

    def thought(self, text: str) -> None:
        if thought := self._without_spaces(text, not self._thought):
            self._thought = True
            self._add(Thought, thought)

    def speak(self) -> None:
        """Thoughts end."""
        if self._tokens:
            self._add(Thought, "")
        self.thinking, self._spaces, self._parts = False, "", True

    def _without_spaces(self, text: str, at_start: bool) -> str:
        """A text, but for white space at its end, which is held back, and at the start."""
        text = self._spaces + shown(text)
        if at_start:
            text = text.lstrip()
        found = text.rstrip()
        self._spaces = text[len(found) :]
        return found

    def _add(self, kind: type[Text] | type[Thought], text: str) -> None:
        self.thought_tokens += len(self._tokens) if kind is Thought else 0
        self._events.append(kind(self._choice, text, tuple(self._tokens)))
        self._tokens = []

    def begin(self, name: str) -> Callable[[str], None]:
        """A call has begun; gives what takes its arguments."""
        number, self.calls = self.calls, self.calls + 1
        self._spaces, self._parts = "", True
        self._events.append(CallBegun(self._choice, number, new_id("call"), name))
        return lambda text: self._events.append(CallArguments(self._choice, number, text))


class Call:
    """A call that is being read. Its first characters are held back, for it may be none."""

    def __init__(self, sink: Sink, on_told: Callable[[], None]) -> None:
        self._sink, self._on_told = sink, on_told
        self._held = ""
        self._name = ""
        self._tell: Callable[[str], None] | None = None

    @property
    def told(self) -> bool:
        """Whether its name is known to the client."""
        return self._tell is not None

    @property
    def named(self) -> bool:
        return bool(self._name)

    def name(self, name: str) -> None:
        self._name = name

    def arguments(self, text: str) -> None:
        if not text:
            return
        if self._tell is not None:
            self._tell(text)
            return
        self._held += text
        if len(self._held) > _HELD and self._name:
            self.tell()

    def tell(self) -> None:
        """It is one."""
        if self._tell is None:
            self._tell = self._sink.begin(self._name)
            self._on_told()
            if self._held:
                self._tell(self._held)
