"""Ray's own processes on this machine: started for a cluster, and ended with it.

Runs Ray's command, and knows no more of Ray than its options: dashboard and usage reports are off,
token authentication is on, and what Ray keeps on disk lies in a folder of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bandweave.handshake.secret import read_secret
from bandweave.membership.background import BackgroundError
from bandweave.membership.processes import end, started_at
from bandweave.membership.records import (
    Record,
    Running,
    read_record,
    remove_record,
    running,
    write_private,
    write_record,
)
from bandweave.mesh.address import format_address, is_unspecified, parse_address
from bandweave.mesh.interfaces import own_hosts

RAY_PORT = 6379
_SCRATCH = "bandweave-ray-"
_SECONDS = 60.0
_SETTLE_SECONDS = 0.2
_STORE_BYTES = 78_643_200  # the least that Ray takes for objects; nothing of ours goes through it
_LAST_BYTES = 4000
_EXTRA = "pip install 'bandweave[cluster]'"


def check_ray() -> None:
    """``ValueError`` where Ray is not installed."""
    if find_spec("ray") is None:
        raise ValueError(f"Ray is not installed here: {_EXTRA}")


def ray_environment(folder: Path, token: Path) -> dict[str, str]:
    """The environment for Ray's processes and for those that talk to them: who talks to Ray has to
    know the cluster's secret, of which Ray's token is made, so that the one tells nothing of the
    other."""
    own = hmac.new(read_secret(token), b"bandweave: the token of Ray", hashlib.sha256).hexdigest()
    path = folder / "ray-token"
    write_private(path, own.encode() + b"\n")
    chosen = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(path),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    kept = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_TOKEN"}
    return {**kept, **chosen}


def start_ray_head(folder: Path, token: Path, listen: str, *, cpus: int | None) -> str:
    """Ray's head on this machine, and its address. ``BackgroundError`` where it does not start."""
    check_ray()
    host, _ = parse_address(listen, listening=True)
    if is_unspecified(host):
        host = next(iter(own_hosts()), "127.0.0.1")
    address = format_address((host, RAY_PORT))
    scratch = tempfile.mkdtemp(prefix=_SCRATCH)
    words = ["--head", "--node-ip-address", host, "--port", str(RAY_PORT), "--temp-dir", scratch,
             "--include-dashboard=false"]  # fmt: skip
    _start(folder, token, words, cpus=cpus, address=address, head="", scratch=scratch)
    return address


def join_ray(folder: Path, address: str, token: Path, *, head: str, cpus: int | None) -> None:
    """Makes this machine a part of a Ray cluster."""
    check_ray()
    address = format_address(parse_address(address))
    words = ["--address", address]
    host = _towards(parse_address(address))
    if host:
        words += ["--node-ip-address", host]
    _start(folder, token, words, cpus=cpus, address=address, head=head, scratch="")


def _towards(address: tuple[str, int]) -> str:
    """This machine's address on the way there."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(address)  # sends nothing
        return sock.getsockname()[0]
    return ""


def _start(
    folder: Path,
    token: Path,
    words: Sequence[str],
    *,
    cpus: int | None,
    address: str,
    head: str,
    scratch: str,
) -> None:
    log = folder / "ray.log"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--block",
               "--disable-usage-stats", "--object-store-memory", str(_STORE_BYTES)]  # fmt: skip
    if cpus is not None:
        command += ["--num-cpus", str(cpus)]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            env=ray_environment(folder, token),
            cwd="/",
        )
    finally:
        os.close(descriptor)
    first = Running(pid=process.pid, started=started_at(process.pid))
    try:
        _await(process, log)
    except BaseException:
        _end_all([first, *_descendants(process.pid)])
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    process.returncode = 0  # it outlives us: nobody waits for it, or warns that nobody did
    write_record(
        folder,
        Record(
            role="ray",
            address=address,
            head=head,
            token_file=str(token.resolve()),
            log=str(log),
            background=True,
            scratch=scratch or _scratch_of(process.pid),
            processes=(first, *_descendants(process.pid)),
        ),
    )


def _scratch_of(pid: int) -> str:
    """The folder that Ray's head has chosen for all machines, where that is one of ours."""
    for one in _descendants(pid):
        for word in _words(one.pid):
            name, _, value = word.partition("=")
            if name == "--temp_dir" and Path(value).name.startswith(_SCRATCH):
                return value
    return ""


def _in_use(folder: str) -> bool:
    """Whether a process of this machine still runs with that folder."""
    return any(folder in word for pid in _parents() for word in _words(pid))


def _words(pid: int) -> list[str]:
    """A process's command line; empty where it has ended."""
    with contextlib.suppress(OSError):
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
        return content.decode(errors="replace").split("\0")
    return []


def _await(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until Ray's command says that it blocks, which it does once all runs."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if "--block" in _last(log):
            return
        if process.poll() is not None:
            lines = [line for line in _last(log).splitlines() if line.strip()]
            raise BackgroundError(f"Ray did not start: {lines[-1] if lines else 'it says nothing'}")
        time.sleep(_SETTLE_SECONDS)
    raise BackgroundError(f"Ray did not start within {_SECONDS:.0f} s; {log} says more")


def _last(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _LAST_BYTES))
        return file.read().decode(errors="replace")


def end_ray(folder: Path) -> list[int]:
    """Ends what of Ray was started on this machine; the numbers of processes that could not be
    ended."""
    record = read_record(folder, "ray")
    if record is None or not record.background:
        return []
    known = {one.pid: one for one in record.processes}
    if record.alive:
        known.update({one.pid: one for one in _descendants(record.processes[0].pid)})
    stuck = _end_all(list(known.values()))
    if not stuck:
        if record.scratch and not _in_use(record.scratch):
            shutil.rmtree(record.scratch, ignore_errors=True)
        remove_record(folder, "ray")
        (folder / "ray-token").unlink(missing_ok=True)
    return stuck


def _end_all(processes: Sequence[Running]) -> list[int]:
    """The first, which ends the others in its own way; then what is left of those."""
    return [one.pid for one in processes if not end(one.pid, one.started, patience=5.0)]


def _descendants(pid: int) -> list[Running]:
    """All processes that a process has started, and those that they have, but for bandweave's own
    workers, which outlive Ray."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found, waiting = list[Running](), list(children.get(pid, ()))
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, ())
        with contextlib.suppress(ValueError):
            found.append(running(one))
    return found


def _parents() -> dict[int, int]:
    """Every process of this machine, and who started it. Ray's clusters run on Linux."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found[int(entry.name)] = int(fields[1])
    return found


def ray_memory_bytes(record: Record) -> int:
    """What Ray's processes take of this machine's memory now, shared pages counted once."""
    first = record.processes[0].pid
    return sum(_memory(one) for one in (first, *(other.pid for other in _descendants(first))))


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
