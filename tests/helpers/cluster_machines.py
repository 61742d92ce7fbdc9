"""Machines of a cluster on one: each with networks, a name, folders and a view of the files of its
own. Processes and processors they share."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.networks import run

_ROOT = Path(__file__).parent.parent.parent
_MARK = "BANDWEAVE_TEST_CLUSTER"
SECONDS = 90.0
SLOW_DELAY = 0.003  # one way over the slow network


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``fast`` and ``slow``: its addresses in two networks; ``home``: its own folders."""

    name: str
    namespace: str
    fast: str
    slow: str
    home: Path
    models: Path
    has_models: bool
    mark: str

    def command(self, *words: str | Path) -> list[str]:
        """As that machine runs it: its own name, and its own view of the files."""
        hidden = "" if self.has_models else f"mount -t tmpfs none {self.models}; "
        script = f'hostname {self.name}; {hidden}exec "$@"'
        return ["ip", "netns", "exec", self.namespace, "unshare", "-m", "-u", "sh", "-c", script,
                "sh", *map(str, words)]  # fmt: skip

    def environment(self) -> dict[str, str]:
        own = {
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_DATA_HOME": str(self.home / "data"),
            "BANDWEAVE_CACHE": "off",
            "BANDWEAVE_PROFILE": str(self.home / "profile.json"),
            "PYTHONPATH": f"{_ROOT / 'src'}{os.pathsep}{_ROOT}",
            "COLUMNS": "80",
            _MARK: self.mark,
        }
        return {**os.environ, **own}

    def start(self, *words: str | Path, **options: object) -> subprocess.Popen[str]:
        """A command of bandweave that goes on."""
        return subprocess.Popen(
            self.command(sys.executable, "-m", "bandweave", *words),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str | Path, text: str = "", fails: bool = False) -> str:
        """A command to its end: what it printed, or what it complained of where it ``fails``."""
        done = self.shell(sys.executable, "-m", "bandweave", *words, text=text)
        assert (done.returncode != 0) == fails, f"{words}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    def shell(self, *words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment(),
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )


@contextlib.contextmanager
def cluster_machines(
    folder: Path, names: Sequence[str] = ("anna", "bert", "carl")
) -> Iterator[list[Machine]]:
    """Machines of these names, joined by two networks; the first has the models of the folder.
    Whatever of them is left is ended; use ``left_over`` to see that nothing is."""
    for tool in ("ip", "unshare", "hostname"):
        if os.geteuid() != 0 or shutil.which(tool) is None:
            pytest.skip(f"machines of their own need root and {tool}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("slow networks need /dev/net/tun")
    tag = f"bw{secrets.token_hex(3)}"
    models = folder / "models"
    models.mkdir(exist_ok=True)
    switch = f"{tag}s"
    machines = [
        Machine(
            name=name,
            namespace=f"{tag}{number}",
            fast=f"10.214.1.{number + 1}",
            slow=f"10.214.2.{number + 1}",
            home=folder / name,
            models=models,
            has_models=number == 0,
            mark=tag,
        )
        for number, name in enumerate(names)
    ]
    hub: subprocess.Popen[str] | None = None
    try:
        for namespace in (switch, *(one.namespace for one in machines)):
            run("ip", "netns", "add", namespace)
            run("ip", "netns", "exec", namespace, "ip", "link", "set", "lo", "up")
        inside = ("ip", "netns", "exec", switch)
        run(*inside, "ip", "link", "add", "bridge0", "type", "bridge")
        run(*inside, "ip", "link", "set", "bridge0", "up")
        for number, one in enumerate(machines):
            one.home.mkdir(exist_ok=True)
            cable, near = f"{tag}c{number}", ("ip", "netns", "exec", one.namespace)
            run("ip", "link", "add", "fast", "netns", one.namespace, "type", "veth", "peer",
                "name", cable, "netns", switch)  # fmt: skip
            run(*inside, "ip", "link", "set", cable, "master", "bridge0", "up")
            run(*near, "ip", "addr", "add", f"{one.fast}/24", "dev", "fast")
            run(*near, "ip", "link", "set", "fast", "up")
        hub = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.slow_switch", str(SLOW_DELAY),
             *(f"{one.namespace}:slow" for one in machines)],
            cwd=_ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert hub.stdout is not None and hub.stdout.readline().strip() == "joined"
        for one in machines:
            near = ("ip", "netns", "exec", one.namespace)
            run(*near, "ip", "addr", "add", f"{one.slow}/24", "dev", "slow")
            run(*near, "ip", "link", "set", "slow", "up")
        yield machines
    finally:
        for pid in left_over(machines):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hub is not None:
            hub.kill()
            hub.wait()
            if hub.stdout is not None:
                hub.stdout.close()
        for namespace in (switch, *(one.namespace for one in machines)):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def left_over(machines: Sequence[Machine], seconds: float = 0.0) -> list[int]:
    """The processes of the machines that still run after so long."""
    wanted = {f"{_MARK}={one.mark}".encode() for one in machines}
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if wanted & set((entry / "environ").read_bytes().split(b"\0")):
                        found.append(int(entry.name))
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.1)


def wait_for(condition, seconds: float = 30.0):  # noqa: ANN001, ANN201
    """What a condition gives once that is something."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            assert found, "it did not come to pass"
            return found
        time.sleep(0.2)
