"""A drafter that knows the answers and lies now and then, always in the same places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bandweave.generation.speculation.drafter import Feedback, Proposal, SelfContained


class ScriptedDrafter(SelfContained):
    """A ``Drafter``. ``answers``: what each request will say, by its name; every token whose
    number ``lies`` divides (with an offset by answer) is drafted wrong, none if 0. Proposes nothing
    where it knows no answer. Keeps what it gave."""

    progress = 0

    def __init__(
        self, answers: Mapping[int, Sequence[int]], *, vocab_size: int, lies: int = 4
    ) -> None:
        self.answers, self.vocab_size, self.lies = answers, vocab_size, lies
        self.given: list[list[list[int]]] = []
        self.ended: list[int] = []

    def propose(self, one: Feedback, most: int) -> Proposal:
        return Proposal(count=most if one.id in self.answers else 0, kind=one.id % 2)

    def draft(self, wanted: Sequence[tuple[Feedback, int]]) -> list[list[int]]:
        drafts = [[self._token(one, i) for i in range(count)] for one, count in wanted]
        self.given.append(drafts)
        return drafts

    def end(self, id: int) -> None:
        self.ended.append(id)

    def _token(self, one: Feedback, ahead: int) -> int:
        place = len(one.answer) + ahead
        script = self.answers[one.id]
        token = script[place] if place < len(script) else place
        lie = self.lies > 0 and (place + one.id) % self.lies == 0
        return (token + lie) % self.vocab_size
