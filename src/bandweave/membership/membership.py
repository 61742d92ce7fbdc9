"""Membership: the machines of a cluster, as those see it that run a model on them.

Behind it is a door of this process (``door``), or one of another (``attendance``). Knows no models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bandweave.membership.messages import Machine

#: Signs of life go both ways so often; whoever gives none for ``SILENT_SECONDS`` is gone.
BEAT_SECONDS = 2.0
SILENT_SECONDS = 10.0


class Membership(Protocol):
    """The members of one cluster. All methods may be called from any thread."""

    @property
    def cluster(self) -> str:
        """The cluster's random name, by which its workers know their controllers; empty while no
        head has told it."""
        ...

    @property
    def secret(self) -> bytes:
        """The cluster's."""
        ...

    @property
    def where(self) -> str:
        """``host:port`` at which machines join."""
        ...

    @property
    def machines(self) -> tuple[Machine, ...]:
        """The members, in the order in which they came first; the last that were known where
        their head is gone."""
        ...

    @property
    def changed_at(self) -> float:
        """When the members last became others, of ``time.monotonic``."""
        ...

    def wait(self, known: tuple[Machine, ...], seconds: float) -> tuple[Machine, ...]:
        """The members, once they are others than those ``known``, or after so many seconds."""
        ...

    def tell(self, report: Callable[[], str]) -> None:
        """What to answer those who ask what goes on here: a JSON object as text. It is asked every
        few seconds and must not wait for anything."""
        ...

    def close(self) -> None:
        """Ends what stands behind it; the members themselves go on. May be called more than
        once."""
        ...
