"""Roster: who could be a node and is none: machines that are back, or have joined, made ready in
the background for the moment when they are taken in.

Whoever failed is tried again after a pause that grows with each failure. Knows a launcher; knows no
models and no requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bandweave.messages import Echo, decode, encode
from bandweave.nodes.launcher import Candidate, Launcher
from bandweave.nodes.node_handle import NodeHandle

_ADMISSION_SECONDS = 15.0  # to be dialled, start a process, and be ready
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
_UNREACHABLE_PAUSE = 5.0  # at most, between two looks for a machine that does not answer
_ECHO_BYTES, _ECHO_SECONDS = 32 << 10, 3.0  # there and back; 200 kbit/s would do
_GOOD_SECONDS = 60.0  # a node that has served for so long fails for the first time


@dataclass(kw_only=True)
class _Record:
    """Of a node's number: how often it failed lately and when, when it was last taken in, and when
    it may be tried again; how often it could not be reached."""

    failures: int = 0
    failed_at: float = float("-inf")
    taken_at: float = float("-inf")
    next_at: float = float("-inf")
    misses: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A machine that is no node: whether it is ``ready`` to be one, since when, and why not."""

    node: int
    name: str
    ready: bool
    reason: str = ""


class Roster:
    """``on_ready`` is called, in a thread of its own, when a machine is ready to be a node."""

    def __init__(
        self,
        launcher: Launcher,
        on_ready: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launcher, self._on_ready, self._clock = launcher, on_ready, clock
        self._lock = threading.Lock()
        self._records: dict[int, _Record] = {}
        self._ready: dict[int, tuple[NodeHandle, float]] = {}
        self._admitting: set[int] = set()
        self._names: dict[int, str] = {}
        self._over = False

    def note_failure(self, node: int, reason: str) -> None:
        """A node has failed. The first time it may be back at once."""
        now = self._clock()
        with self._lock:
            record = self._records.setdefault(node, _Record())
            if now - max(record.taken_at, record.failed_at) > _GOOD_SECONDS:
                record.failures = 0
            record.failures += 1
            record.failed_at = now
            record.reason = reason
            pause = _FIRST_PAUSE * 2 ** (record.failures - 2) if record.failures > 1 else 0.0
            record.next_at = now + min(_LONGEST_PAUSE, pause)

    def fails_again(self, node: int) -> bool:
        """Whether a node has failed before, a short while ago."""
        with self._lock:
            record = self._records.get(node)
            return record is not None and self._clock() - record.failed_at <= _GOOD_SECONDS

    def look(self) -> None:
        """Starts to admit who could be a node. Never waits."""
        now = self._clock()
        self._drop_dead()
        for candidate in self._launcher.candidates():
            with self._lock:
                record = self._records.setdefault(candidate.node, _Record())
                self._names[candidate.node] = candidate.name
                known = candidate.node in self._admitting or candidate.node in self._ready
                if self._over or known or record.next_at > now:
                    continue
                self._admitting.add(candidate.node)
            threading.Thread(
                target=self._admit, args=(candidate,), name="admission", daemon=True
            ).start()

    def ready(self) -> Sequence[NodeHandle]:
        """Those who can be taken in."""
        self._drop_dead()
        with self._lock:
            return [handle for handle, _ in self._ready.values()]

    def waited(self) -> float:
        """Seconds for which the first of those has been ready."""
        with self._lock:
            return self._clock() - min(
                (at for _, at in self._ready.values()), default=self._clock()
            )

    def take(self, most: int | None = None) -> list[NodeHandle]:
        """Those who are ready, at most so many; they are nodes from now on."""
        now = self._clock()
        with self._lock:
            handles = [handle for handle, _ in self._ready.values()]
            handles = sorted(handles, key=lambda handle: handle.node)[:most]
            for handle in handles:
                del self._ready[handle.node]
                self._records.setdefault(handle.node, _Record()).taken_at = now
        return handles

    def release(self, handle: NodeHandle) -> None:
        """Who is ready is not needed."""
        with self._lock:
            self._ready.pop(handle.node, None)

    def missing(self) -> list[Missing]:
        """Who could be a node, as far as anybody has looked."""
        with self._lock:
            there = {node for node in self._ready}
            waiting = [
                Missing(node=handle.node, name=handle.name, ready=True)
                for handle, _ in self._ready.values()
            ]
            names = dict(self._names)
        for candidate in self._launcher.candidates():
            names[candidate.node] = candidate.name
            if candidate.node not in there:
                record = self._records.get(candidate.node)
                reason = "" if record is None else record.reason
                waiting.append(
                    Missing(node=candidate.node, name=candidate.name, ready=False, reason=reason)
                )
        return waiting

    def close(self) -> None:
        """Nobody is admitted any more; those who are ready end with the launcher."""
        with self._lock:
            self._over = True
            self._ready.clear()

    def _drop_dead(self) -> None:
        """Who was ready and has ended since."""
        with self._lock:
            dead = [one for one, _ in self._ready.values() if one.channel.hung_up()]
            for handle in dead:
                del self._ready[handle.node]
        for handle in dead:
            self._launcher.dismiss(handle)
            self.note_failure(handle.node, "ended before it was needed")

    def _admit(self, candidate: Candidate) -> None:
        try:
            handle = self._launcher.admit(candidate, _ADMISSION_SECONDS)
            if not self._launcher.local:
                self._check_cable(handle)
        except (OSError, ValueError, RuntimeError) as error:
            with self._lock:
                record = self._records[candidate.node]
                record.misses += 1
                record.reason = str(error)
                pause = min(_UNREACHABLE_PAUSE, _FIRST_PAUSE * 1.5**record.misses)
                record.next_at = self._clock() + pause
                self._admitting.discard(candidate.node)
            return
        with self._lock:
            self._records[candidate.node].misses = 0
            self._admitting.discard(candidate.node)
            if not self._over:
                self._ready[candidate.node] = handle, self._clock()
        self._on_ready()

    def _check_cable(self, handle: NodeHandle) -> None:
        """``OSError`` for a machine whose bytes trickle: it says that it is ready, and would hold
        up all others as soon as they had to wait for it."""
        text = "x" * _ECHO_BYTES
        try:
            handle.channel.send(encode(Echo(text=text)), timeout=_ECHO_SECONDS)
            if decode(Echo, handle.channel.receive(_ECHO_SECONDS)).text != text:
                raise ValueError(f"{handle.name} did not say what it was asked to say")
        except (OSError, ValueError) as error:
            self._launcher.dismiss(handle)
            if isinstance(error, TimeoutError):
                raise TimeoutError(
                    f"{_ECHO_BYTES >> 10} KB to {handle.name} and back took longer than "
                    f"{_ECHO_SECONDS:g} s; see to the network between it and this machine"
                ) from None
            raise
