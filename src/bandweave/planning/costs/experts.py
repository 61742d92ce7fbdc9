"""Experts given out whole: how much the busiest node of a step has to do. Pure combinatorics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache


def expected_busiest(owned: Sequence[int], drawn: int) -> float:
    """The expected largest number of drawn experts that one node owns.

    ``drawn`` different experts are drawn uniformly without replacement; node ``i`` owns
    ``owned[i]`` of them. Exact: the number of ways in which no node gets more than ``m`` is a
    coefficient of the product of truncated binomial polynomials (the multivariate hypergeometric
    distribution), and ``E[max] = sum over m of P(max > m)``.
    """
    total = sum(owned)
    if not 0 <= drawn <= total:
        raise ValueError(f"{drawn} experts cannot be drawn of {total}")
    return _expected_busiest(tuple(sorted(owned)), drawn)


@lru_cache(maxsize=4096)
def _expected_busiest(owned: tuple[int, ...], drawn: int) -> float:
    ways = math.comb(sum(owned), drawn)
    expected = 0.0
    for bound in range(min(drawn, max(owned, default=0))):
        within = _ways_within(owned, drawn, bound)
        if within == ways:
            break
        expected += 1 - within / ways
    return expected


def _ways_within(owned: Sequence[int], drawn: int, bound: int) -> int:
    counts = [1] + [0] * drawn  # by experts drawn so far
    for size in owned:
        terms = [math.comb(size, taken) for taken in range(min(size, bound, drawn) + 1)]
        following = [0] * (drawn + 1)
        for already, ways in enumerate(counts):
            if ways:
                for taken, choices in enumerate(terms[: drawn - already + 1]):
                    following[already + taken] += ways * choices
        counts = following
    return counts[drawn]
