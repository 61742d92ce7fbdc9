"""Host resources: what several nodes on one host leave each other of its memory and processors.

Pure functions over what nodes say of their machines. Knows no models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from bandweave.messages import Description


def node_rooms(descriptions: Sequence[Description], shares: Sequence[Fraction]) -> list[int]:
    """Bytes of memory that each node may take: of what nodes share each gets as much as its share
    of the model has beside the others'."""
    rooms = []
    for node in range(len(descriptions)):
        room = [
            int(available * shares[node] / sum(shares[other] for other in members))
            for available, members in _shared(descriptions)
            if node in members
        ]
        rooms.append(min(room, default=0))
    return rooms


def short_of_memory(
    descriptions: Sequence[Description], needs: Sequence[int]
) -> list[tuple[list[int], int, int]]:
    """Where nodes that share memory need more than there is: the nodes, the bytes that they need
    together, and the bytes that are available."""
    short: list[tuple[list[int], int, int]] = []
    for available, members in _shared(descriptions):
        needed = sum(needs[node] for node in members)
        if needed > available and all(members != nodes for nodes, _, _ in short):
            short.append((members, needed, available))
    return short


def node_threads(descriptions: Sequence[Description], asked: int | None) -> list[int]:
    """Threads of each node, 0 where that is for itself to say: where nothing says how many, nodes
    that compute on the same processors share them out."""
    threads = []
    for one in descriptions:
        beside = [
            other
            for other in descriptions
            if _one_host(one, other) and set(one.cpus) & set(other.cpus)
        ]
        if asked is not None or one.threads or len(beside) < 2:
            threads.append(asked or 0)
        else:
            threads.append(max(1, one.usable_cpus // len(beside)))
    return threads


def _shared(descriptions: Sequence[Description]) -> list[tuple[int, list[int]]]:
    """Bytes inside every limit of memory, with the nodes that are under it. What they say of it may
    differ by what came between; the least counts."""
    members: dict[tuple[object, str], list[int]] = defaultdict(list)
    available: dict[tuple[object, str], int] = {}
    for node, one in enumerate(descriptions):
        host = one.host_id or node  # nobody shares a host that has no name
        for limit in one.memory:
            key = (host, limit.group)
            members[key].append(node)
            available[key] = min(limit.available, available.get(key, limit.available))
    return [(available[key], nodes) for key, nodes in members.items()]


def _one_host(one: Description, other: Description) -> bool:
    return one is other or (one.host_id != "" and one.host_id == other.host_id)
