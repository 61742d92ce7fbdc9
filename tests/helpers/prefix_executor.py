"""An executor without a model: logits are a function of the tokens that the KV pages hold.

A row that reads a page which its sequence did not fill gets other logits, or fails.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from bandweave.executors.executor import PAGE_SIZE, Step, StepError
from bandweave.executors.reference.states import StateBook
from bandweave.run_options import MAX_DRAFT_TOKENS

F32 = npt.NDArray[np.float32]


class PrefixExecutor:
    """An ``Executor``. Keeps its steps; fails the step numbers in ``failing``. With ``num_states``
    it has a recurrent state: what each slot stands behind is what the pages hold, or it fails."""

    def __init__(self, *, num_pages: int, vocab_size: int, num_states: int = 0) -> None:
        self.book = StateBook(num_states, MAX_DRAFT_TOKENS) if num_states else None
        self.held: dict[int, list[int]] = {}
        self.cells = np.full((num_pages, PAGE_SIZE), -1)
        self.vocab_size = vocab_size
        self.steps: list[Step] = []
        self.best_steps = 0
        self.failing: set[int] = set()

    def embed(self, tokens: npt.NDArray[np.int32]) -> F32:
        return tokens.astype(np.float32)[:, None]

    def run(self, step: Step, embeddings: F32) -> F32:
        self.steps.append(step)
        if len(self.steps) - 1 in self.failing:
            raise StepError("node 1 closed its connection to node 0")
        count = len(step.tokens)
        assert len(step.slots) == len(step.positions) == len(step.wants_logits) == count > 0
        assert (embeddings == self.embed(step.tokens)).all()
        assert (np.diff(step.slots) >= 0).all()
        rows = list(zip(step.slots.tolist(), step.positions.tolist(), strict=True))
        assert rows == sorted(set(rows))
        for (slot, position), token in zip(rows, step.tokens, strict=True):
            page = step.page_tables[slot, position // PAGE_SIZE]
            assert page >= 0
            self.cells[page, position % PAGE_SIZE] = token
        if self.book is not None:
            self._change_states(step, self.book)
        wanting = [row for row, wanted in zip(rows, step.wants_logits, strict=True) if wanted]
        logits = [self._logits(step.page_tables[slot], position) for slot, position in wanting]
        return np.array(logits, np.float32).reshape(len(wanting), self.vocab_size)

    def _change_states(self, step: Step, book: StateBook) -> None:
        assert step.states is not None
        for turn in book.turns(step):
            start = int(step.positions[turn.rows[0]])
            before = [] if turn.fresh else self.held[turn.read][:start]
            pages = step.page_tables[step.slots[turn.rows[0]]]
            assert before == self.cells[pages].reshape(-1)[:start].tolist()
            own = [*before, *step.tokens[turn.rows].tolist()]
            self.held[turn.write] = own
            if turn.keep >= 0:
                self.held[turn.keep] = own[: start + turn.kept]

    def best(self, step: Step, embeddings: F32) -> list[int]:
        self.best_steps += 1
        return [int(token) for token in np.argmax(self.run(step, embeddings), axis=1)]

    def _logits(self, table: npt.NDArray[np.int32], position: int) -> F32:
        pages = table[: position // PAGE_SIZE + 1]
        assert (pages >= 0).all()
        history = self.cells[pages].reshape(-1)[: position + 1]
        assert (history >= 0).all()
        key = hashlib.sha256(history.astype("<i4").tobytes()).digest()[:16]
        words = np.random.PCG64(int.from_bytes(key, "little")).random_raw(self.vocab_size)
        return ((words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-22)) - np.float32(2)
