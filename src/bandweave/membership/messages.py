"""Messages between a head and those that come to its door: workers, controllers, and whoever asks.

The first message of a connection says what the other side is: ``Announcement`` of a worker,
``Attend`` of a controller that runs a model on the machines, ``AskStatus`` of somebody who wants to
know. Checked as all messages are (``bandweave.messages``). Knows no sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bandweave.mesh.address import Address, parse_address
from bandweave.messages import Message, Question

MOST_ADDRESSES = 32
MOST_MEMBERS = 1024
MOST_REPORT_BYTES = 4 << 20
_LONGEST_NAME = 256
_LONGEST_MACHINE = 2048  # characters of its names and addresses: a roster of all must be told


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a worker says of itself and of its machine. ``worker``: a random name of the worker, by
    which it is known again; ``addresses``: all under which it may be reached, ``host:port``;
    machines of one ``host_id`` are one. ``memory_bytes`` are available, of ``total_bytes``;
    ``threads`` the most that it was told to compute with, 0 for none. ``placed_by``: ``"ray"``, or
    empty where a person started it; ``ends``: whether it ends when the cluster is taken down."""

    worker: str
    host: str
    host_id: str
    addresses: tuple[str, ...]
    processor: str
    cpus: int
    threads: int
    memory_bytes: int
    total_bytes: int
    version: str
    placed_by: str = ""
    ends: bool = False

    def __post_init__(self) -> None:
        """``ValueError`` for what nobody honest says."""
        names = ("worker", "host", "host_id", "processor", "version", "placed_by")
        for name in names:
            if not _is_name(getattr(self, name)):
                raise ValueError(f"a machine's {name} is no name")
        if not 8 <= len(self.worker) <= 64:
            raise ValueError("a worker without a name of its own")
        if not 1 <= len(self.addresses) <= MOST_ADDRESSES:
            raise ValueError(f"{len(self.addresses)} addresses; there may be 1 to {MOST_ADDRESSES}")
        for address in self.addresses:
            if not _is_name(address):
                raise ValueError("a machine's address is none")
            parse_address(address)
        length = sum(map(len, (*self.addresses, *(getattr(self, name) for name in names))))
        if length > _LONGEST_MACHINE:
            raise ValueError(f"a machine with names and addresses of {length} characters")
        if self.cpus < 1:
            raise ValueError("a machine has at least 1 processor")

    @property
    def places(self) -> tuple[Address, ...]:
        """The addresses, parsed."""
        return tuple(parse_address(text) for text in self.addresses)


# --- from a worker ---


@dataclass(frozen=True, kw_only=True)
class Announcement(Message, type="announce"):
    """A worker joins. From now on it lives as long as its connection, and says so."""

    machine: Machine


@dataclass(frozen=True, kw_only=True)
class Beat(Message, type="beat"):
    """A sign of life, either way."""


@dataclass(frozen=True, kw_only=True)
class Farewell(Message, type="farewell"):
    """The sender goes and does not come back by itself. Of a head: the cluster is taken down."""


# --- from a controller ---


@dataclass(frozen=True, kw_only=True)
class Attend(Message, type="attend"):
    """A controller wants to run a model on the members; it is told ``Roster`` whenever they
    change. ``name``: what it is, for people."""

    name: str
    pid: int

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ValueError("a controller's name is no name")


@dataclass(frozen=True, kw_only=True)
class Report(Message, type="report"):
    """What a controller does at the moment, for ``status``: a JSON object as text."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MOST_REPORT_BYTES:
            raise ValueError(f"a report of {len(self.text)} characters")


# --- from a head ---


@dataclass(frozen=True, kw_only=True)
class Roster(Message, type="roster"):
    """The members, in the order in which they came first, for so many ``seconds`` now."""

    machines: tuple[Machine, ...]
    seconds: float

    def __post_init__(self) -> None:
        if len(self.machines) > MOST_MEMBERS:
            raise ValueError(f"{len(self.machines)} machines")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A machine, and for how long it has been there."""

    machine: Machine
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Controller:
    """Who runs a model on the members, and what it reported last."""

    name: str
    pid: int
    peer: str
    report: str


@dataclass(frozen=True, kw_only=True)
class Status(Message, type="status"):
    """All that a head knows; ``notes``: sentences of what goes on in placing, by who says them."""

    cluster: str
    members: tuple[Member, ...]
    gone: tuple[str, ...]
    controllers: tuple[Controller, ...]
    notes: Mapping[str, str]


# --- from somebody who wants to know ---


@dataclass(frozen=True, kw_only=True)
class AskStatus(Question[Status], type="ask_status"):
    """Asks for ``Status``."""


def _is_name(text: str) -> bool:
    """Whether it may stand in a line of a terminal or a log."""
    return len(text) <= _LONGEST_NAME and text.isprintable()
