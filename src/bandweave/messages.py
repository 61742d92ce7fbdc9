"""Messages between a controller and its nodes: what each may say, checked when it is heard.

A message is a JSON object with a ``type``; its other fields are those of the record of that type.
Nothing that the other side says is used before it was read here. Knows no channels and no nodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Protocol, TypeVar

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import Request, Timing
from bandweave.handshake.encryption import AUTO, check_encryption
from bandweave.handshake.rendezvous import Meeting
from bandweave.host.control_groups import MemoryLimit
from bandweave.mesh.address import Address
from bandweave.mesh.routes import Route
from bandweave.mesh.sealing import AES, CIPHERS, KEY_BYTES
from bandweave.planning.profile.emulation import EmulatedLink
from bandweave.record import from_json, to_json
from bandweave.run_options import MAX_NODES

_KEY = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}", re.ASCII)


class MessageError(ValueError):
    """A message that makes no sense; says what is wrong with it."""


class Message(Protocol):
    """A record that is sent."""

    TYPE: ClassVar[str]


M = TypeVar("M", bound=Message)


def encode(message: Message) -> dict[str, Any]:
    """As a channel carries it."""
    return {"type": message.TYPE, **to_json(message)}


def decode(kind: type[M], message: Mapping[str, Any]) -> M:
    """The record of a message of that type; ``MessageError`` where it is none."""
    fields = {key: value for key, value in message.items() if key != "type"}
    if message.get("type") != kind.TYPE:
        raise MessageError(f"{str(message.get('type'))[:40]!r} came where {kind.TYPE!r} was due")
    try:
        return from_json(kind, fields, kind.TYPE)
    except (ValueError, OverflowError) as error:
        raise MessageError(str(error)) from error


# --- from a node: its start ---


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a node's machine can give: ``memory`` inside each limit, the processors ``cpus`` that it
    may run on and how many of them it may use, and the ``threads`` that its worker was told to use
    at most, 0 for none. Nodes with one ``host_id`` share a machine."""

    TYPE: ClassVar[str] = "description"
    host_id: str
    memory: tuple[MemoryLimit, ...]
    cpus: tuple[int, ...]
    usable_cpus: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """A node has found its copy of the model, whose weight files have these ``headers`` (as in
    ``Fingerprint``), checked that its share fits, and is ready to join. ``same_files``: they are
    the controller's very files."""

    TYPE: ClassVar[str] = "found"
    path: str
    headers: str
    same_files: bool


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A node lives and loads: bytes of the checkpoint that are done, and in all; ``moved`` grows
    while they come from other machines."""

    TYPE: ClassVar[str] = "progress"
    done: int
    total: int
    moved: int = 0


@dataclass(frozen=True, kw_only=True)
class BlockSums:
    """Content sums of some blocks of a tensor as stored in ``file``: of ``size`` rows each, or
    columns, from number ``first`` on, each as 16 hexadecimal digits."""

    tensor: str
    file: str
    columns: bool
    size: int
    item_bits: float
    first: int
    sums: str


@dataclass(frozen=True, kw_only=True)
class ContentReport:
    """Some of what a node's share was made of, for comparison."""

    TYPE: ClassVar[str] = "content"
    blocks: tuple[BlockSums, ...]


@dataclass(frozen=True, kw_only=True)
class RouteTaken:
    """Which of a machine's several addresses leads a node to the one of that ``rank``: the soonest
    of its ``routes``, which come in that order."""

    rank: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A node is ready for steps. Of its share ``kept_bytes`` were in its memory already, packed;
    ``same_file_bytes`` come from the controller's very files, ``manifest_bytes`` were compared with
    a manifest beside its copy. ``routes``: those that it had a choice of."""

    TYPE: ClassVar[str] = "loaded"
    weight_bytes: int
    kv_bytes: int
    work_bytes: int
    threads: int
    isa: str
    fetch_ahead_bytes: int
    peak_rss_bytes: int
    kept_bytes: int
    same_file_bytes: int
    manifest_bytes: int
    routes: tuple[RouteTaken, ...] = ()


# --- from a node: answers ---


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """New tokens: token ``i`` belongs to request ``ids[i]``, and ``logprobs[i]`` to it; there are
    none where nobody asked. Plain lists, for they come by the thousand."""

    TYPE: ClassVar[str] = "tokens"
    ids: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens for {len(self.ids)} requests")
        if len(self.logprobs) not in (0, len(self.tokens)):
            raise ValueError(f"{len(self.logprobs)} logprobs for {len(self.tokens)} tokens")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a request's answer of ``count`` tokens, which went before, ended; see ``Result``."""

    TYPE: ClassVar[str] = "finished"
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
class Refused:
    """Requests that cannot be run, and why; they came together."""

    TYPE: ClassVar[str] = "refused"
    ids: tuple[int, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Alive:
    """A node that takes part in a generation lives; ``progress`` grows while its steps get on. Of
    the requests ``ids``, whose prompts are being read, so many ``tokens`` were read before the step
    at hand."""

    TYPE: ClassVar[str] = "alive"
    ids: tuple[int, ...]
    tokens: tuple[int, ...]
    progress: int = 0

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} counts for {len(self.ids)} requests")


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A node's generation has ended, by a peer or by numbers out of range. The node keeps its
    weights."""

    TYPE: ClassVar[str] = "broken"
    generation: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Left:
    """A node takes part in no generation."""

    TYPE: ClassVar[str] = "left"


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """A node's bills, of prefill and of decode steps, and its peak memory."""

    TYPE: ClassVar[str] = "statistics"
    prefill: Mapping[str, float]
    decode: Mapping[str, float]
    peak_rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class StandbyState:
    """Of what a node holds ready beside its share: packed ``num_bytes``, once it is ``over``, and
    the ``seconds`` that took; ``reason``: why there is not all that was wanted."""

    TYPE: ClassVar[str] = "standby_state"
    num_bytes: int
    seconds: float
    over: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """What node 0 does at the moment; see ``generation.state``."""

    TYPE: ClassVar[str] = "state"
    running: int
    waiting: int
    pages: int
    free_pages: int
    kept_pages: int
    preempted: int
    steps: int
    seconds: float
    durations: tuple[int, ...]
    read: int
    written: int
    ended: int
    in_flight: int = 0


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """Node 0 has the vocabulary, or ``reason`` says why grammars cannot be kept to."""

    TYPE: ClassVar[str] = "learnt"
    reason: str


# --- from a controller ---


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Asks for a ``Description``."""

    TYPE: ClassVar[str] = "describe"


@dataclass(frozen=True, kw_only=True)
class LinkEncryption:
    """How links between nodes are encrypted: whether (``handshake.encryption``), with which
    ``cipher``, and the ``key`` of the session that they are bound to, in hexadecimal."""

    encryption: str = AUTO
    cipher: str = AES
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """``ValueError`` for what is unknown."""
        check_encryption(self.encryption)
        if self.cipher not in CIPHERS:
            raise ValueError(f"no cipher is called {self.cipher[:40]!r}")
        if self.key and not _KEY.fullmatch(self.key):
            raise ValueError("a key of links that is none")

    def meeting(self, generation: int) -> Meeting:
        """How nodes meet by it."""
        return Meeting(
            generation=generation, encryption=self.encryption, key=bytes.fromhex(self.key)
        )


@dataclass(frozen=True, kw_only=True)
class Join:
    """All nodes have found the model: now they meet, as a new ``generation``, and load what they
    lack of their shares. Of those that take part, in order of their ranks: the ``nodes`` as they
    are numbered, their ``names``, and their ``addresses``, none for nodes of one process;
    ``alternatives``: all of each one's addresses, where any has several.
    ``stall_seconds``: how long a peer may make no progress; ``emulate``: as in
    ``EngineOptions``; ``links``: how they are encrypted."""

    TYPE: ClassVar[str] = "join"
    generation: int
    nodes: tuple[int, ...]
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    stall_seconds: float
    emulate: EmulatedLink | None = None
    alternatives: tuple[tuple[Address, ...], ...] = ()
    links: LinkEncryption = LinkEncryption()

    def __post_init__(self) -> None:
        """``ValueError`` for what contradicts itself."""
        count = len(self.nodes)
        for name, value, least, most in (
            ("generation", self.generation, 1, (1 << 32) - 1),
            ("nodes", count, 1, MAX_NODES),
            ("names", len(self.names), count, count),
            ("addresses", len(self.addresses), count if self.addresses else 0, count),
            ("alternatives", len(self.alternatives), count if self.alternatives else 0, count),
            ("seconds of patience", self.stall_seconds, 0.01, 86400),
        ):
            if not least <= value <= most:
                raise ValueError(f"{value} {name}; there may be {least} to {most}")
        if len(set(self.nodes)) < count or max(self.nodes) >= MAX_NODES:
            raise ValueError("a node is named twice, or has a number that none has")
        several = (address for addresses in self.alternatives for address in addresses)
        if not all(0 < port < 65536 for _, port in (*self.addresses, *several)):
            raise ValueError("a node's address has no port")


@dataclass(frozen=True, kw_only=True)
class Leave:
    """The generation is over; the node keeps its weights. It answers ``Left`` once it has left,
    whatever it did before."""

    TYPE: ClassVar[str] = "leave"


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Requests that arrive together, under names of the controller's that none has that is under
    way; see ``Generator.submit``. Stop strings stay with the controller."""

    TYPE: ClassVar[str] = "submit"
    ids: tuple[int, ...]
    requests: tuple[Request, ...]
    chunk: int | None
    digest: bool
    reuse: bool

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("no requests")
        if len(self.ids) != len(self.requests) or len(set(self.ids)) != len(self.ids):
            raise ValueError(f"{len(self.requests)} requests have {len(set(self.ids))} names")


@dataclass(frozen=True, kw_only=True)
class AskStatistics:
    """Asks for ``Statistics``."""

    TYPE: ClassVar[str] = "ask_statistics"


@dataclass(frozen=True, kw_only=True)
class AskState:
    """Asks node 0 for an ``EngineState``."""

    TYPE: ClassVar[str] = "ask_state"


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """The share that a node would have in another split of the model."""

    shares: tuple[Fraction, ...]
    stages: int
    rank: int

    def __post_init__(self) -> None:
        """``ValueError`` for what contradicts itself."""
        nodes = len(self.shares)
        for name, value, least, most in (
            ("nodes", nodes, 1, MAX_NODES),
            ("as the node's rank", self.rank, 0, nodes - 1),
            ("stages", self.stages, 1, nodes),
        ):
            if not least <= value <= most:
                raise ValueError(f"{value} {name}; there may be {least} to {most}")


@dataclass(frozen=True, kw_only=True)
class Standby:
    """What a node is to hold ready beside its work: all that it would need in any of the
    ``alternatives``, in memory, or ``on_disk``, in its cache of packed weights. ``sharers``: nodes
    that share its machine's memory and do the same, with itself."""

    TYPE: ClassVar[str] = "standby"
    alternatives: tuple[Alternative, ...]
    on_disk: bool = False
    sharers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.sharers <= MAX_NODES:
            raise ValueError(f"{self.sharers} nodes share a memory; 1 to {MAX_NODES} may")
        if len(self.alternatives) > MAX_NODES:
            raise ValueError(f"{len(self.alternatives)} alternatives; there may be {MAX_NODES}")


@dataclass(frozen=True, kw_only=True)
class AskStandby:
    """Asks for a ``StandbyState``."""

    TYPE: ClassVar[str] = "ask_standby"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Some of the texts of the vocabulary's tokens for node 0, which needs them for grammars: those
    from ``first`` on, each as base64 of its bytes, empty for one that is no text. ``end_tokens``
    end an answer. The ``last`` of several is answered with ``Learnt``."""

    TYPE: ClassVar[str] = "vocabulary"
    first: int
    texts: tuple[str, ...]
    end_tokens: tuple[int, ...]
    last: bool


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """Requests that are no longer wanted, as far as they are under way."""

    TYPE: ClassVar[str] = "cancel"
    ids: tuple[int, ...]
