"""Assignment: what the controller tells a node to hold, and how to run it. Plain data.

Every node gets the same assignment but for its own settings, and computes its share from it. Who
else is there, and how to reach them, comes later (``messages.Join``): a node keeps what it holds
when they change.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bandweave.checkpoints.folder import Fingerprint
from bandweave.messages import Message
from bandweave.run_options import MAX_NODES, RunOptions

_MOST_TOKENS, _MOST_THREADS = 1 << 28, 1 << 12
_MOST_CPUS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Assignment(Message, type="hold"):
    """The share of node number ``rank`` of those that ``shares`` and ``stages`` describe.

    ``threads`` 0 for the node's own choice; ``cpus`` and ``home``: see ``Binding``, whose
    ``pinned`` the former are; ``cache``: whether the node may keep packed weights, in the folder
    that its own machine has for them; ``host_id`` and ``own_files``: the controller's host, and the
    keys of its copy's files, which a node on that host need not compare; ``draft``: see
    ``EngineOptions``; ``hub`` and ``draft_hub``: what the hub calls them, empty where they are not
    from there."""

    model: str
    fingerprint: Fingerprint
    shares: tuple[Fraction, ...]
    stages: int
    rank: int
    run: RunOptions
    threads: int = 0
    cpus: tuple[int, ...] = ()
    home: tuple[int, ...] = ()
    spin: bool = True
    cache: bool = False
    draft: str = ""
    draft_fingerprint: Fingerprint | None = None
    host_id: str = ""
    own_files: tuple[str, ...] = ()
    hub: str = ""
    draft_hub: str = ""

    @property
    def context(self) -> int:
        """Tokens of one sequence."""
        assert self.run.context is not None
        return self.run.context

    def __post_init__(self) -> None:
        """``ValueError`` for an assignment that contradicts itself."""
        nodes = len(self.shares)
        for name, value, least, most in (
            ("nodes", nodes, 1, MAX_NODES),
            ("as the node's rank", self.rank, 0, nodes - 1),
            ("stages", self.stages, 1, nodes),
            ("tokens of context", self.run.context or 0, 1, _MOST_TOKENS),
            ("threads", self.threads, 0, _MOST_THREADS),
            ("pinned processors", len(self.cpus), 0, _MOST_THREADS),
        ):
            if not least <= value <= most:
                raise ValueError(f"{value} {name}; there may be {least} to {most}")
        if (self.run.speculate == "draft") != (self.draft_fingerprint is not None):
            raise ValueError("a draft model and speculation by one belong together")
        if any(cpu >= _MOST_CPUS for cpu in (*self.cpus, *self.home)):
            raise ValueError(f"a processor's number is above {_MOST_CPUS}")
