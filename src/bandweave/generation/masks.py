"""Masks: which tokens grammars allow, found in a thread of their own while a step computes."""

from __future__ import annotations

from collections.abc import Sequence as ListOf
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from bandweave.generation.grammar import Mask, Matcher
from bandweave.generation.scheduler import SequenceRows

F32 = npt.NDArray[np.float32]


def masked(logits: F32, mask: Mask) -> F32:
    """The logits ``[V]``, minus infinity where the mask does not allow the token."""
    return np.where(mask, logits, np.float32(-np.inf))


class Masks:
    """Those of a step. Each is used once: what comes behind depends on the token."""

    def __init__(self, begun: dict[int, Future[Mask]]) -> None:
        self._begun = begun

    def of(self, matcher: Matcher) -> Mask:
        """What its grammar allows now."""
        future = self._begun.pop(id(matcher), None)
        return matcher.allowed() if future is None else future.result()


class MaskMaker:
    """Has one thread, once there is a grammar."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, wanting: ListOf[SequenceRows]) -> Masks:
        """Begins with the masks of the sequences that want a token of this step."""
        matchers = [one for rows in wanting if (one := rows.sequence.matcher) is not None]
        if matchers and self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        if self._thread is None:
            return Masks({})
        return Masks({id(one): self._thread.submit(one.allowed) for one in matchers})
