"""Splitter: an answer's text into thoughts, calls of tools, and what is said."""

from __future__ import annotations

from bandweave.serving.answers.events import Event, Text, TokenInfo
from bandweave.serving.answers.syntax import Syntax


class Splitter:
    """Fed an answer's text piece by piece. ``calls``: of tools, so far; ``thought_tokens``: tokens
    that came while it thought."""

    def __init__(self, choice: int, syntax: Syntax) -> None:
        self._choice, self._syntax = choice, syntax
        self.calls = 0
        self.thought_tokens = 0

    def push(self, text: str, token: TokenInfo) -> list[Event]:
        """What a token adds: its text, or text that was held back before it."""
        return [Text(self._choice, text, (token,))]

    def flush(self, text: str) -> list[Event]:
        """The rest of the text; nothing follows."""
        return [Text(self._choice, text)] if text else []
