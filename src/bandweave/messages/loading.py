"""A node's start: what its machine can give, which copy of the model it has found, and what it has
loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.host.control_groups import MemoryLimit
from bandweave.messages.meeting import RouteTaken
from bandweave.messages.message import Message, Question


@dataclass(frozen=True, kw_only=True)
class Description(Message, type="description"):
    """What a node's machine can give: ``memory`` inside each limit, the processors ``cpus`` that it
    may run on and how many of them it may use, and the ``threads`` that its worker was told to use
    at most, 0 for none. Nodes with one ``host_id`` share a machine."""

    host_id: str
    memory: tuple[MemoryLimit, ...]
    cpus: tuple[int, ...]
    usable_cpus: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Describe(Question[Description], type="describe"):
    """Asks for a ``Description``."""


@dataclass(frozen=True, kw_only=True)
class Found(Message, type="found"):
    """A node has found its copy of the model, whose weight files have these ``headers`` (as in
    ``Fingerprint``), checked that its share fits, and is ready to join. ``same_files``: they are
    the controller's very files."""

    path: str
    headers: str
    same_files: bool


@dataclass(frozen=True, kw_only=True)
class Progress(Message, type="progress"):
    """A node lives and loads: bytes of the checkpoint that are done, and in all; ``moved`` grows
    while they come from other machines."""

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
class ContentReport(Message, type="content"):
    """Some of what a node's share was made of, for comparison."""

    blocks: tuple[BlockSums, ...]


@dataclass(frozen=True, kw_only=True)
class Loaded(Message, type="loaded"):
    """A node is ready for steps. Of its share ``kept_bytes`` were in its memory already, packed;
    ``same_file_bytes`` come from the controller's very files, ``manifest_bytes`` were compared with
    a manifest beside its copy. ``routes``: those that it had a choice of."""

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
