"""A drafter that knows the answers and lies now and then, always in the same places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bandweave.generation.drafting import Offer, Told


class ScriptedDrafter:
    """A ``Drafter``. ``answers``: what each request will say, by index; every token whose number
    ``lies`` divides (with an offset by answer) is drafted wrong, none if 0. Offers nothing where it
    knows no answer. Keeps what it gave."""

    progress = 0

    def __init__(
        self, answers: Mapping[int, Sequence[int]], *, vocab_size: int, lies: int = 4
    ) -> None:
        self.answers, self.vocab_size, self.lies = answers, vocab_size, lies
        self.given: list[list[list[int]]] = []
        self.ended: list[int] = []

    def offer(self, one: Told, most: int) -> Offer:
        return Offer(count=most if one.index in self.answers else 0, kind=one.index % 2)

    def draft(self, wanted: Sequence[tuple[Told, int]]) -> list[list[int]]:
        drafts = [[self._token(one, i) for i in range(count)] for one, count in wanted]
        self.given.append(drafts)
        return drafts

    def end(self, index: int) -> None:
        self.ended.append(index)

    def forget(self) -> None: ...

    def _token(self, one: Told, ahead: int) -> int:
        place = len(one.answer) + ahead
        script = self.answers[one.index]
        token = script[place] if place < len(script) else place
        lie = self.lies > 0 and (place + one.index) % self.lies == 0
        return (token + lie) % self.vocab_size
