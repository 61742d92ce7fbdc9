"""Records: what bandweave has started in the background on this machine, kept in a private folder.

One file for each role: the ``head`` of a cluster, the ``worker`` that joined one, and what Ray
needs (``ray``). Knows files and processes; knows no networks.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bandweave import files
from bandweave.environment import read_environment
from bandweave.membership.processes import end, runs, started_at
from bandweave.record import from_json, to_json
from bandweave.whole_file import whole_file

ROLES = ("head", "worker", "ray")
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Running:
    """A process, by its number and its start."""

    pid: int
    started: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """What runs in a role. ``address``: where a head listens, as others reach it; ``head``: of
    the cluster that a worker joined; ``background``: whether it was started there, and is ours to
    end; ``scratch``: a folder that goes with it, empty for none; ``processes``: all of it, the
    first is the one that counts."""

    role: str
    address: str
    head: str
    token_file: str
    log: str
    background: bool
    scratch: str
    processes: tuple[Running, ...]

    def __post_init__(self) -> None:
        if self.role not in ROLES or not self.processes:
            raise ValueError("it is no record of what runs")

    @property
    def alive(self) -> bool:
        first = self.processes[0]
        return runs(first.pid, first.started)


def cluster_folder(*, make: bool = False) -> Path:
    """The private folder for records, tokens and logs. ``ValueError`` where there can be none."""
    state = read_environment().state
    if state is None:
        raise ValueError(
            "there is no home folder to keep the state of a cluster in; set XDG_STATE_HOME"
        )
    folder = state / "cluster"
    if make:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise ValueError(f"{folder} cannot be used: {error.strerror}") from error
    return folder


def running(pid: int) -> Running:
    """A process that runs now. ``ValueError`` where it does not."""
    started = started_at(pid)
    if not started:
        raise ValueError(f"no process {pid} runs")
    return Running(pid=pid, started=started)


def find_record(folder: Path, role: str) -> Record | None:
    """What runs in a role; None where nothing does, or nobody can tell any more."""
    record = read_record(folder, role)
    return record if record is not None and record.alive else None


def read_record(folder: Path, role: str) -> Record | None:
    """The record of a role, whether it still runs or not; None where it is damaged or missing."""
    path = folder / f"{role}.json"
    try:
        if not files.is_there(path):
            return None
        content = files.read_bytes(path, most=_MOST_BYTES, error=ValueError)
        return from_json(Record, json.loads(content), "the record")
    except (ValueError, OSError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Whole or not at all, readable by the user alone. ``OSError`` where it cannot be written."""
    write_private(folder / f"{record.role}.json", json.dumps(to_json(record)).encode())


def write_private(path: Path, content: bytes) -> None:
    """A file that the user alone can read."""
    with whole_file(path, private=True) as file:
        file.write(content)


def remove_record(folder: Path, role: str, pid: int | None = None) -> None:
    """``pid``: only where the record is of that process."""
    record = read_record(folder, role)
    if pid is None or (record is not None and record.processes[0].pid == pid):
        with contextlib.suppress(OSError):
            (folder / f"{role}.json").unlink(missing_ok=True)


def end_record(folder: Path, role: str, *, patience: float = 8.0) -> list[int]:
    """Ends all processes of a role that was started in the background, and forgets it; the numbers
    of those that could not be ended."""
    record = read_record(folder, role)
    if record is None or not record.background:
        return []
    stuck = [one for one in record.processes if not end(one.pid, one.started, patience=patience)]
    if stuck:
        write_record(folder, replace(record, processes=tuple(stuck)))
    else:
        remove_record(folder, role)
    return [one.pid for one in stuck]


def any_alive(folder: Path, roles: Sequence[str] = ROLES) -> list[Record]:
    """What runs, in any of these roles."""
    found = (find_record(folder, role) for role in roles)
    return [record for record in found if record is not None]
