"""Givers: the machines that this process may ask for the rest of copies of their files.

A copy that was begun in another session knows what it is of, not whom to ask now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bandweave.checkpoints.have import Origin
from bandweave.sharing.peer import Peer, PeerError

_GIVERS: list[Peer] = []  # of the one session that a process is in


@contextlib.contextmanager
def giver(peer: Peer) -> Iterator[None]:
    """While entered, copies are filled from this machine."""
    _GIVERS.append(peer)
    try:
        yield
    finally:
        _GIVERS.remove(peer)


class PeerFetcher:
    """A ``Fetcher`` that asks whatever machines there are."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def fetch(self, start: int, stop: int) -> Iterator[bytes]:
        """As ``Fetcher`` says."""
        origin = self._origin
        for peer in _GIVERS:
            if not peer.gone:
                yield from peer.fetch(origin.path, start, stop)
                return
        raise PeerError(
            f"{origin.path} of {origin.repo} is not whole on this machine, and no machine that has "
            "it is asked now; run it with --hosts from the machine that it came from"
        )

    def close(self) -> None:
        """As ``Fetcher`` says; connections belong to the session."""


def peer_fetcher(origin: Origin) -> PeerFetcher:
    """What fills a copy of another machine's file."""
    return PeerFetcher(origin)
