"""Model: a loaded model for Python programs; ``bandweave.load`` makes one.

Text in, text out, over the engine that the commands use; any number of threads and tasks may ask at
a time, and their answers share the steps. A server is a program that uses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from bandweave.engine.options import EngineOptions
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import Timing
from bandweave.generation.sampling import SamplingParams
from bandweave.handshake.encryption import ALWAYS, AUTO, NEVER
from bandweave.handshake.secret import read_secret
from bandweave.membership.attendance import attend
from bandweave.membership.known_heads import head_and_secret
from bandweave.run_options import RunOptions
from bandweave.serving.answers.answering import Answering
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import End, Event, Text, Thought
from bandweave.serving.cluster_report import Reporter
from bandweave.serving.gathering import Gathering
from bandweave.serving.session import Session, open_session
from bandweave.serving.watcher import Watcher
from bandweave.serving.wish import Wish

_LOG = logging.getLogger("bandweave")

Prompt = str | Sequence[int]
"""A text, or the ids of its tokens."""
ChatMessage = Mapping[str, Any]
"""``role`` and ``content``, and what else the model's chat template knows."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer. ``finish_reason``: ``"stop"`` (an end token or a stop string), ``"length"``, or
    ``"error"``, which ``error`` explains; ``thoughts``: what a model thought before it spoke;
    ``logprobs``: of each token but one that ended the answer, where they were asked for."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    timing: Timing
    thoughts: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    error: str = ""


class Model:
    """See ``load``. A context manager; ``close`` ends every node.

    ``sampling`` of every method are fields of ``SamplingParams`` (``temperature``, ``top_p``,
    ``max_tokens``, ``stop``, ``seed`` ...); the most likely tokens are chosen, where it says
    nothing. Errors: ``ValueError`` for what makes no sense, ``StepError`` where a node fails.
    """

    def __init__(self, session: Session, resources: ExitStack) -> None:
        """Use ``load``."""
        self._session, self._resources = session, resources
        self._answering = Answering(session.engine, session.tokenizer)

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._session.engine.context

    @property
    def session(self) -> Session:
        """What it is made of: files, tokenizer, template, engine."""
        return self._session

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with those that the model wants around every text."""
        return self._session.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return self._session.tokenizer.decode(tokens)

    # --- for threads ---

    def generate(
        self, prompt: Prompt, *, logprobs: int | None = None, **sampling: Any
    ) -> Completion:
        """Goes on with a text."""
        return _whole(self._listen(self._text_ask(prompt, logprobs, sampling)))

    def stream(self, prompt: Prompt, **sampling: Any) -> Iterator[str]:
        """As ``generate``, piece by piece. Whoever closes the iterator ends the answer."""
        return _texts(self._listen(self._text_ask(prompt, None, sampling)))

    def chat(
        self, messages: str | Sequence[ChatMessage], *, logprobs: int | None = None, **sampling: Any
    ) -> Completion:
        """Answers a conversation, or one question, as the model's chat template puts it."""
        return _whole(self._listen(self._chat_ask(messages, logprobs, sampling)))

    def chat_stream(self, messages: str | Sequence[ChatMessage], **sampling: Any) -> Iterator[str]:
        """As ``chat``, piece by piece. Whoever closes the iterator ends the answer."""
        return _texts(self._listen(self._chat_ask(messages, None, sampling)))

    # --- for tasks of an event loop ---

    async def agenerate(
        self, prompt: Prompt, *, logprobs: int | None = None, **sampling: Any
    ) -> Completion:
        """As ``generate``. Cancelling the task ends the answer."""
        ask = await asyncio.to_thread(self._text_ask, prompt, logprobs, sampling)
        return await self._awhole(ask)

    async def astream(self, prompt: Prompt, **sampling: Any) -> AsyncIterator[str]:
        """As ``stream``."""
        ask = await asyncio.to_thread(self._text_ask, prompt, None, sampling)
        async for piece in self._atexts(ask):
            yield piece

    async def achat(
        self, messages: str | Sequence[ChatMessage], *, logprobs: int | None = None, **sampling: Any
    ) -> Completion:
        """As ``chat``. Cancelling the task ends the answer."""
        ask = await asyncio.to_thread(self._chat_ask, messages, logprobs, sampling)
        return await self._awhole(ask)

    async def achat_stream(
        self, messages: str | Sequence[ChatMessage], **sampling: Any
    ) -> AsyncIterator[str]:
        """As ``chat_stream``."""
        ask = await asyncio.to_thread(self._chat_ask, messages, None, sampling)
        async for piece in self._atexts(ask):
            yield piece

    def close(self) -> None:
        """Ends all nodes. May be called more than once."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- how it is asked ---

    def _text_ask(self, prompt: Prompt, logprobs: int | None, sampling: Mapping[str, Any]) -> Ask:
        tokens = self.encode(prompt) if isinstance(prompt, str) else prompt
        return _ask(tokens, logprobs, sampling, goes_on=True)

    def _chat_ask(
        self,
        messages: str | Sequence[ChatMessage],
        logprobs: int | None,
        sampling: Mapping[str, Any],
    ) -> Ask:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return _ask(self._session.encode_chat(messages), logprobs, sampling, goes_on=False)

    def _listen(self, ask: Ask) -> _Asked:
        return _Asked(ask, self._answering.listen(ask))

    async def _awhole(self, ask: Ask) -> Completion:
        parts = _Parts(ask)
        async with self._answering.start(ask) as stream:
            async for event in stream:
                parts.add(event)
        return parts.completion()

    async def _atexts(self, ask: Ask) -> AsyncIterator[str]:
        async with self._answering.start(ask) as stream:
            async for event in stream:
                if isinstance(event, Text) and event.text:
                    yield event.text


def load(
    model: str | Path,
    *,
    nodes: int | None = None,
    shares: Sequence[int] = (),
    hosts: Sequence[str] = (),
    token_file: str | Path | None = None,
    cluster: str | None = None,
    encrypt: bool | None = None,
    threads: int | None = None,
    format: str = "auto",
    context: int | None = None,
    streams: int = 1,
    cache: bool = True,
    replicas: int = 1,
    spare: int = 0,
    standby_weights: str = "",
    options: EngineOptions | None = None,
) -> Model:
    """Loads a model: a folder, a GGUF file, ``org/name`` of the hub, or ``"demo"``.

    On ``nodes`` processes of this machine (1) in equal ``shares``; on ``hosts`` where `bandweave
    worker` listens, whose secret is in ``token_file``; or on the machines that joined the head at
    ``cluster`` (``"host:port"``; ``""`` is the one that `bandweave up` started here, or that this
    machine joined): on as many of those as pay, or on ``nodes`` of them, which are waited for.
    ``encrypt``: all that crosses to and between machines, or nothing, where the default is all that
    leaves one; ``threads`` a node. ``format`` of the weights, ``context`` tokens of a prompt and
    its answer, with room for ``streams`` of them. ``cache``: whether packed weights may be kept on
    disk. ``replicas``: groups into which the nodes are divided, each of which holds the whole
    model; ``spare`` nodes, the last of the ``hosts``, take the place of those that fail;
    ``standby_weights`` in ``"memory"`` or on ``"disk"``: what nodes would need if another failed.
    ``options`` says all of it in the place of the others; of a cluster, how the model runs and in
    how many stages. Errors are those of the command: ``ValueError``, ``MemoryError``, ``OSError``,
    ``StepError``.
    """
    encryption = AUTO if encrypt is None else ALWAYS if encrypt else NEVER
    wish = None
    if cluster is not None:
        if hosts or (options is not None and options.hosts):
            raise ValueError("hosts names machines, and a cluster has its own; give one of them")
        wish = Wish(
            machines=len(shares) or nodes,
            shares=tuple(map(Fraction, shares)) or None,
            stages=options.stages if options is not None and options.stages > 1 else None,
            replicas=replicas,
            spare=spare,
            encryption=encryption,
        )
        if shares and nodes not in (None, len(shares)):
            raise ValueError(f"{nodes} nodes, but {len(shares)} shares; give one of them")
        if options is not None and (len(options.shares), options.replicas, options.spare) != (
            1, 1, 0,
        ):  # fmt: skip
            raise ValueError(
                "options are of one node where a cluster is given; say nodes, shares, replicas and "
                "spare beside them"
            )
        # What the machines of a cluster are, is known once they have joined.
        nodes, shares, replicas, spare, encryption = 1, (), 1, 0, AUTO
    if options is None:
        from bandweave.weights.cache_folder import default_folder

        spares = tuple(hosts[max(1, len(hosts) - spare) :]) if hosts and spare else ()
        hosts = tuple(hosts[: len(hosts) - len(spares)])
        count = len(shares) or len(hosts) or (1 if nodes is None else nodes)
        options = EngineOptions(
            shares=tuple(map(Fraction, shares)) or (Fraction(1),) * count,
            fit=bool(hosts) and not shares,
            hosts=hosts,
            replicas=replicas,
            spare=spare,
            spare_hosts=spares,
            standby=standby_weights,
            secret=None
            if token_file is None or wish is not None
            else read_secret(Path(token_file)),
            encryption=encryption,
            threads=threads,
            run=RunOptions(weight_format=format, context=context, streams=streams),
            cache=cache,
            cache_folder=default_folder() if cache else "",
        )
    with ExitStack() as stack:
        gathering = None
        if cluster is not None and wish is not None:
            token = None if token_file is None else Path(token_file)
            membership = attend(*head_and_secret(cluster, token), f"bandweave.load {model}")
            gathering = Gathering(stack.enter_context(closing(membership)), wish)
        session = stack.enter_context(
            open_session(str(model), options, _logged, _LOG.warning, gathering)
        )
        if gathering is not None:
            stack.enter_context(Reporter(gathering, session))
        return Model(session, stack.pop_all())
    raise AssertionError


class _Logging(Watcher):
    """What a program's user had better know."""

    def remark(self, sentence: str) -> None:
        _LOG.info(sentence)

    def gathering(self, lack: str) -> None:
        _LOG.warning("waiting for %s", lack)


@contextmanager
def _logged(name: str, nodes: int) -> Iterator[Watcher]:
    yield _Logging()


@dataclass(frozen=True)
class _Asked:
    ask: Ask
    events: Iterator[Event]


@dataclass
class _Parts:
    """What an answer is made of, as it grows."""

    ask: Ask
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    end: End | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, (Text, Thought)):
            (self.text if isinstance(event, Text) else self.thoughts).append(event.text)
            self.logprobs += [one.logprobs for one in event.tokens if one.logprobs is not None]
        elif isinstance(event, End):
            self.end = event

    def completion(self) -> Completion:
        end = self.end
        assert end is not None
        return Completion(
            text="".join(self.text),
            tokens=end.tokens,
            finish_reason=end.reason,
            prompt_tokens=len(self.ask.tokens),
            cached_tokens=end.cached_tokens,
            timing=end.timing,
            thoughts="".join(self.thoughts),
            logprobs=tuple(self.logprobs),
            error=end.error,
        )


def _whole(asked: _Asked) -> Completion:
    parts = _Parts(asked.ask)
    for event in asked.events:
        parts.add(event)
    return parts.completion()


def _texts(asked: _Asked) -> Iterator[str]:
    for event in asked.events:
        if isinstance(event, Text) and event.text:
            yield event.text


def _ask(
    tokens: Sequence[int], logprobs: int | None, sampling: Mapping[str, Any], *, goes_on: bool
) -> Ask:
    values = {"temperature": 0.0, **sampling}
    if isinstance(values.get("stop"), str):
        values["stop"] = (values["stop"],)
    values["stop"] = tuple(values.get("stop") or ())
    try:
        params = SamplingParams(**values)
    except TypeError as error:
        known = ", ".join(field.name for field in fields(SamplingParams))
        raise ValueError(f"{error}; what can be given is {known}") from error
    return Ask(tokens=tuple(tokens), params=params, logprobs=logprobs, goes_on=goes_on)
