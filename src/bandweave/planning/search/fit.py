"""Shares that fit: when nobody says who gets how much, nobody gets more than its memory holds.

Pure; what a share needs is asked of a function. A planner that knows speeds will choose better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

_ATTEMPTS = 12

Needs = Callable[[Sequence[Fraction]], Sequence[int]]  # bytes that each node needs


def fitting_shares(
    available: Sequence[int], needs: Needs, wanted: Sequence[Fraction] | None = None
) -> tuple[Fraction, ...] | None:
    """The ``wanted`` shares (equal ones) where every node's memory (bytes) holds its own, else
    shares that shrink where memory is short; None where no such shares were found."""
    first = tuple(wanted or (Fraction(1) for _ in available))
    shares = first
    for _ in range(_ATTEMPTS):
        try:
            needed = needs(shares)
        except ValueError:  # a share so small that it is nothing
            return None
        if all(need <= room for need, room in zip(needed, available, strict=True)):
            return shares
        if shares == first:
            shares = tuple(Fraction(max(room, 1)) for room in available)
        else:
            # What does not depend on the share (KV replicas, buffers) makes plain proportion fail.
            shares = tuple(
                share * Fraction(room, max(need, 1)).limit_denominator(1000)
                for share, room, need in zip(shares, available, needed, strict=True)
            )
        whole = sum(shares)
        shares = tuple((share / whole).limit_denominator(10000) for share in shares)
        if any(share <= 0 for share in shares):
            return None
    return None
