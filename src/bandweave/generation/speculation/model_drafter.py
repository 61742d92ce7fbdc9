"""ModelDrafter: a smaller model of the same vocabulary that guesses what the large one will say.

It chooses as the request asks, with the randomness of the very position, so that the two models
draw the same token wherever their probabilities nearly agree, also above temperature 0 (Leviathan
et al. 2023 accept by a coin of its own; here nothing but equality counts). It keeps a KV cache of
its own. Knows one executor; knows no nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import Executor, StepError
from bandweave.generation.batch import Rows, make_step
from bandweave.generation.pages import Cached, PagePool
from bandweave.generation.speculation.drafter import Feedback, Proposal, SelfContained, guess

F32 = npt.NDArray[np.float32]


@dataclass(eq=False)
class _Followed:
    """An answer as far as this model has read it; its first ``agreed`` tokens are the answer's.

    Where the model has recurrent states, its own slot stands behind those, and guesses are read
    into ``guesses``: a state that was led astray is of no use.
    """

    cached: Cached
    agreed: int = 0
    guesses: int = -1

    @property
    def has_state(self) -> bool:
        return self.cached.state >= 0


@dataclass(eq=False, kw_only=True)
class _Drafting:
    """One answer's draft under way."""

    one: Feedback
    followed: _Followed
    left: int  # tokens that are wanted still
    todo: list[int]  # tokens to read before the next can be chosen
    drafted: list[int] = field(default_factory=list)

    @property
    def cached(self) -> Cached:
        return self.followed.cached

    @property
    def slots(self) -> tuple[int, int] | None:
        """Where guesses are read from and into."""
        if not self.drafted or not self.followed.has_state:
            return None
        own, guesses = self.cached.state, self.followed.guesses
        return (own if len(self.drafted) == 1 else guesses), guesses

    @property
    def greedy(self) -> bool:
        return self.one.request.params.needs_best_only

    def take(self, token: int) -> None:
        """The next token; below 0 where none can be chosen."""
        if token < 0:
            self.todo = []
            return
        self.drafted.append(token)
        self.left -= 1
        self.todo = [token] if self.left else []


class ModelDrafter(SelfContained):
    """A ``Drafter``; the arguments are those of ``Generator``, of the draft's own model.

    Where the model fails, say with numbers out of range, it drafts nothing any more: an answer must
    not fail for a guess.
    """

    def __init__(
        self,
        executor: Executor,
        embed: Callable[[npt.NDArray[np.int32]], F32],
        *,
        num_pages: int,
        num_states: int = 0,
        context: int,
        max_rows: int,
        exp: Callable[[F32], F32],
        progress: Callable[[], int] = lambda: 0,
    ) -> None:
        self._executor, self._embed, self._exp = executor, embed, exp
        self._pool = PagePool(num_pages, num_states)
        self._context, self._max_rows = context, max_rows
        self._progress = progress
        self._followed: dict[int, _Followed] = {}
        self._failed = False

    @property
    def progress(self) -> int:
        return self._progress()

    def propose(self, one: Feedback, most: int) -> Proposal:
        length = len(one.request.tokens) + len(one.answer)
        room = 0 if self._failed else self._context - length
        return Proposal(count=max(0, min(most, room)))

    def draft(self, wanted: Sequence[tuple[Feedback, int]]) -> list[list[int]]:
        drafting = [self._start(one, count) for one, count in wanted]
        try:
            while any(draft.todo for draft in drafting):
                self._step([draft for draft in drafting if draft.todo])
        except StepError:
            self._failed = True
        return [draft.drafted for draft in drafting]

    def end(self, id: int) -> None:
        followed = self._followed.pop(id, None)
        if followed is not None:
            self._pool.drop_state(followed.guesses)
            del followed.cached.tokens[followed.agreed :]
            self._pool.release(followed.cached)

    def _start(self, one: Feedback, count: int) -> _Drafting:
        """Drops what was drafted wrong the last time."""
        prompt = one.request.tokens
        followed = self._followed.get(one.id)
        if followed is None:
            if not self._pool.can_start:
                return _Drafting(one=one, followed=_Followed(Cached()), left=count, todo=[])
            cached = self._pool.claim(prompt, reuse=one.reuse, salt=one.request.salt)
            followed = self._followed[one.id] = _Followed(cached)
            followed.agreed = len(followed.cached.tokens)
        tokens = followed.cached.tokens
        said = [*prompt, *one.answer]
        agreed = followed.agreed
        # At least the last token is left to read: what follows it is wanted.
        most = agreed if followed.has_state else min(len(tokens), len(said) - 1)
        while agreed < most and tokens[agreed] == said[agreed]:
            agreed += 1
        followed.agreed = agreed
        del tokens[agreed:]
        self._pool.publish(followed.cached)
        todo = said[agreed:]
        try:
            self._pool.grow(followed.cached, len(said) + count - 1)
        except MemoryError:
            todo = []  # others have all the pages: this sequence does without for once
        if followed.has_state and followed.guesses < 0:
            followed.guesses = self._pool.spare_state()
            if followed.guesses < 0:
                todo = []
        return _Drafting(one=one, followed=followed, left=count, todo=todo)

    def _step(self, drafting: Sequence[_Drafting]) -> None:
        room, batch, steps = self._max_rows, [], []
        for draft in drafting:
            tokens = draft.todo[:room]
            if not tokens:
                break
            room -= len(tokens)
            wants = int(len(tokens) == len(draft.todo))
            slots = draft.slots
            batch.append(Rows(cached=draft.cached, tokens=tokens, wants=wants, slots=slots))
            steps.append((draft, wants))
        step = make_step(batch, prefill=False)
        embeddings = self._embed(step.tokens)
        if all(draft.greedy for draft, wants in steps if wants):
            chosen = iter(self._executor.best(step, embeddings))
            tokens_of = {id(draft): next(chosen) for draft, wants in steps if wants}
        else:
            logits = iter(self._executor.run(step, embeddings))
            tokens_of = {
                id(draft): guess(draft.one, draft.drafted, next(logits), self._exp)
                for draft, wants in steps
                if wants
            }
        for (draft, wants), rows in zip(steps, batch, strict=True):
            draft.cached.tokens += rows.tokens
            draft.todo = draft.todo[len(rows.tokens) :]
            if draft.followed.has_state and not draft.drafted:
                draft.followed.agreed = len(draft.cached.tokens)
                self._pool.settle(draft.cached)
            if wants:
                draft.take(tokens_of[id(draft)])
