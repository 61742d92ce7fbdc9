"""Drafting: guesses at the tokens that come next, which a step then checks all at once.

A guess costs time where it is wrong and never shows in an answer. Knows nothing of how guesses are
made; `generation.ngram` and `generation.draft_model` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bandweave.generation.request import Request


class Told(Protocol):
    """What a drafter sees of an answer under way: its place in the batch, prompt and tokens."""

    @property
    def index(self) -> int: ...

    @property
    def request(self) -> Request: ...

    @property
    def answer(self) -> Sequence[int]: ...


@dataclass(frozen=True, kw_only=True)
class Offer:
    """How many tokens a drafter could guess, and what kind of guess it is: guesses of one kind are
    about equally often right. ``count`` 0 where there is nothing to go by."""

    count: int
    kind: int = 0


class Drafter(Protocol):
    """Guesses for several answers; ``index`` tells them apart until ``end``."""

    @property
    def progress(self) -> int:
        """Goes up while it works; any thread may look."""
        ...

    def offer(self, one: Told, most: int) -> Offer:
        """What could be guessed now, at most ``most`` tokens. Cheap."""
        ...

    def draft(self, wanted: Sequence[tuple[Told, int]]) -> list[list[int]]:
        """The next tokens of each answer, as many as are wanted of each, which is no more than was
        offered; fewer where it comes to an end."""
        ...

    def end(self, index: int) -> None:
        """That answer is done."""
        ...

    def forget(self) -> None:
        """Keeps nothing of answers that are done."""
        ...
