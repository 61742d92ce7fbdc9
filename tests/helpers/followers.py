"""Threads of the nodes that follow node 0's steps, for tests that run all nodes in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from bandweave.executors.executor import StepError


class Followers:
    """One thread for each function, which is called again and again until it returns False."""

    def __init__(self, follows: Sequence[Callable[[], bool]]) -> None:
        self.errors: list[StepError] = []
        self._threads = [
            threading.Thread(target=self._run, args=(follow,), daemon=True) for follow in follows
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, follow: Callable[[], bool]) -> None:
        try:
            while follow():
                pass
        except StepError as error:
            self.errors.append(error)

    def join(self) -> None:
        """Waits for all to end, which they do once node 0 has left."""
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()
