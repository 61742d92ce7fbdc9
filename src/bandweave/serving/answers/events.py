"""Events of answers, in the order in which a client hears of them. Plain data.

``choice`` says which of several answers to one prompt. Pieces of one kind in a row are one text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import Timing

Reason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token of an answer, the ``text`` that it stands for, and its log-probabilities where they
    were asked for."""

    token: int
    text: bytes
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of what is said. ``tokens`` came since the piece before; either may be empty."""

    choice: int
    text: str
    tokens: tuple[TokenInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what the model thinks; ``tokens`` as in ``Text``."""

    choice: int
    text: str
    tokens: tuple[TokenInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class CallBegun:
    """The model calls a tool: the ``call``-th of its answer, from 0."""

    choice: int
    call: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of a call's arguments, which are JSON text."""

    choice: int
    call: int
    text: str


@dataclass(frozen=True, slots=True)
class Read:
    """So many tokens of the prompt have been read. ``tokens`` is 0 while the request waits."""

    tokens: int


@dataclass(frozen=True, kw_only=True)
class End:
    """An answer has ended. ``reason``: an end token or a stop string (``stop``, which names the
    latter), the ``length``, calls of tools, the client, or the model's own numbers, which ``error``
    explains. ``tokens`` of the answer, ``thought_tokens`` of them thoughts; ``cached_tokens`` of
    the prompt were computed before; ``prompt_logprobs``: where they were asked for."""

    choice: int
    reason: Reason
    tokens: tuple[int, ...]
    timing: Timing
    stop: str | None = None
    error: str = ""
    thought_tokens: int = 0
    cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    embedding: tuple[float, ...] = ()


Event = Text | Thought | CallBegun | CallArguments | Read | End
