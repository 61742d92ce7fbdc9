"""A trial: one command, one blow, one moment; what is wrong afterwards."""

from __future__ import annotations

import fcntl
import os
import subprocess
import termios
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.interrupts.blows import Blow, Ends
from tests.interrupts.cases import Case
from tests.interrupts.place import Place

SECONDS = 5.0  # in which a command ends that is told to
_PATIENCE = 60.0  # for commands that are left alone
_ODD = ("Traceback", "Exception ignored", "Exception in", "unforeseen", "Error", "Fatal", "leaked",
        "Warning")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """``moment``: seconds after the start. ``seconds``: in which the command has to end then, times
    the machine's pace."""

    case: Case
    blow: Blow
    moment: float
    seconds: float = SECONDS

    def __str__(self) -> str:
        return f"{self.case.name} {self.blow.name} at {self.moment:.3f}"


def fits(case: Case, blow: Blow) -> bool:
    """Whether a blow means something to a case."""
    if blow.name == "key" and case.name == "chat":
        return False  # there it ends a line or an answer
    if blow.terminal and case.text and not case.reads:
        return False  # its input is piped
    if blow.input:
        return case.reads
    return blow.ends or not case.lasts


def run(trial: Trial, folder: Path) -> list[str]:
    """What is wrong, in sentences; nothing where all is as it should be. ``folder`` is empty."""
    place = Place(folder=folder)
    with ExitStack() as stack:
        stack.callback(place.end)
        return _run(trial, place, stack)


def _run(trial: Trial, place: Place, stack: ExitStack) -> list[str]:
    case, blow = trial.case, trial.blow
    found = case.prepare(place, stack)
    variables = {name: value for name, value in found.items() if name.isupper()}
    words = [word.format(work=place.work, **found) for word in case.words]
    beside, known = frozenset(place.processes()), place.files()
    out = place.folder / "out"
    out.touch()
    process, ends, readers = _start(place, words, variables, case, blow, out)
    stack.callback(ends.close_all)
    over = threading.Event()
    stack.callback(over.set)
    if case.meanwhile is not None:
        runs = threading.Thread(target=case.meanwhile, args=(place, over.is_set, out), daemon=True)
        runs.start()
    with suppress(subprocess.TimeoutExpired):
        process.wait(trial.moment)
    early = process.poll() is not None
    blow.strike(ends)
    struck = time.monotonic()
    wrong: list[str] = []
    # A command that does not look at what the blow is about goes on to its own end.
    patience = trial.seconds if blow.ends else _PATIENCE
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        wrong.append(f"it runs {time.monotonic() - struck:.1f} s later")
        process.kill()
        process.wait(_PATIENCE)
    over.set()
    for reader in readers:
        reader.join(_PATIENCE)
    allowed = {*blow.statuses, blow.killed}
    if early or not case.lasts:
        allowed.add(0)
    if process.returncode not in allowed and not wrong:
        wrong.append(f"its status is {process.returncode}")
    said = out.read_bytes().decode(errors="replace")
    wrong += [f"it said {line!r}" for line in said.splitlines() if any(o in line for o in _ODD)]
    if not case.after and not place.none_left(trial.seconds, beside):
        wrong.append(f"processes are left: {[_title(pid) for pid in place.processes(beside)]}")
    if case.after:
        wrong += _undo(trial, place, beside, process.returncode)
    done = process.returncode == 0 or (process.returncode == 141 and blow.pipe)
    may = case.keeps + case.makes * done
    if blow.tidy and (left := place.left({*known, "out"}, may)):
        wrong.append(f"files are left: {left}")
    return [f"{trial}: {one}" for one in wrong]


def _undo(trial: Trial, place: Place, beside: frozenset[int], status: int) -> list[str]:
    """What is wrong where a user then undoes what the command may have done."""
    if trial.blow.tidy and trial.case.name in ("up", "join") and status != 0:
        # It did not come up, and so nothing of it may run.
        if not place.none_left(trial.seconds, beside):
            return [f"processes are left: {[_title(pid) for pid in place.processes(beside)]}"]
        return []
    done = subprocess.run(
        place.command(*trial.case.after), env=place.environment(), capture_output=True,
        timeout=_PATIENCE, check=False,
    )  # fmt: skip
    said = done.stderr.decode(errors="replace")
    if "Traceback" in said or done.returncode not in (0, 2):
        return [f"{trial.case.after} then said {said!r} ({done.returncode})"]
    # Whoever leaves a cluster leaves its head.
    most = 1 if trial.case.after == ("leave",) else 0
    if not place.none_left(trial.seconds, most=most):
        return [f"{trial.case.after} left {[_title(pid) for pid in place.processes()]}"]
    return []


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[-120:]
    except OSError:
        return f"{pid}, gone meanwhile"


def _start(
    place: Place, words: list[str], variables: dict[str, str], case: Case, blow: Blow, out: Path
) -> tuple[subprocess.Popen[bytes], Ends, list[threading.Thread]]:
    """The command, with its output where ``out`` is; a terminal or a pipe is copied there."""
    environment = place.environment(**variables)
    readers: list[threading.Thread] = []
    if blow.terminal:
        master, slave = os.openpty()
        process = subprocess.Popen(
            place.command(*words), env=environment, cwd=place.work, stdin=slave, stdout=slave,
            stderr=slave, start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        ends = Ends(pid=process.pid, terminal=master)
        readers.append(_copy(ends, "terminal", out))
        if case.text:
            os.write(master, case.text)
        return process, ends, readers
    reading, writing = os.pipe()
    with out.open("ab") as file:
        if blow.pipe:
            output, theirs = os.pipe()
        else:
            output, theirs = -1, os.dup(file.fileno())
        process = subprocess.Popen(
            place.command(*words), env=environment, cwd=place.work, stdin=reading, stdout=theirs,
            stderr=theirs, start_new_session=True,
        )  # fmt: skip
    os.close(reading)
    os.close(theirs)
    ends = Ends(pid=process.pid, output=output, input=writing)
    if output >= 0:
        readers.append(_copy(ends, "output", out))
    with suppress(BrokenPipeError):
        os.write(writing, case.text)
    if not case.reads:
        ends.close("input")
    return process, ends, readers


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _copy(ends: Ends, name: str, out: Path) -> threading.Thread:
    """Copies what comes until the command ends or our end is closed."""
    source = os.dup(getattr(ends, name))
    os.set_blocking(source, False)

    def copy() -> None:
        with out.open("ab", buffering=0) as file:
            try:
                while getattr(ends, name) >= 0:
                    try:
                        piece = os.read(source, 4096)
                    except BlockingIOError:
                        time.sleep(0.005)
                        continue
                    if not piece:
                        return
                    file.write(piece)
            except OSError:  # EIO: nobody has the terminal open any more
                return
            finally:
                os.close(source)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread
