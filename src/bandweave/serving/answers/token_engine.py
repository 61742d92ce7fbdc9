"""TokenEngine: what answers ask of an engine, real or scripted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bandweave.generation.request import USUAL, CallOptions, Request
from bandweave.messages import EngineState
from bandweave.routing.call import Cancel, Deliver


class TokenEngine(Protocol):
    """``context``: tokens that a prompt and its answer may have together."""

    @property
    def context(self) -> int: ...

    def submit(
        self, requests: Sequence[Request], deliver: Deliver, options: CallOptions = USUAL
    ) -> Cancel:
        """Asks for answers; ``deliver`` hears of them in another thread, and must not wait.
        ``StepError`` where the engine has failed."""
        ...

    def state(self) -> EngineState:
        """What goes on at the moment; waits for the end of the step at hand."""
        ...

    def learn(self, texts: Sequence[bytes], end_tokens: Sequence[int]) -> None:
        """Tells the bytes of every token, so that requests may have grammars. ``ValueError`` where
        there can be none."""
        ...
