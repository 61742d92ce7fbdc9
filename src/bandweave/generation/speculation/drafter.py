"""Drafter: whatever guesses the tokens that come next.

A guess costs time where it is wrong and never shows in an answer. How guesses are made is the
business of ``ngram_drafter``, ``model_drafter`` and ``layer_drafter``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bandweave.generation.pages import Cached
from bandweave.generation.request import Request
from bandweave.generation.sampling import NoTokenError, sample

F32 = npt.NDArray[np.float32]


class Feedback(Protocol):
    """What a drafter sees of a sequence: its name, the request, the answer so far, and what of both
    the model has ``cached``; ``reuse``: whether it may begin with what was computed for others."""

    @property
    def id(self) -> int: ...

    @property
    def request(self) -> Request: ...

    @property
    def answer(self) -> Sequence[int]: ...

    @property
    def reuse(self) -> bool: ...

    @property
    def cached(self) -> Cached: ...


@dataclass(frozen=True, kw_only=True)
class Computed:
    """A sequence's rows of a step that is over, as far as they turned out right: ``following`` are
    the tokens after them, ``row`` and ``position`` the first one's place in the step and in the
    sequence, whose ``pages`` these are."""

    id: int
    row: int
    position: int
    following: Sequence[int]
    pages: Sequence[int]


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

    def observe(self, computed: Sequence[Computed]) -> None:
        """A step of the model is over."""
        ...

    def settle(self) -> None:
        """The model is about to compute a step."""
        ...

    def end(self, id: int) -> None:
        """That sequence is done."""
        ...


class SelfContained:
    """What a drafter has that needs nothing of the model's steps."""

    def observe(self, computed: Sequence[Computed]) -> None:
        pass

    def settle(self) -> None:
        pass


def guess(one: Feedback, drafted: Sequence[int], logits: F32, exp: Callable[[F32], F32]) -> int:
    """The token after an answer and what was drafted of it, chosen as the request asks, with the
    randomness of the very position; -1 where none can be."""
    request = one.request
    answer = [*one.answer, *drafted]
    position = len(request.tokens) + len(answer)
    try:
        return sample(logits, request.params, request.tokens, answer, position, request.choice, exp)
    except NoTokenError:
        return -1
