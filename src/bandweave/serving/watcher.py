"""Watcher: whoever is told what goes on while a model opens. Knows no terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager


class Watcher:
    """Hears it all and says nothing; others show what they hear."""

    def remark(self, sentence: str) -> None:
        """Something that the user had better know."""

    def waiting(self, node: str) -> None:
        """A node's machine is about to be connected to."""

    def gathering(self, lack: str) -> None:
        """What is waited for before any machine is connected to, as ``"machines: none joined"``."""

    def loading(self, progress: Sequence[tuple[int, int]]) -> None:
        """Bytes that are loaded and in all, by node."""


Watch = Callable[[str, int], AbstractContextManager[Watcher]]  # a model's name, and its nodes


@contextmanager
def unwatched(name: str, nodes: int) -> Iterator[Watcher]:
    """A ``Watch`` of nobody's."""
    yield Watcher()
