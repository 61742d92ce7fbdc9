"""Conversation: the messages of a chat, and which of them still fit. Knows no tokens' ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Messages = list[dict[str, str]]


@dataclass(kw_only=True)
class Conversation:
    """Questions and answers in turn, after an optional system message."""

    system: str | None = None
    turns: Messages = field(default_factory=list)

    def messages(self) -> Messages:
        """All messages, the system's first."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return first + self.turns

    def ask(self, text: str) -> None:
        self.turns.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        """An answer that was cut before its first word takes its question with it: templates want
        questions and answers in turn."""
        if text.strip():
            self.turns.append({"role": "assistant", "content": text})
        else:
            self.take_back()

    def take_back(self) -> None:
        """Forgets the last question."""
        self.turns.pop()

    def reset(self) -> None:
        """Forgets everything but the system message."""
        self.turns.clear()

    def fit(
        self, encode: Callable[[Messages], Sequence[int]], room: int
    ) -> tuple[Sequence[int], int]:
        """The tokens of the messages, and how many of the oldest turns were dropped so that they
        are at most ``room``; the last question is never dropped."""
        tokens, dropped = encode(self.messages()), 0
        while len(tokens) > room and len(self.turns) > 1:
            del self.turns[:2]  # a question and its answer
            dropped += 1
            tokens = encode(self.messages())
        return tokens, dropped
