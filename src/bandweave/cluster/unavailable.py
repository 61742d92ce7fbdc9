"""Unavailable: that nobody answers, and when it is worth asking again."""

from __future__ import annotations

from bandweave.executors.executor import StepError


class Unavailable(StepError):
    """The machines that are left cannot hold the model, and nobody waits any longer for others.
    ``retry``: seconds after which it is worth asking again."""

    def __init__(self, sentence: str, retry: float) -> None:
        super().__init__(sentence)
        self.retry = retry
