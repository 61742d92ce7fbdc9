"""Fetcher: what brings byte ranges of a file that is elsewhere, and who does it for which origin.

Knows names of modules alone, so that nothing of a network is imported before a byte is missing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from bandweave.checkpoints.have import Origin
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import shown

PEER = "peer"  # the origin of a copy of another machine's files, which a session alone can reach


class Fetcher(Protocol):
    """Brings ranges of one file; threads may ask at once."""

    def fetch(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes ``[start, stop)`` in order, in pieces of any size. Goes on by itself after what
        can be mended; ``CheckpointError`` says in one sentence what cannot. Whoever has taken all
        that came before the error may keep it."""
        ...

    def close(self) -> None:
        """To be called once, when nothing is being fetched."""
        ...


#: ``module:function`` of what makes the fetcher of a file, by the kind of its origin.
_MAKERS: Mapping[str, str] = {
    "hub": "bandweave.hub.range_fetcher:range_fetcher",
    PEER: "bandweave.sharing.givers:peer_fetcher",
}


def open_fetcher(origin: Origin) -> Fetcher:
    """What brings the rest of a file."""
    if origin.kind not in _MAKERS:
        raise CheckpointError(
            f"{origin.path} is to come from {shown(origin.kind)}, which this version does not know"
        )
    module, _, function = _MAKERS[origin.kind].partition(":")
    return getattr(importlib.import_module(module), function)(origin)
