"""ScoreMerging: a text to the pieces of a SentencePiece vocabulary, the best score first.

The way of SentencePiece's BPE models (``bpe_model.cc``): of all neighbours that make a piece
together those with the highest score are joined, the leftmost of several, until there are none.
That is not the ``tokenizers`` library's BPE, which joins pairs by rank: where pieces have the same
score, or parts that are no pieces, the two differ.

Knows pieces, scores and bytes; knows no special tokens.
"""

from __future__ import annotations

import functools
import heapq
import re
from collections.abc import Mapping, Sequence

SPACE = "\u2581"  # what pieces have for a space
_MOST_CACHED = 1 << 15  # words
_LONGEST_CACHED = 64  # characters


class ScoreMerging:
    """Threads may share one."""

    def __init__(
        self,
        scores: Mapping[str, float],
        ids: Mapping[str, int],
        byte_ids: Sequence[int | None],
        unknown: int | None,
    ) -> None:
        """``scores``, ``ids``: of the pieces, by text. ``byte_ids``: of the pieces for single
        bytes. ``unknown``: for a character with neither, which is dropped without one."""
        self._scores, self._ids = scores, ids
        self._byte_ids, self._unknown = byte_ids, unknown
        # Nothing is ever joined over a place that lies within no piece, so the text may be parted
        # there, and most of its words have been seen before.
        joined = "\0".join(scores)
        self._before_space = frozenset(re.findall(f"([^{SPACE}\0]){SPACE}", joined))
        self._cached = functools.lru_cache(_MOST_CACHED)(self._merge)

    def encode(self, text: str) -> list[int]:
        """The ids of a text whose spaces are ``SPACE``."""
        result: list[int] = []
        for word in self._words(text):
            merge = self._cached if len(word) <= _LONGEST_CACHED else self._merge
            result += merge(word)
        return result

    def _words(self, text: str) -> list[str]:
        words = re.split(f"(?<=[^{SPACE}])(?={SPACE})", text)
        if not self._before_space:
            return words
        result = [words[0]]
        for word in words[1:]:
            if result[-1][-1:] in self._before_space:
                result[-1] += word
            else:
                result.append(word)
        return result

    def _merge(self, text: str) -> tuple[int, ...]:
        parts = list(text)  # of a part that was joined to the one before it nothing is left
        before = list(range(-1, len(parts) - 1))
        behind = [*range(1, len(parts)), -1]
        scores = self._scores
        queue: list[tuple[float, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            joined = parts[left] + parts[right]
            if joined in scores:
                heapq.heappush(queue, (-scores[joined], left, right, len(joined)))

        for right in range(1, len(parts)):
            offer(right - 1, right)
        while queue:
            _, left, right, size = heapq.heappop(queue)
            # Parts only grow or vanish, so a pair of both is what it was where its size is.
            joined = parts[left] + parts[right]
            if not parts[left] or not parts[right] or len(joined) != size:
                continue
            parts[left], parts[right] = joined, ""
            behind[left] = following = behind[right]
            if following >= 0:
                before[following] = left
                offer(left, following)
            if before[left] >= 0:
                offer(before[left], left)
        return tuple(token for part in parts if part for token in self._tokens(part))

    def _tokens(self, part: str) -> list[int]:
        token = self._ids.get(part)
        if token is not None:
            return [token]
        tokens = [self._byte_ids[byte] for byte in part.encode()]
        known = [token for token in tokens if token is not None]
        if len(known) == len(tokens):
            return known
        return [] if self._unknown is None else [self._unknown]
