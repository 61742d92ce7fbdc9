"""Philox4x32-10: random numbers that depend on a key and a counter and on nothing else.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Knows no
tokens.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words4 = tuple[int, int, int, int]


def philox4x32(counter: Words4, key: tuple[int, int]) -> Words4:
    """Four random 32-bit words of a counter of four and a key of two 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (second >> 32) ^ c1 ^ k0,
            second & _MASK,
            (first >> 32) ^ c3 ^ k1,
            first & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seed: int, choice: int, position: int) -> float:
    """The random number in [0, 1), a multiple of 2^-53, for the token at ``position`` of answer
    ``choice``; docs/numerics.md, section 7. ``ValueError`` for numbers that do not fit."""
    if not (0 <= seed < 1 << 64 and 0 <= position < 1 << 64 and 0 <= choice < 1 << 32):
        raise ValueError(
            f"seed {seed} and position {position} must be from 0 to 2^64 - 1, choice {choice} "
            "from 0 to 2^32 - 1"
        )
    counter = (position & _MASK, position >> 32, choice, 0)
    w0, w1, _, _ = philox4x32(counter, (seed & _MASK, seed >> 32))
    return ((w0 >> 5) * 2**26 + (w1 >> 6)) * 2.0**-53
