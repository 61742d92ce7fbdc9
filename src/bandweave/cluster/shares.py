"""Shares: how a model is divided among the nodes that are there, by what each can do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

_STEPS = 64  # a slowdown is told in parts of this


def divide(
    nodes: Sequence[int],
    wanted: Mapping[int, Fraction],
    slowed: Mapping[int, float],
) -> tuple[Fraction, ...]:
    """Shares of the nodes, by their numbers: in proportion to those that were ``wanted`` of them,
    less where one is ``slowed`` so many times. One that nobody has thought of counts as the mean of
    those that somebody has."""
    known = [wanted[node] for node in nodes if node in wanted] or list(wanted.values())
    mean = sum(known, Fraction(0)) / len(known) if known else Fraction(1)
    return tuple(wanted.get(node, mean) * _speed(slowed.get(node, 1.0)) for node in nodes)


def gain(
    nodes: Sequence[int],
    shares: Sequence[Fraction],
    new: Sequence[Fraction],
    wanted: Mapping[int, Fraction],
    slowed: Mapping[int, float],
) -> float:
    """How many times faster a step is in ``new`` shares than in those that are: the slowest node's
    time decides."""
    return _longest(nodes, shares, wanted, slowed) / _longest(nodes, new, wanted, slowed)


def _longest(
    nodes: Sequence[int],
    shares: Sequence[Fraction],
    wanted: Mapping[int, Fraction],
    slowed: Mapping[int, float],
) -> float:
    whole = sum(shares, Fraction(0))
    speeds = divide(nodes, wanted, slowed)
    return max(float(share / whole / speed) for share, speed in zip(shares, speeds, strict=True))


def _speed(slowed: float) -> Fraction:
    return max(Fraction(1, _STEPS), Fraction(round(_STEPS / max(1.0, slowed)), _STEPS))
