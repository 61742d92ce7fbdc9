"""Connections: those that are open, and which of them gives way to a new one."""

from __future__ import annotations

from typing import Protocol


class Connection(Protocol):
    def abort(self) -> None:
        """Ends it at once."""
        ...


class Connections:
    """At most so many; those without a request under way are kept in the order in which they fell
    idle."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: set[Connection] = set()
        self._idle: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, one: Connection) -> bool:
        """A new one, idle so far; False where there is no room, for all others are in use."""
        if len(self._all) >= self._most:
            oldest = next(iter(self._idle), None)
            if oldest is None:
                return False
            self.remove(oldest)
            oldest.abort()
        self._all.add(one)
        self._idle[one] = None
        return True

    def busy(self, one: Connection) -> None:
        """A request has come on it."""
        self._idle.pop(one, None)

    def idle(self, one: Connection) -> None:
        """Its request has been answered."""
        if one in self._all:
            self._idle.pop(one, None)
            self._idle[one] = None

    def remove(self, one: Connection) -> None:
        """It has gone. May be called more than once."""
        self._all.discard(one)
        self._idle.pop(one, None)
