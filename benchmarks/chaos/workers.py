"""``python -m benchmarks.chaos.workers``: whatever happens to their sessions, workers go on.

Commands that use some workers are started, killed, interrupted, stopped and cut off at random
moments; their nodes are killed and stopped; strangers shake half a hand. After each the workers
must be as they were: free for the next session, which gives the right answer, with no process,
port, file or shared memory more, and as many descriptors and threads. Ends with status 1 at the
first fault, with the seed that plays it again.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.chaos.processes import kill
from benchmarks.chaos.relay import Relay
from benchmarks.chaos.worker_group import Fault, Workers
from benchmarks.rounds import say
from benchmarks.vitals import Vitals, slope

_MOST_MIB = 24.0  # that a worker may grow by, all in all


class Trial:
    """Random faults. Every one of the public methods is a kind of them."""

    def __init__(self, workers: Workers, seed: int) -> None:
        self._workers, self._draw = workers, random.Random(seed)
        self._held: list[socket.socket] = []
        self.counts: Counter[str] = Counter()

    def once(self) -> str:
        name = self._draw.choice(KINDS)
        getattr(self, name)()
        self.counts[name] += 1
        return name

    def close(self) -> None:
        for sock in self._held:
            sock.close()
        self._held.clear()

    def _some(self) -> list[str]:
        addresses = self._workers.addresses
        return self._draw.sample(addresses, self._draw.randrange(1, len(addresses) + 1))

    def _started(self, hosts: Sequence[str] | None = None) -> subprocess.Popen[str]:
        """A command, some moments after its start: it begins, loads, or answers."""
        command = self._workers.start(self._workers.command(hosts or self._some()))
        time.sleep(self._draw.choice((0.2, 0.8, 1.6)) + self._draw.random())
        return command

    def command_killed(self) -> None:
        command = self._started()
        kill(command.pid, signal.SIGKILL)
        command.communicate()

    def command_interrupted(self) -> None:
        number = self._draw.choice((signal.SIGINT, signal.SIGTERM))
        command = self._started()
        kill(command.pid, number)
        status, _, err = self._workers.end(command, "a command that was interrupted")
        if status not in (0, 128 + number):
            raise Fault(f"an interrupted command ended with status {status}: {err[-500:]}")

    def command_stopped(self) -> None:
        command = self._started()
        kill(command.pid, signal.SIGSTOP)
        time.sleep(self._draw.uniform(0.5, 3))
        if self._draw.random() < 0.3:
            kill(command.pid, signal.SIGKILL)
            command.communicate()
            return
        kill(command.pid, signal.SIGCONT)
        status, _, err = self._workers.end(command, "a command that was stopped for a while")
        if status:
            raise Fault(f"a command that was stopped for a while ended: {err[-500:]}")

    def node_killed(self) -> None:
        self._with_node(signal.SIGKILL)

    def node_stopped(self) -> None:
        self._with_node(signal.SIGSTOP)

    def _with_node(self, number: int) -> None:
        command = self._started()
        if nodes := self._workers.marked.nodes():
            kill(self._draw.choice(nodes), number)
        self._workers.end(command, f"a command whose node got signal {number}")

    def cable_cut(self) -> None:
        """A relay leads to one of the workers, for the command and for the other nodes."""
        workers = self._workers
        index = self._draw.randrange(len(workers.ports))
        with Relay(("127.0.0.1", workers.ports[index])) as relay:
            hosts = [relay.address if n == index else address
                     for n, address in enumerate(workers.addresses)]  # fmt: skip
            self._draw.shuffle(hosts)
            command = self._started(hosts)
            if self._draw.random() < 0.5:
                relay.cut(reset=self._draw.random() < 0.5)
            else:
                relay.hold()
                time.sleep(self._draw.uniform(0.5, 12))
                relay.cut()
            workers.end(command, "a command whose cable was cut")

    def two_at_once(self) -> None:
        hosts = self._some()
        first, second = self._started(hosts), self._started(hosts)
        for command in (first, second):
            status, _, err = self._workers.end(command, "one of two commands")
            if status and "busy" not in err and "serves another" not in err:
                raise Fault(f"one of two commands at once failed: {err[-500:]}")

    def half_handshakes(self) -> None:
        """Of what somebody really said; some stay, and say no more."""
        workers = self._workers
        index = self._draw.randrange(len(workers.ports))
        port = workers.ports[index]
        with Relay(("127.0.0.1", port), keeps=True) as relay:
            command = workers.start(workers.command([relay.address]))
            status, _, err = workers.end(command, "a command through a relay")
            if status and "busy" not in err:
                raise Fault(f"a command through a relay failed: {err[-500:]}")
            said = bytes(relay.sent[0]) if relay.sent else b"bwv1"
        for _ in range(self._draw.randrange(1, 40)):
            part = bytearray(said[: self._draw.randrange(min(len(said), 600) + 1)])
            if part and self._draw.random() < 0.5:
                part[self._draw.randrange(len(part))] ^= 1 << self._draw.randrange(8)
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), 5)
                self._held.append(sock)
                sock.sendall(part)
                if self._draw.random() < 0.7:
                    self._held.pop().close()
        self.close()


KINDS = ("command_killed", "command_interrupted", "command_stopped", "node_killed",
         "node_stopped", "cable_cut", "two_at_once", "half_handshakes")  # fmt: skip


@contextlib.contextmanager
def running(count: int) -> Iterator[Workers]:
    with tempfile.TemporaryDirectory() as folder:
        workers = Workers(Path(folder), count)
        try:
            yield workers
        finally:
            workers.marked.end()


def play(minutes: float, seed: int, count: int, tell: Callable[[str], None] = say) -> list[str]:
    """What was left over or had grown; ``Fault`` where something else was wrong."""
    with running(count) as workers:
        trial = Trial(workers, seed)
        begun = time.monotonic()
        seen: list[tuple[float, list[Vitals]]] = []
        rounds = 0
        try:
            while time.monotonic() - begun < minutes * 60:
                name = trial.once()
                workers.settle(name)
                rounds += 1
                if rounds % 4 == 0:
                    workers.whole()
                    workers.settle("an undisturbed session")
                    seen.append((time.monotonic() - begun, workers.vitals()))
                    tell(f"{seen[-1][0]:.0f} s, {rounds} faults: {dict(trial.counts)}")
            workers.whole()
            workers.settle("the last session")
        finally:
            trial.close()
        left = _growth(workers, seen)
        return left + workers.stop()


def _growth(workers: Workers, seen: list[tuple[float, list[Vitals]]]) -> list[str]:
    left = []
    for number, (before, after) in enumerate(zip(workers.normal, workers.vitals(), strict=True)):
        if after.mib > before.mib + _MOST_MIB:
            left.append(f"worker {number} grew from {before.mib:.0f} to {after.mib:.0f} MiB")
        if len(seen) >= 3:
            grows = slope([at for at, _ in seen], [all_seen[number].mib for _, all_seen in seen])
            say(f"worker {number}: {before.mib:.1f} MiB at the start, {after.mib:.1f} at the end, "
                f"{grows:+.3f} a minute")  # fmt: skip
    return left


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.workers",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=3)
    given = parser.parse_args()
    say(f"seed {given.seed}")
    # What a shell starts in the background ignores SIGINT, and so would all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        left = play(given.minutes, given.seed, given.workers)
    except Fault as fault:
        print(f"FAILED, seed {given.seed}: {fault}")
        return 1
    for sentence in left:
        print(f"FAILED, seed {given.seed}: {sentence}")
    if not left:
        print("no hang, nothing left over, nothing grown")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
