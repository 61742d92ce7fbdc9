"""Workers in processes of their own that have joined a head, with nodes that hold models."""

from __future__ import annotations

from bandweave.nodes.process import SERVE
from tests.helpers.connections import SECRET
from tests.helpers.workers import WorkerProcess


class Member(WorkerProcess):
    """A worker of the cluster whose head is at ``head``."""

    def __init__(self, head: str, listen: str = "127.0.0.1:0") -> None:
        options = {"join": head, "threads": 1, "serve": SERVE}
        super().__init__(
            code="from bandweave.membership.member_worker import run_member\n"
            f"run_member({listen!r}, {SECRET!r}, **{options!r})\n"
        )
