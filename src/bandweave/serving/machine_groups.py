"""How machines may be divided into groups that each hold a whole model, and which are best held
ready. Pure: knows numbers of machines, their speeds and memories."""

from __future__ import annotations

from collections.abc import Sequence

Groups = tuple[tuple[int, ...], ...]


def machine_groups(
    numbers: Sequence[int],
    speeds: Sequence[float] | None,
    rooms: Sequence[int],
    count: int,
    least: int = 1,
) -> list[Groups]:
    """Divisions of these machines into ``count`` groups that are worth a look, each with ``least``
    machines at least: as fast as each other, with as much memory as each other, or neighbours in
    the order in which they came. None where there are too few. ``speeds`` and ``rooms`` are of all
    machines, by their numbers."""
    if len(numbers) < count * least:
        return []
    if count == 1:
        return [(tuple(numbers),)]
    divisions = [] if speeds is None else [_dealt(numbers, speeds, count)]
    divisions += [_dealt(numbers, rooms, count), _neighbours(numbers, count)]
    wide = [one for one in divisions if min(map(len, one)) >= least]
    return list(dict.fromkeys(wide))


def held_ready(
    speeds: Sequence[float] | None, rooms: Sequence[int], count: int
) -> list[tuple[int, ...]]:
    """Machines to hold ready, the choice that costs least first: the slowest, those with the least
    memory, or those that came last. None of them is all machines."""
    numbers = range(len(rooms))
    if count == 0:
        return [()]
    if count >= len(numbers):
        return []
    last = sorted(numbers, reverse=True)  # of equal ones those that came last
    orders = [] if speeds is None else [sorted(last, key=lambda one: speeds[one])]
    orders += [sorted(last, key=lambda one: rooms[one]), last]
    return list(dict.fromkeys(tuple(sorted(order[:count])) for order in orders))


def _dealt(numbers: Sequence[int], sizes: Sequence[float], count: int) -> Groups:
    """The largest first, each to the group that has least; a group's first machine before any
    second one."""
    groups: list[list[int]] = [[] for _ in range(count)]
    for one in sorted(numbers, key=lambda number: (-sizes[number], number)):
        free = [group for group in groups if not group] or groups
        min(free, key=lambda group: sum(sizes[other] for other in group)).append(one)
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def _neighbours(numbers: Sequence[int], count: int) -> Groups:
    groups, first = [], 0
    for number in range(count):
        size = len(numbers) // count + (number < len(numbers) % count)
        groups.append(tuple(numbers[first : first + size]))
        first += size
    return tuple(groups)
