"""Binding: which processors a node's threads stay on, so that each reads memory near to it.

Pure functions over processor numbers; asks the system nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cpus = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Binding:
    """``pinned``: a processor for each thread, or empty. ``home``: the processors that the node's
    process keeps to, so that what it loads lies in their memory; empty for all."""

    pinned: Cpus = ()
    home: Cpus = ()


def bind_node(
    node: int,
    num_nodes: int,
    threads: int,
    *,
    usable: Cpus,
    allowed: Cpus,
    numa: Sequence[Cpus],
) -> Binding:
    """Where node ``node`` of ``num_nodes`` on this machine runs its ``threads`` threads.

    Threads are pinned only where the nodes take every processor: two commands that share a machine
    would else meet on the same ones; and a quota (``usable`` short of ``allowed``) names none.
    Nodes go to the memory nodes ``numa`` in order, side by side, where they divide evenly and have
    processors enough.
    """
    home: Cpus = ()
    if len(numa) > 1 and num_nodes % len(numa) == 0:
        together = num_nodes // len(numa)
        group = numa[node // together]
        home = group if threads * together <= len(group) else ()
    if usable != allowed or threads * num_nodes != len(usable):
        return Binding(home=home)
    nearest = [cpu for group in numa for cpu in group]
    order = [*nearest, *(cpu for cpu in usable if cpu not in nearest)]
    pinned = tuple(order[node * threads : (node + 1) * threads])
    return Binding(pinned=pinned, home=home if set(pinned) <= set(home) else ())


def spans_memories(cpus: Cpus, numa: Sequence[Cpus]) -> bool:
    """Whether processors belong to more than one memory node."""
    return sum(bool(set(cpus) & set(group)) for group in numa) > 1
