"""LayerDrafter: the model's own further layer guesses what comes next (multi-token prediction).

The layer makes of a position's last hidden state and of the token after it a state of the position
after (DeepSeek-V3, arXiv:2412.19437), and goes on from its own states for longer drafts. It is part
of the model's program, on all nodes of the last stage, and its keys and values lie in the model's
pages, so that sequences that share pages share them, too. Knows one executor; knows no nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import PAGE_SIZE, Executor, Step
from bandweave.generation.speculation.drafter import F32, Computed, Feedback, Proposal, guess


@dataclass(eq=False, kw_only=True)
class _Drafting:
    """One answer's draft under way: the place of its last state among those that the last step
    left, and that state's position."""

    one: Feedback
    left: int  # tokens that are wanted still
    row: int
    position: int
    drafted: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of a sequence in a step of the layer: tokens, and the states before them."""

    tokens: Sequence[int]
    row: int
    position: int
    pages: Sequence[int]
    wants: bool


class LayerDrafter:
    """A ``Drafter``. ``embed`` maps token ids ``[T]`` to float32 rows ``[T, hidden_size]``, ``exp``
    is the executor's.

    The executor keeps the states of the last step alone, so the layer reads every step's rows
    before the next one, whether a draft is wanted or not: its cache has no gaps.
    """

    progress = 0  # it is the model's executor that works

    def __init__(
        self,
        executor: Executor,
        embed: Callable[[npt.NDArray[np.int32]], F32],
        *,
        exp: Callable[[F32], F32],
    ) -> None:
        self._executor, self._embed, self._exp = executor, embed, exp
        self._unread: dict[int, Computed] = {}

    def propose(self, one: Feedback, most: int) -> Proposal:
        unread = self._unread.get(one.id)
        if unread is None:
            return Proposal(count=0)
        # The first guess takes no position more. There are no pages for guesses alone.
        last = unread.position + len(unread.following) - 1
        return Proposal(count=min(most, len(unread.pages) * PAGE_SIZE - last))

    def draft(self, wanted: Sequence[tuple[Feedback, int]]) -> list[list[int]]:
        drafts = [
            _Drafting(one=one, left=count, row=0, position=0) for one, count in wanted if count
        ]
        self._read({draft.one.id: draft for draft in drafts})
        while going_on := [draft for draft in drafts if draft.left]:
            rows = [
                _Rows(
                    tokens=draft.drafted[-1:],
                    row=draft.row,
                    position=draft.position + 1,
                    pages=draft.one.cached.pages,
                    wants=True,
                )
                for draft in going_on
            ]
            for row, draft in enumerate(going_on):
                draft.row, draft.position = row, draft.position + 1
            self._step(rows, going_on)
        drafted = iter(draft.drafted for draft in drafts)
        return [next(drafted) if count else [] for _, count in wanted]

    def observe(self, computed: Sequence[Computed]) -> None:
        for one in computed:
            self._unread[one.id] = one

    def settle(self) -> None:
        if self._unread:
            self._read({})

    def end(self, id: int) -> None:
        # Its last rows are read with the rest: others may go on from its pages. Where these belong
        # to another by then, that one writes over them before it reads.
        pass

    def _read(self, drafts: dict[int, _Drafting]) -> None:
        """The layer reads what the last step has computed, and makes the first tokens of drafts."""
        rows, wanting, place = [], [], 0
        for id, one in self._unread.items():
            draft = drafts.get(id)
            rows.append(
                _Rows(
                    tokens=one.following,
                    row=one.row,
                    position=one.position,
                    pages=one.pages,
                    wants=draft is not None,
                )
            )
            place += len(one.following)
            if draft is not None:
                draft.row, draft.position = place - 1, one.position + len(one.following) - 1
                wanting.append(draft)
        self._unread = {}
        self._step(rows, wanting)

    def _step(self, rows: Sequence[_Rows], wanting: Sequence[_Drafting]) -> None:
        step = _make_step(rows)
        embeddings = self._embed(step.tokens)
        tokens: Iterator[int]
        if all(draft.one.request.params.needs_best_only for draft in wanting):
            tokens = iter(self._executor.best(step, embeddings))
        else:
            logits = iter(self._executor.run(step, embeddings))
            tokens = (guess(draft.one, draft.drafted, next(logits), self._exp) for draft in wanting)
        for draft, token in zip(wanting, tokens, strict=True):
            if token < 0:  # none can be chosen
                draft.left = 0
                continue
            draft.drafted.append(token)
            draft.left -= 1


def _make_step(batch: Sequence[_Rows]) -> Step:
    """One step of all rows, in their order, each sequence with a slot."""
    counts = [len(rows.tokens) for rows in batch]
    tables = np.full((len(batch), max(len(rows.pages) for rows in batch)), -1, np.int32)
    for slot, rows in enumerate(batch):
        tables[slot, : len(rows.pages)] = rows.pages
    each = [(rows, i) for rows, count in zip(batch, counts, strict=True) for i in range(count)]
    wants = [rows.wants and i == len(rows.tokens) - 1 for rows, i in each]
    return Step(
        tokens=np.array([rows.tokens[i] for rows, i in each], np.int32),
        slots=np.repeat(np.arange(len(batch), dtype=np.int32), counts),
        positions=np.array([rows.position + i for rows, i in each], np.int32),
        wants_logits=np.array(wants, np.bool_),
        page_tables=tables,
        sources=np.array([rows.row + i for rows, i in each], np.int32),
    )
