"""The planner where there is no engine: no native module, and none of Unix's modules."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bandweave.cli.main import COMMANDS, cli
from bandweave.missing_engine import missing_engine

ROOT = Path(__file__).resolve().parents[1]

#: Makes this process a machine without the engine: imports of what it lacks fail, and what Windows
#: has not is gone.
BARE = """
import os, select, signal, socket, sys
MISSING = {missing}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
for name in MISSING:
    sys.modules.pop(name, None)
if {windows}:
    for module, names in (
        (os, ("sched_getaffinity", "preadv", "pread", "pwrite", "pwritev", "O_CLOEXEC",
              "O_NONBLOCK", "O_NOCTTY", "getuid", "geteuid", "fork", "statvfs", "getloadavg",
              "register_at_fork", "sysconf", "ftruncate", "memfd_create")),
        (signal, ("pthread_sigmask", "SIGKILL", "SIGHUP", "SIGUSR1", "setitimer", "sigwait")),
        (select, ("poll", "epoll", "kqueue")),
        (socket, ("AF_UNIX", "SO_REUSEPORT", "send_fds", "recv_fds")),
    ):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
sys.argv = ["bandweave", *sys.argv[1:]]
from bandweave.__main__ import main
main()
"""
NATIVE = ("bandweave._native",)
UNIX = (*NATIVE, "fcntl", "resource", "termios", "tty", "pty", "grp", "pwd", "readline", "syslog")


def bare(*arguments: str, windows: bool = False) -> subprocess.CompletedProcess[str]:
    code = BARE.format(missing=UNIX if windows else NATIVE, windows=windows)
    environment = {**os.environ, "BANDWEAVE_CACHE": "off", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, env=environment, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), "Predict how fast"),
        (("--version",), "bandweave"),
        (("plan", "--help"), "--on"),
        (("plan", "deepseek-r1", "--on", "2x m3-ultra-512", "--link", "tb5-rdma"), "tensor split"),
        (("plan", "Qwen/Qwen3-8B", "--on", "RTX 4090", "--json"), '"decode_tokens_per_s"'),
        (("plan", "demo", "--on", "raspberry pi 5"), "one machine"),
        (("plan", "--list", "machines", "epyc"), "epyc-9575f"),
        (("plan", "--list", "models"), "deepseek-r1"),
        (("plan", "--list", "links"), "wifi"),
        (("plan", "--list", "engines"), "llama.cpp"),
        (("plan", "llama-3.1-8b", "--on", "2x m4", "--sweep", "context"), "131072"),
    ],
)
def test_the_planner_needs_no_engine(arguments: tuple[str, ...], words: str, windows: bool) -> None:
    done = bare(*arguments, windows=windows)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout and done.stderr == ""


def test_the_planner_reads_files_without_an_engine(tmp_path: Path) -> None:
    from bandweave.checkpoints.resolve import demo_folder

    for windows in (False, True):
        done = bare("plan", str(demo_folder()), "--on", "m4", windows=windows)
        assert done.returncode == 0, done.stderr
        assert "4.1" in done.stdout or "M parameters" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("run", "demo", "--prompt", "hi"), ("worker", "--make-token"), ("demo",)],
)
def test_other_commands_say_what_is_missing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    for windows in (False, True):
        file = (str(tmp_path / f"token-{windows}"),) if arguments[0] == "worker" else ()
        done = bare(*arguments, *file, windows=windows)
        if done.returncode == 0:  # it needs no engine, and did its work
            continue
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("bandweave: this needs bandweave's engine"), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert "apt install g++ python3-dev" in done.stderr and "plan` works" in done.stderr


def test_what_is_said_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "name", "nt")
    sentence = missing_engine(ModuleNotFoundError("No module named 'fcntl'", name="fcntl"))
    monkeypatch.undo()
    assert "WSL" in sentence and "plan` works here" in sentence
    assert missing_engine(ImportError("no rich", name="rich")) == ""


def test_help_says_what_the_commands_say() -> None:
    context = cli.make_context("bandweave", ["demo", "--help-me-not"], resilient_parsing=True)
    for name, words in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None and command.get_short_help_str(200) == words


def test_builds_without_a_compiler_are_meant() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    overrides = project["tool"]["scikit-build"]["overrides"]
    plain = [one for one in overrides if one.get("wheel", {}).get("cmake") is False]
    conditions = [one["if"] for one in plain]
    assert {"failed": True, "env": {"BANDWEAVE_NATIVE": False}} in conditions
    assert all(one["wheel"]["py-api"] == "py3" for one in plain)
