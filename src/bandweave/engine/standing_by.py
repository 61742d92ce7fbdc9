"""StandingBy: a node loads beside its work what it would need if others were no more.

Its thread has the lowest priority there is, and one piece of a share in hand at a time. Knows
programs and weights; knows no requests.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence

from bandweave.checkpoints.folder import Folder
from bandweave.engine.assignment import Assignment
from bandweave.engine.loaded_node import keep_to
from bandweave.engine.memory import gigabytes
from bandweave.host.machine import available_memory_bytes
from bandweave.messages import Alternative, Standby, StandbyState
from bandweave.models.registry import build_graph
from bandweave.nodes.context import NodeContext
from bandweave.programs.program import Program
from bandweave.programs.split import make_split
from bandweave.weights import standby
from bandweave.weights.panel_cache import open_cache
from bandweave.weights.stored_formats import node_program

_LEFT = 0.1  # of the memory that is available, for others
_LOWEST = 19  # of priorities


class StandingBy:
    """``held``: what is ready in memory. ``stop`` before it is used."""

    def __init__(self, context: NodeContext, cpus: tuple[int, ...]) -> None:
        """``cpus``: those that the node may run on."""
        self._context, self._cpus = context, cpus
        self.held = standby.Standby()
        self._thread: threading.Thread | None = None
        self._wanted, self._reserved = False, 0
        self._state = StandbyState(num_bytes=0, seconds=0.0, over=True, reason="")

    def start(
        self, asked: Standby, own: Program, folder: Folder, assignment: Assignment, reserved: int
    ) -> None:
        """Begins anew, for what the controller says now. ``reserved``: bytes of memory that the
        node's cache and its steps may still take."""
        self.stop()
        self._wanted = True
        self._state = StandbyState(num_bytes=0, seconds=0.0, over=False, reason="")
        self._reserved = reserved
        self._thread = threading.Thread(
            target=self._run, args=(asked, own, folder, assignment), name="standby", daemon=True
        )
        self._thread.start()

    def state(self) -> StandbyState:
        return self._state

    def stop(self) -> None:
        """Loads no more; what is ready stays."""
        self._wanted = False
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def clear(self) -> None:
        """It is of no use any more."""
        self.stop()
        self.held.clear()

    def _run(self, asked: Standby, own: Program, folder: Folder, assignment: Assignment) -> None:
        keep_to(self._cpus)  # not on the pinned processor of the thread that started this one
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
        began, size, reason = time.monotonic(), 0, ""
        self.held.clear()
        try:
            size, reason = self._hold(asked, own, folder, assignment)
        except standby.Interrupted:
            reason = "interrupted"
        except (ValueError, OSError, MemoryError) as error:
            reason = str(error) or "memory is short"
        if reason:
            self._context.log(f"holds no more ready: {reason}")
        self._state = StandbyState(
            num_bytes=size, seconds=time.monotonic() - began, over=True, reason=reason
        )

    def _hold(
        self, asked: Standby, own: Program, folder: Folder, assignment: Assignment
    ) -> tuple[int, str]:
        """The packed bytes that are ready then, and why there are not more."""
        form = assignment.run.weight_format
        others = _programs(asked.alternatives, folder, assignment)
        size = standby.standby_bytes(own, others, folder.shape, form)
        cache = open_cache(self._context.cache if assignment.cache else "")
        available = available_memory_bytes()
        if asked.on_disk and cache is None:
            return 0, "there is no cache on disk here"
        # The others do the same, and caches and buffers are taken only when they are used.
        needed = asked.sharers * (size + self._reserved)
        if not asked.on_disk and available is not None and needed > (1 - _LEFT) * available:
            return 0, (
                f"{gigabytes(size)} would be, but of the {gigabytes(available)} of memory that are "
                "available too little would be left"
            )
        standby.hold_ready(
            standby.batches(own, others, folder.shape, form),
            folder,
            form,
            self.held,
            wanted=lambda: self._wanted,
            cache=cache,
            on_disk=asked.on_disk,
            model=assignment.model,
        )
        return size, ""


def _programs(
    alternatives: Sequence[Alternative], folder: Folder, assignment: Assignment
) -> list[Program]:
    graph = build_graph(folder.spec, further=assignment.run.further)
    return [
        node_program(
            folder,
            graph,
            make_split(folder.spec, one.shares, stages=one.stages),
            one.rank,
            assignment.run.weight_format,
        )
        for one in alternatives
    ]
