"""Precedence: who waits for whom, and who gives way to whom. Pure; knows no pages.

Lists of sequences are by arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as ListOf

from bandweave.executors.executor import PAGE_SIZE
from bandweave.generation.sequence import Sequence

_MOST_PREEMPTED = 3  # times that a sequence gives way while others have not


def has_forerunner(one: Sequence, running: ListOf[Sequence]) -> bool:
    """Whether a prompt that is being read goes on as this one does: then it need not be read
    twice."""
    prompt = one.request.tokens
    for other in running if one.reuse else ():
        end = (len(other.cached.tokens) // PAGE_SIZE + 1) * PAGE_SIZE
        theirs = other.request.tokens
        if end < len(prompt) and end <= len(theirs) and prompt[:end] == theirs[:end]:
            return True
    return False


def greediest(one: Sequence, running: ListOf[Sequence]) -> Sequence | None:
    """The youngest that runs of the key that has most running, by weight, if that key would still
    have no fewer than that of ``one`` without it."""
    counts: dict[str, float] = {}
    for other in running:
        key = other.request.key
        counts[key] = counts.get(key, 0.0) + 1 / other.request.weight
    own = counts.get(one.request.key, 0.0) + 1 / one.request.weight
    found: Sequence | None = None
    most = own
    for other in running:
        left = counts[other.request.key] - 1 / other.request.weight
        foreign = other.request.key != one.request.key
        if foreign and left >= most and other.preempted < _MOST_PREEMPTED:
            found, most = other, left
    return found


def least_entitled(running: ListOf[Sequence], served: Callable[[Sequence], float]) -> Sequence:
    """Who gives way: the youngest of the key that was served most; not one that has given way
    often, if there is another."""
    fresh = [one for one in running if one.preempted < _MOST_PREEMPTED]
    youngest = list(reversed(fresh or running))
    return max(youngest, key=served)  # the first of those that are alike
