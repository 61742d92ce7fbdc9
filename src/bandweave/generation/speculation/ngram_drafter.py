"""NgramDrafter: guesses that what followed the last few tokens before will follow them again.

Prompt lookup (Saxena 2023): no second model, no weights, a dictionary lookup a step. It pays where
answers quote: code, summaries, tables, repetition. Knows tokens only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bandweave.generation.speculation.drafter import Feedback, Proposal, SelfContained

LONGEST, SHORTEST = 4, 2  # tokens that must be the same; longer matches are right more often


class NgramDrafter(SelfContained):
    """A ``Drafter``; a proposal's kind is the length of the match."""

    progress = 0  # there is nothing to wait for

    def __init__(self) -> None:
        self._histories: dict[int, History] = {}

    def propose(self, one: Feedback, most: int) -> Proposal:
        matched, _ = self._history(one).match()
        return Proposal(count=most if matched else 0, kind=matched)

    def draft(self, wanted: Sequence[tuple[Feedback, int]]) -> list[list[int]]:
        return [self._history(one).draft(count) for one, count in wanted]

    def end(self, id: int) -> None:
        self._histories.pop(id, None)

    def _history(self, one: Feedback) -> History:
        history = self._histories.get(one.id)
        if history is None:
            history = self._histories[one.id] = History(one.request.tokens)
        known = len(history.tokens) - len(one.request.tokens)
        history.extend(one.answer[known:])
        return history


class History:
    """Tokens in order, and where each short run of them came last."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.tokens: list[int] = []
        self._follows: dict[tuple[int, ...], int] = {}  # a run: the place of what came after it
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Adds tokens at the end."""
        for token in tokens:
            place = len(self.tokens)
            for length in range(SHORTEST, min(LONGEST, place) + 1):
                self._follows[tuple(self.tokens[place - length :])] = place
            self.tokens.append(token)

    def match(self) -> tuple[int, int]:
        """How many of the last tokens have occurred before, and the place of what followed them
        there last; ``(0, 0)`` where too few have."""
        for length in range(min(LONGEST, len(self.tokens)), SHORTEST - 1, -1):
            place = self._follows.get(tuple(self.tokens[-length:]))
            if place is not None:
                return length, place
        return 0, 0

    def draft(self, count: int) -> list[int]:
        """What followed the match, ``count`` tokens; a copy that reaches the end goes on with what
        it has copied, so that a loop is drafted as a loop."""
        matched, place = self.match()
        if not matched:
            return []
        drafted: list[int] = []
        end = len(self.tokens)
        for at in range(place, place + count):
            drafted.append(self.tokens[at] if at < end else drafted[at - end])
        return drafted
