"""HostSharing: what nodes of one host leave each other: memory, processors, caches. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bandweave.planning.profile.engine_node import EngineNode
from bandweave.programs.work import Local, Product, Segment


class HostSharing:
    """``work`` is a step's: its segments, and how many times each comes."""

    def __init__(
        self,
        nodes: Sequence[EngineNode],
        work: Sequence[tuple[Segment, int]],
        *,
        weight_format: str,
    ) -> None:
        self._nodes, self._format = nodes, weight_format
        self.cached = _cached_part(nodes, work)  # of a step's weights, what stays in the caches

    def threads_beside(self, node: int, work: Mapping[int, Sequence[Local]]) -> int:
        """Threads at work on the node's host, its own included."""
        host = self._nodes[node].host
        return sum(self._nodes[n].threads for n in work if work[n] and self._nodes[n].host == host)

    def crowding(self, node: int, work: Mapping[int, Sequence[Local]]) -> float:
        """How much slower all goes where threads outnumber processors."""
        beside = max(self.threads_beside(node, work), self._nodes[node].threads)
        return max(1.0, beside / self._nodes[node].machine.cpus)

    def reading_seconds(
        self, work: Mapping[int, Sequence[Local]], alone: Mapping[int, float]
    ) -> dict[int, float]:
        """Seconds of every node's products where nodes of one host share its memory's bandwidth.

        While several read, each gets what so many threads were measured to get; who is done first
        leaves its part to the others.
        """
        result: dict[int, float] = {}
        for host in {self._nodes[node].host for node in alone}:
            left = {n: s for n, s in alone.items() if self._nodes[n].host == host}
            clock = 0.0
            while left:
                reading = sum(self._nodes[node].threads for node in left)
                slowed = {node: self._slowdown(node, reading, _rows(work[node])) for node in left}
                step = min(left[node] * slowed[node] for node in left)
                clock += step
                rest = {node: seconds - step / slowed[node] for node, seconds in left.items()}
                for node, seconds in rest.items():
                    if seconds <= 1e-12 * alone[node]:
                        result[node] = clock
                left = {node: s for node, s in rest.items() if node not in result}
        return result

    def _slowdown(self, node: int, reading: int, rows: int) -> float:
        """How much longer a thread takes for a byte while ``reading`` threads read."""
        machine, threads = self._nodes[node].machine, self._nodes[node].threads
        reading, threads = min(reading, machine.cpus), min(threads, machine.cpus)
        if reading <= threads:
            return 1.0

        def of(count: int) -> float:
            each = self._nodes[node].seconds_per_byte(
                self._format,
                on_grid=False,
                rows=rows,
                threads=count,
                cached=self.cached,
            )
            return each * count

        return max(1.0, of(reading) / of(threads))


def _cached_part(nodes: Sequence[EngineNode], work: Sequence[tuple[Segment, int]]) -> float:
    """The part of a step's weights that stays in the last-level cache from step to step, on the
    host where it is least. The more of a cache the weights take, the more of them is displaced by
    others: all of them where they take all of it."""
    sizes: dict[str, int] = {}
    for segment, times in work:
        for node, local in segment.local.items():
            size = times * sum(one.weight_bytes for one in local if isinstance(one, Product))
            sizes[nodes[node].host] = sizes.get(nodes[node].host, 0) + size
    room = {node.host: max(node.machine.cache_bytes, 1) for node in nodes}
    return max(0.0, min((1 - size / room[host] for host, size in sizes.items()), default=0.0))


def _rows(work: Sequence[Local]) -> int:
    return next((one.rows for one in work if isinstance(one, Product)), 1)
