"""Requests on their way to node 0, and what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import CallOptions, Request, Timing
from bandweave.messages.message import Message, Question


@dataclass(frozen=True, kw_only=True)
class Submit(Message, type="submit"):
    """Requests that arrive together, under names of the controller's that none has that is under
    way; see ``Generator.submit``. Stop strings stay with the controller."""

    ids: tuple[int, ...]
    requests: tuple[Request, ...]
    options: CallOptions

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("no requests")
        if len(self.ids) != len(self.requests) or len(set(self.ids)) != len(self.ids):
            raise ValueError(f"{len(self.requests)} requests have {len(set(self.ids))} names")


@dataclass(frozen=True, kw_only=True)
class Cancel(Message, type="cancel"):
    """Requests that are no longer wanted, as far as they are under way."""

    ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Tokens(Message, type="tokens"):
    """New tokens: token ``i`` belongs to request ``ids[i]``, and ``logprobs[i]`` to it; there are
    none where nobody asked. Plain lists, for they come by the thousand."""

    ids: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens for {len(self.ids)} requests")
        if len(self.logprobs) not in (0, len(self.tokens)):
            raise ValueError(f"{len(self.logprobs)} logprobs for {len(self.tokens)} tokens")


@dataclass(frozen=True, kw_only=True)
class Finished(Message, type="finished"):
    """How a request's answer of ``count`` tokens, which went before, ended; see ``Result``."""

    SIGNED: ClassVar[frozenset[str]] = frozenset({"embedding"})
    id: int
    count: int
    reason: str
    error: str
    logits_digest: str
    digests: tuple[str, ...]
    prompt_logprobs: tuple[TokenLogprobs, ...]
    embedding: tuple[float, ...]
    timing: Timing


@dataclass(frozen=True, kw_only=True)
class Refused(Message, type="refused"):
    """Requests that cannot be run, and why; they came together."""

    ids: tuple[int, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Alive(Message, type="alive"):
    """A node that takes part in a generation lives; ``progress`` grows while its steps get on. Of
    the requests ``ids``, whose prompts are being read, so many ``tokens`` were read before the step
    at hand."""

    ids: tuple[int, ...]
    tokens: tuple[int, ...]
    progress: int = 0

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} counts for {len(self.ids)} requests")


@dataclass(frozen=True, kw_only=True)
class Learnt(Message, type="learnt"):
    """Node 0 has the vocabulary, or ``reason`` says why grammars cannot be kept to."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Question[Learnt], type="vocabulary"):
    """Some of the texts of the vocabulary's tokens for node 0, which needs them for grammars: those
    from ``first`` on, each as base64 of its bytes, empty for one that is no text. ``end_tokens``
    end an answer. The ``last`` of several is answered with ``Learnt``."""

    first: int
    texts: tuple[str, ...]
    end_tokens: tuple[int, ...]
    last: bool
