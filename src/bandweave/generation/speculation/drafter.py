"""Drafter: whatever guesses the tokens that come next.

A guess costs time where it is wrong and never shows in an answer. How guesses are made is the
business of ``ngram_drafter`` and ``model_drafter``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bandweave.generation.request import Request


class Feedback(Protocol):
    """What a drafter sees of a sequence: its name, the request, and the answer so far; ``reuse``:
    whether it may begin with what was computed for others."""

    @property
    def id(self) -> int: ...

    @property
    def request(self) -> Request: ...

    @property
    def answer(self) -> Sequence[int]: ...

    @property
    def reuse(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """How many tokens a drafter could guess, and what kind of guess it is: guesses of one kind are
    about equally often right. ``count`` 0 where there is nothing to go by."""

    count: int
    kind: int = 0


class Drafter(Protocol):
    """Guesses for several sequences; ``id`` tells them apart until ``end``."""

    @property
    def progress(self) -> int:
        """Goes up while it works; any thread may look."""
        ...

    def propose(self, one: Feedback, most: int) -> Proposal:
        """What could be guessed now, at most ``most`` tokens. Cheap."""
        ...

    def draft(self, wanted: Sequence[tuple[Feedback, int]]) -> list[list[int]]:
        """The next tokens of each sequence, as many as are wanted of each, which is no more than
        was proposed; fewer where it comes to an end."""
        ...

    def end(self, id: int) -> None:
        """That sequence is done."""
        ...
