"""Routes: who among the machines of a session is asked for which range of a file.

A machine that has a file whole is asked before the hub. What several nodes read (columns of rows
that lie together, and what each of them holds) is cut into blocks, each of which one of them
fetches from the hub for all: so nothing is downloaded twice. Knows peers and units; opens nothing.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bandweave.checkpoints.partial_file import PartialFile, Source
from bandweave.sharing.peer import Peer, PeerError

_LEAST_UNITS, _LEAST_BYTES = 16, 64 << 10  # of a block: it is a request, and a sync of the disk
_LISTING_SECONDS = 10.0


@dataclass(kw_only=True)
class Neighbour:
    """Another machine, and what it has. ``rank``: its place among those that share ranges, None
    for one that only gives."""

    peer: Peer
    rank: int | None = None
    store: str = ""
    whole: Mapping[str, int] = field(default_factory=dict)  # sizes of files, by name

    def look(self, config: str, headers: str) -> None:
        """Asks it what it has; nothing, where that is another model. ``PeerError`` where it does
        not say."""
        listing = self.peer.listing(_LISTING_SECONDS)
        self.store = str(listing.get("store", ""))
        if (listing.get("config"), listing.get("headers")) != (config, headers):
            raise PeerError(f"{self.peer.name} has another model")
        self.whole = {
            name: size for name, (size, whole, *_) in _weights(listing).items() if whole is True
        }


class Routes:
    """``rank`` of ``ranks``: this node's place among those that share ranges. ``shared``: the bytes
    that several of them read, by file. ``store``: this machine's; a neighbour with the same one has
    the same files before it."""

    def __init__(
        self,
        neighbours: Sequence[Neighbour],
        *,
        rank: int,
        ranks: int,
        shared: Mapping[str, Sequence[tuple[int, int]]],
        store: str,
    ) -> None:
        self._rank, self._ranks, self._shared = rank, ranks, shared
        self._sources: dict[tuple[int, str], Source] = {}
        self._givers = [one for one in neighbours if one.store != store]
        self._owners = {one.rank: one for one in self._givers if one.rank is not None}

    def lead(self, name: str, file: PartialFile) -> None:
        """From now on ranges of the file come by these routes."""
        shared = sorted(self._shared.get(name, ()))
        starts = [start for start, _ in shared]
        size = max(_LEAST_UNITS, _LEAST_BYTES // file.have.unit)

        def is_shared(start: int) -> bool:
            """Of a whole block, so that all nodes think the same of it."""
            first = start * file.have.unit
            place = bisect.bisect_right(starts, first + size * file.have.unit - 1) - 1
            return place >= 0 and shared[place][1] > first

        def route(units: range) -> list[tuple[range, Source | None]]:
            whole = [
                one
                for one in self._givers
                if one.whole.get(name) == file.size and not one.peer.gone
            ]
            runs: list[tuple[range, Source | None]] = []
            for start in range(units.start - units.start % size, units.stop, size):
                block = range(max(start, units.start), min(start + size, units.stop))
                giver = None
                if whole:
                    giver = whole[start // size % len(whole)]
                elif self._ranks > 1 and is_shared(start):
                    owner = start // size % self._ranks
                    giver = self._owners.get(owner) if owner != self._rank else None
                if giver is not None and giver.peer.gone:
                    giver = None
                source = None if giver is None else self._source(giver, name)
                if runs and runs[-1][1] == source:
                    runs[-1] = (range(runs[-1][0].start, block.stop), source)
                else:
                    runs.append((block, source))
            return runs

        file.route = route

    def _source(self, giver: Neighbour, name: str) -> Source:
        key = (id(giver), name)
        if key not in self._sources:
            self._sources[key] = lambda start, stop: giver.peer.fetch(name, start, stop)
        return self._sources[key]


def _weights(listing: Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
    weights = listing.get("weights")
    if not isinstance(weights, dict):
        raise PeerError("a list of files that is none")
    return {
        str(name): value
        for name, value in weights.items()
        if isinstance(value, list) and len(value) >= 2 and type(value[0]) is int
    }
