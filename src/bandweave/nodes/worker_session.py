"""WorkerSession: one controller's use of a worker, and the process that serves it.

The worker's own threads answer everybody else meanwhile: they pass on the connections of the
session's other nodes, and tell controllers that the worker is busy, whatever state the process is
in. When the controller has gone the process ends by itself, or is ended. Knows no models.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable
from queue import SimpleQueue

from bandweave.handshake.connection import Arrived, Connection
from bandweave.handshake.handover import MET, hand_over, report_misfit
from bandweave.handshake.handshake import Misfit
from bandweave.handshake.hello import Hello, Refusal
from bandweave.mesh.channel import Channel
from bandweave.mesh.hangup import wait_hangup
from bandweave.mesh.tcp_options import LONGEST_SILENCE, silence
from bandweave.nodes.spawn import end_process
from bandweave.nodes.waiting import take

# Once the controller has gone: for the process to end by itself, then when asked, then by force.
_ENDING_SECONDS = (2.0, 1.0, 2.0)
_LOOK_SECONDS = 10.0  # between two looks at a silent controller
_PATIENCE = LONGEST_SILENCE + 2 * _LOOK_SECONDS

_LEFT, _ENDED = "the controller has gone", "the process has ended"

Start = Callable[[], tuple[subprocess.Popen[bytes], Channel]]


class WorkerSession:
    """``connection`` is the controller's; ``left`` is whether it was the first to go. ``run``
    serves it; the other methods may be called from another thread, and do not wait."""

    def __init__(
        self,
        connection: Connection,
        *,
        log: Callable[[str], None],
        on_met: Callable[[WorkerSession], None] = lambda session: None,
    ) -> None:
        """``on_met`` hears, in another thread, that the nodes have met and begin to compute."""
        self.connection = connection
        self._log, self._on_met = log, on_met
        self._events: SimpleQueue[str] = SimpleQueue()
        self._lock = threading.Lock()
        self._channel: Channel | None = None  # to the process, while it takes the others' sockets
        self.left = self._ending = False

    # --- for whoever takes connections ---

    def answer(self, hello: Hello) -> Refusal | None:
        """What a proved connection is told while the session lasts."""
        own = self.connection.hello
        if hello.purpose == "control":
            if own.session and (hello.session, hello.node) == (own.session, own.node):
                # It has lost this one, and comes again, before this side has noticed.
                with contextlib.suppress(OSError):
                    self.connection.socket.shutdown(socket.SHUT_RDWR)
                return Refusal(reason="its former process is ending", retry=True)
            busy = f"it is busy: it serves the controller at {self.connection.peer}"
            if self._ending or wait_hangup(self.connection.socket.fileno(), 0.0):
                return Refusal(reason=f"{busy}, which has just left", retry=True)
            return Refusal(reason=f"{busy}; wait for that to end or choose another worker")
        if hello.session != own.session:
            return Refusal(reason="it serves another session")
        if hello.purpose == "files":
            # From any node, or the controller: who asks whom for files is for them to settle.
            if self._channel is None:
                return Refusal(reason="its process has not started", retry=True)
            return None
        if hello.node <= own.node:
            return Refusal(reason=f"node {hello.node} does not connect to node {own.node}")
        if self._channel is None:
            return Refusal(reason="its nodes do not meet now", retry=True)
        return None

    def deliver(self, connection: Connection) -> None:
        """Passes on the connection of another node, which ``answer`` let in. ``OSError`` where the
        process takes none."""
        with connection.socket as sock, self._lock:
            if self._channel is not None:
                hello = connection.hello
                arrived = Arrived(sock, connection.keys, connection.local)
                hand_over(self._channel, hello.node, arrived, files=hello.purpose == "files")

    def note_misfit(self, misfit: Misfit) -> None:
        """Tells the process that waits for a node that its version does not fit."""
        hello, own = misfit.hello, self.connection.hello
        waited_for = hello.session == own.session and hello.node > own.node
        with self._lock, contextlib.suppress(OSError):
            if self._channel is not None and hello.purpose == "mesh" and waited_for:
                report_misfit(self._channel, hello.node, str(misfit))

    # --- for the worker ---

    def run(self, start: Start) -> subprocess.Popen[bytes]:
        """Starts the process and waits for its end. Returns it with its ``returncode``, or with
        None there: the controller has gone, but the system does not let the process end.

        Raises what ``start`` raises, and ``RuntimeError`` or ``OSError`` where the system gives no
        thread or descriptor, after the process has been ended.
        """
        process, channel = start()
        try:
            controller = self.connection.socket.dup()
            self._in_thread(self._watch, controller)
            self._channel = channel
            self._in_thread(self._follow, process, channel)
            self.left = take(self._events) == _LEFT
            return process
        finally:
            self._ending = True
            channel.hang_up()  # where the worker is interrupted, this ends the process
            end_process(process, _ENDING_SECONDS)

    def close(self) -> None:
        """Lets the controller see the end."""
        with contextlib.suppress(OSError):
            self.connection.socket.shutdown(socket.SHUT_RDWR)
        self.connection.socket.close()

    def _in_thread(self, function: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=function, args=arguments, name="session", daemon=True).start()

    def _follow(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        """Hears the process, to its end; also reaps one that ends long after it was given up."""
        with contextlib.suppress(OSError):
            while True:
                if channel.receive() == MET:
                    self._on_met(self)
        with self._lock:
            self._channel = None
            channel.close()
        process.wait()
        self._events.put(_ENDED)

    def _watch(self, controller: socket.socket) -> None:
        """Waits for the controller to go: closed, or with its machine."""
        with controller:
            while not wait_hangup(controller.fileno(), _LOOK_SECONDS):
                # A system that has sent data tries for a quarter of an hour to get rid of it.
                if silence(controller) > _PATIENCE:
                    self._log(f"{self.connection.peer} has not answered for {_PATIENCE:.0f} s")
                    break
        self._events.put(_LEFT)
