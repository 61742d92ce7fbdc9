"""Commands that are ended at random moments leave nothing; `python -m tests.interrupts` tries as
many as a person has time for. And standard streams that nobody reads, or that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import bandweave, environment, sentence, start_command
from tests.interrupts.blows import BLOWS
from tests.interrupts.cases import CASES
from tests.interrupts.story import story
from tests.interrupts.trial import Trial, fits, run

# On a machine that has more to do nothing ends within seconds; here it only must not hang.
_SECONDS = 60.0
# Of every kind of blow, where something was wrong or is most likely to be.
_WANTED = (
    "synth:HUP", "synth:hang-up", "worker:INT", "serve:HUP", "serve-recovery:TERM", "run-hosts:INT",
    "run-hub:KILL", "up:INT", "chat:no-input", "run-nodes:no-reader",
)  # fmt: skip


def _trials() -> list[Trial]:
    return [next(story(seed, 1, [wanted], seconds=_SECONDS)) for seed, wanted in enumerate(_WANTED)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("trial", _trials(), ids=str)
def test_nothing_is_left(trial: Trial, tmp_path: Path) -> None:
    assert run(trial, tmp_path) == []


def test_the_story_is_that_of_its_seed_and_has_everything() -> None:
    every = sum(fits(case, blow) for case in CASES for blow in BLOWS)
    one = list(story(1, every))
    assert one == list(story(1, every)) != list(story(2, every))
    assert len({(trial.case.name, trial.blow.name) for trial in one}) == every
    with pytest.raises(ValueError, match="no such cases: nothing"):
        next(story(1, 1, ["nothing"]))


def test_a_trial_sees_what_is_wrong(tmp_path: Path) -> None:
    """A command that ignores its end, and one whose files stay."""
    blow = next(one for one in BLOWS if one.name == "no-reader")
    case = next(one for one in CASES if one.name == "dump")
    trial = Trial(case=case, blow=blow, moment=30.0)
    kept = Trial(case=type(case)(name="dump", words=case.words), blow=blow, moment=30.0)
    for name, one, wrong in (("a", trial, False), ("b", kept, True)):
        (tmp_path / name).mkdir()
        found = run(one, tmp_path / name)
        assert bool(found) == wrong and all("files are left" in each for each in found), found


def test_nohup_is_honoured() -> None:
    """Who starts a command with SIGHUP ignored wants it to go on."""
    words = [sys.executable, "-m", "bandweave", "run", "demo", "--threads", "1"]
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *words], env=environment("nohup"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            # It reads its input only once it hears signals.
            assert process.stdin is not None
            _wait_until_it_reads(process.pid)
            process.send_signal(1)
            out, _ = process.communicate(b"What is 17 + 25?", timeout=_SECONDS)
            assert process.returncode == 0 and b"42" in out
        finally:
            process.kill()


def _wait_until_it_reads(pid: int) -> None:
    import time

    deadline = time.monotonic() + _SECONDS
    while "pipe" not in _waits_in(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _waits_in(pid: int) -> str:
    """The kernel function in which it waits; anything where the system does not say."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text() or "pipe"
    except OSError:
        return "pipe"


# --- streams that cannot be written ---


def _with_full(descriptor: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        return subprocess.run(
            [sys.executable, "-m", "bandweave", *arguments], env=environment("full"), check=False,
            stdin=subprocess.DEVNULL, timeout=_SECONDS,
            stdout=full if descriptor == 1 else subprocess.PIPE,
            stderr=full if descriptor == 2 else subprocess.PIPE,
        )  # fmt: skip
    finally:
        os.close(full)


@pytest.mark.parametrize("arguments", [("synth", "--list"), ("synth", "--list", "--json")])
def test_an_output_that_is_full_is_named(arguments: tuple[str, ...]) -> None:
    done = _with_full(1, *arguments)
    said = b"bandweave: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_words_that_nobody_can_read_end_nothing() -> None:
    ask = ("run", "demo", "--threads", "1", "--prompt", "What is 17 + 25?")
    done = _with_full(2, *ask)
    assert done.returncode == 0 and b"42" in done.stdout
    assert _with_full(2, "run", "nowhere", "--prompt", "x").returncode == 2
    with start_command(*ask) as command:
        assert command.process.stderr is not None and command.process.stdout is not None
        command.process.stderr.close()
        assert b"42" in command.process.stdout.read()
        assert command.process.wait(_SECONDS) == 0


def test_what_is_printed_under_a_progress_line_goes_to_standard_output() -> None:
    """Whatever terminal the line is drawn on."""
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bandweave", "plan", "--on", "m4-max-128"],
            env=environment("tty") | {"TERM": "xterm"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=slave, timeout=_SECONDS, check=True,
        )  # fmt: skip
        os.set_blocking(master, False)
        shown = os.read(master, 1 << 16)
    finally:
        os.close(slave)
        os.close(master)
    assert b"Looking at every known model" in shown
    assert b"model, weights" in done.stdout and b"model, weights" not in shown
    lines = done.stdout.decode().splitlines()
    assert max(map(len, lines)) <= 80


# --- files that cannot be written, folders that cannot be entered ---


def test_a_token_that_does_not_fit_on_the_disk_is_not_left_half(tmp_path: Path) -> None:
    """As on a full disk: no file may grow beyond nothing."""
    token = tmp_path / "token"
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m", "bandweave", "worker",
         "--make-token", str(token)],
        env=environment("token"), capture_output=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith(b"bandweave: " + os.fsencode(token))
    assert not list(tmp_path.iterdir())


def test_a_home_that_is_closed_is_as_none(tmp_path: Path) -> None:
    """As `sudo -u` leaves it: the home of somebody else."""
    if os.geteuid() == 0:
        pytest.skip("nothing is closed to root")
    closed = tmp_path / "home"
    closed.mkdir(mode=0o000)
    home = {"HOME": str(closed), "BANDWEAVE_CACHE": ""}
    try:
        done = bandweave("run", "demo", "--prompt", "What is 17 + 25?", **home)
        assert done.status == 0 and "42" in done.out
        assert "set BANDWEAVE_CACHE" in sentence(bandweave("cache", **home))
        pulled = bandweave("pull", "org/name", **home)
        assert "set BANDWEAVE_DOWNLOADS" in sentence(pulled)
    finally:
        closed.chmod(0o700)
