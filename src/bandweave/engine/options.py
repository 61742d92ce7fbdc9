"""EngineOptions: how a model is split, where its nodes run, and how it runs there. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from bandweave.handshake.encryption import AUTO, check_encryption
from bandweave.nodes.context import STALL_SECONDS
from bandweave.planning.profile.emulation import EmulatedLink
from bandweave.run_options import MAX_NODES, RunOptions

DEFAULT_CONTEXT = 4096
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """``shares`` has one entry a node; ``hosts`` are the nodes' machines (``host:port`` of workers,
    with their ``secret``), empty for this one; ``encryption`` of what crosses between them: always,
    never, or (auto) of all that leaves a machine. With ``fit`` the shares may shrink on hosts whose
    memory is short. ``threads`` a node (None: the processors shared out); ``cache``: whether nodes
    may keep packed weights, in ``cache_folder`` on this machine (empty: nowhere) and in their own
    folders on hosts; ``emulate``: nodes of this machine talk as over that link, in the place of
    their own; ``draft``: the folder of the model that drafts, where ``run`` asks for one;
    ``patience``: seconds for which those who ask wait for a machine, where the ones that are left
    cannot hold the model; ``replicas``: into how many groups the nodes are divided, each of which
    holds the whole model, 0 for as many as pay; ``standby``: where nodes hold ready what they would
    need if one of them were gone: in ``"memory"``, on ``"disk"``, or nowhere. ``spare``: nodes that
    are connected and hold nothing until another fails, on hosts the ``spare_hosts``. Of a group of
    processes of this machine, ``first_node`` is the place of its first among the ``all_nodes`` of
    all groups (0: there is one group)."""

    shares: tuple[Fraction, ...] = (Fraction(1),)
    fit: bool = False
    stages: int = 1
    hosts: tuple[str, ...] = ()
    secret: bytes | None = field(default=None, repr=False)
    encryption: str = AUTO
    threads: int | None = None
    run: RunOptions = RunOptions()
    stall_seconds: float = STALL_SECONDS
    cache: bool = False
    cache_folder: str = ""
    emulate: EmulatedLink | None = None
    draft: str = ""
    patience: float = PATIENCE_SECONDS
    replicas: int = 1
    spare: int = 0
    spare_hosts: tuple[str, ...] = ()
    standby: str = ""
    first_node: int = 0
    all_nodes: int = 0

    def __post_init__(self) -> None:
        """``ValueError`` for options that contradict each other."""
        if self.stages < 1:
            raise ValueError(f"stages is {self.stages}; it must be at least 1")
        if not 0 <= self.replicas <= len(self.shares):
            raise ValueError(
                f"{self.replicas} copies of the model on {len(self.shares)} nodes; each needs one "
                "at least: give more --nodes or --hosts, or a smaller --replicas"
            )
        if not 0 <= self.spare <= MAX_NODES - len(self.shares):
            raise ValueError(f"{self.spare} spare nodes; there may be 0 to {MAX_NODES} in all")
        if len(self.spare_hosts) != (self.spare if self.hosts else 0):
            raise ValueError(
                f"{self.spare} spare nodes, but {len(self.spare_hosts)} hosts for them"
            )
        if self.standby not in ("", "memory", "disk"):
            raise ValueError(f"standby weights in {self.standby[:40]!r}; choose memory or disk")
        if self.standby == "disk" and not self.cache:
            raise ValueError(
                "standby weights on disk are kept in the cache of packed weights; leave out "
                "--no-cache, or keep them in memory"
            )
        if not 0 <= self.patience <= 1e6:
            raise ValueError(f"a patience of {self.patience:g} s; it must be from 0 to 1000000")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"{self.threads} threads a node; it must be at least 1")
        if self.hosts and len(self.hosts) != len(self.shares):
            raise ValueError(f"{len(self.hosts)} hosts, but {len(self.shares)} shares")
        if self.emulate is not None and (self.hosts or len(self.shares) < 2):
            raise ValueError(
                "a link can be emulated between nodes of this machine only, two or more; give "
                "--nodes 2, and no --hosts"
            )
        if self.hosts and self.secret is None:
            raise ValueError("hosts need the token that their workers have; give --token-file")
        check_encryption(self.encryption)
        if self.encryption != AUTO and not self.hosts:
            raise ValueError(
                "nodes of this machine share its memory, which needs no encryption; give "
                "--encrypt or --no-encrypt with --hosts"
            )
        if (self.run.speculate == "draft") != bool(self.draft):
            raise ValueError("a draft model and speculation by one belong together; give both")
