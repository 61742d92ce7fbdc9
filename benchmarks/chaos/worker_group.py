"""A group of workers of this machine, and the right answer to one question: what must be so again
after whatever happened to their sessions.

Knows processes and commands; knows no faults.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bandweave.handshake.secret import make_secret
from benchmarks.chaos.processes import Marked, kill, listeners
from benchmarks.contestant import ROOT
from benchmarks.vitals import Vitals, vitals

_PROMPT = "Two machines with 819 GB/s each: what bandwidth together? Say it at length."
_END_SECONDS = 90.0  # of a command, whatever happened to its nodes
_FREE_SECONDS = 40.0  # until a worker is as it was
_SETTLE_SECONDS = 0.1


class Fault(AssertionError):
    """Something that must not be."""


class Workers:
    """``count`` workers of this machine, and the right answer to one question."""

    def __init__(self, holder: Path, count: int) -> None:
        self.marked = Marked(holder)
        self.token = holder / "token"
        self.token.write_bytes(make_secret() + b"\n")
        self.token.chmod(0o600)
        self.logs = [holder / f"log-{number}" for number in range(count)]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        for log in self.logs:
            self._start(log)
        self.truth = self._answer(["--nodes", "1"])
        self.whole()
        time.sleep(1.0)
        self.normal = [self._vitals(number) for number in range(count)]

    def _start(self, log: Path) -> None:
        command = [sys.executable, "-m", "bandweave", "worker", "--listen", "127.0.0.1:0",
                   "--token-file", str(self.token), "--threads", "1"]  # fmt: skip
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=self.marked.environment, stderr=file,
                                       start_new_session=True)  # fmt: skip
        self.processes.append(process)
        deadline = time.monotonic() + 60
        while not (found := re.search(r"listening on \S+:(\d+)", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Fault(f"a worker does not start: {log.read_text()}")
            time.sleep(0.05)
        self.ports.append(int(found[1]))

    # --- commands ---

    def command(self, hosts: Sequence[str]) -> list[str]:
        return ["--hosts", ",".join(hosts), "--token-file", str(self.token)]

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]

    def start(self, where: Sequence[str]) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "bandweave", "run", "demo", "--prompt", _PROMPT, "--raw",
                 "--max-tokens", "400", "--temperature", "0.8", "--seed", "7", "--threads", "1",
                 "--json", *where]  # fmt: skip
        return subprocess.Popen(
            words, cwd=ROOT, env=self.marked.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def end(self, command: subprocess.Popen[str], what: str) -> tuple[int, str, str]:
        """How a command ended, which it must within the bound, and not with another answer."""
        try:
            out, err = command.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            kill(command.pid, signal.SIGKILL)
            _, err = command.communicate()
            raise Fault(f"{what}: the command hangs: {err[-500:]}") from None
        if "Traceback" in err:
            raise Fault(f"{what}: a traceback: {err[-2000:]}")
        if command.returncode == 0 and self._told(out) != self.truth:
            raise Fault(f"{what}: another answer: {out[:500]}")
        return command.returncode, out, err

    def _answer(self, where: Sequence[str]) -> Any:
        command = self.start(where)
        out, err = command.communicate(timeout=_END_SECONDS)
        if command.returncode:
            raise Fault(f"an undisturbed command failed: {err[-1000:]}")
        return self._told(out)

    @staticmethod
    def _told(out: str) -> Any:
        found = json.loads(out)
        return found["tokens"], found["logits_digest"], found["text"]

    # --- what must be so again ---

    def whole(self) -> None:
        """All workers together answer, and right. One that is busy with what has just ended may
        say so for a while."""
        deadline = time.monotonic() + _FREE_SECONDS
        while True:
            command = self.start(self.command(self.addresses))
            status, _, err = self.end(command, "an undisturbed command")
            if status == 0:
                return
            if "busy" not in err or time.monotonic() > deadline:
                raise Fault(f"an undisturbed command failed ({status}): {err[-1000:]}")
            time.sleep(0.3)

    def settle(self, what: str) -> None:
        """Waits until everything is as it was before."""
        deadline = time.monotonic() + _FREE_SECONDS
        while wrong := self._wrong():
            if time.monotonic() > deadline:
                raise Fault(f"{what}: {'; '.join(wrong)}")
            time.sleep(_SETTLE_SECONDS)

    def _wrong(self) -> list[str]:
        wrong = []
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                raise Fault(f"worker {number} ended with status {process.returncode}: "
                            f"{self.logs[number].read_text()[-1000:]}")  # fmt: skip
            if listeners(self.ports[number]) != 1:
                wrong.append(f"worker {number} does not listen at its one port")
            now = self._vitals(number)
            before = self.normal[number]
            if now.descriptors > before.descriptors:
                wrong.append(f"worker {number} has {now.descriptors} descriptors, not "
                             f"{before.descriptors}")  # fmt: skip
            if now.threads > before.threads:
                wrong.append(f"worker {number} has {now.threads} threads, not {before.threads}")
        own = {process.pid for process in self.processes}
        wrong += [f"process {pid} is left" for pid in self.marked.processes() if pid not in own]
        wrong += [f"{path} is left" for path in self.marked.temporary.iterdir()]
        return wrong

    def _vitals(self, number: int) -> Vitals:
        return vitals(self.processes[number].pid)

    def vitals(self) -> list[Vitals]:
        return [self._vitals(number) for number in range(len(self.processes))]

    def stop(self) -> list[str]:
        for process in self.processes:
            kill(process.pid, signal.SIGINT)
        left = []
        for number, process in enumerate(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                left.append(f"worker {number} does not end")
            if "Traceback" in self.logs[number].read_text():
                left.append(f"worker {number} printed a traceback: {self.logs[number].read_text()}")
        left += self.marked.left_over()
        self.marked.end()
        return left
