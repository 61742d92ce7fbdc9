"""Loading is watched: a node that stops or reads nothing is named within seconds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine import loading_nodes
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import StepError
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.run_options import RunOptions
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape
from tests.helpers.command import bandweave, start_command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """So large that it takes a second to load."""
    path = tmp_path_factory.mktemp("models") / "middling"
    shape = find_shape(
        "tinyllama-1.1b", layers=16, hidden=1024, heads=16, kv_heads=4, intermediate=4096,
        vocab=8000,
    )  # fmt: skip
    yield synthesise(shape, path)
    shutil.rmtree(path)


def children() -> list[int]:
    """Processes of nodes that this process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == os.getpid() and b"bandweave.nodes.process" in command:
                found.append(int(entry.name))
    return sorted(found)


@pytest.mark.parametrize("node", [0, 1])
def test_a_node_that_is_stopped_while_loading_is_named(checkpoint: Path, node: int) -> None:
    stopped_at: list[float] = []

    def stop(progress: Sequence[tuple[int, int]]) -> None:
        if not stopped_at and len(children()) == 2:
            os.kill(children()[node], signal.SIGSTOP)
            stopped_at.append(time.monotonic())

    options = EngineOptions(shares=(Fraction(1),) * 2, threads=1, run=RunOptions(context=128))
    with (
        Folder.open(checkpoint) as folder,
        pytest.raises(StepError, match=rf"^node {node} \(pid \d+\): has said nothing for 5 s"),
    ):
        Engine.start(folder, options, None, stop)
    assert 4 < time.monotonic() - stopped_at[0] < 7.5
    assert children() == []


def test_a_disk_that_does_not_answer_is_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node lives, and says so, but reads nothing."""
    monkeypatch.setattr(loading_nodes, "IDLE_SECONDS", 0.2)
    for way in ("read", "rows_in_file"):
        monkeypatch.setattr(
            f"bandweave.checkpoints.folder.Folder.{way}", lambda *arguments: time.sleep(8)
        )
    options = EngineOptions(run=RunOptions(context=128))
    with (
        Folder.open(checkpoint) as folder,
        pytest.raises(StepError, match=r"^node 0 .*: has read nothing for 0 s; does its disk"),
    ):
        Engine.start(folder, options, ThreadLauncher())


def test_an_error_of_the_callers_progress_leaves_the_engine_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bar that cannot be drawn, say: the caller hears of it, and the next answer comes."""
    monkeypatch.setattr("bandweave.nodes.heartbeat.PERIOD", 0.005)
    params = SamplingParams(temperature=0, max_tokens=40)
    request = Request(tokens=tuple(range(100, 130)), params=params)
    options = EngineOptions(run=RunOptions(context=256))
    with (
        Folder.open(demo_folder()) as folder,
        Engine.start(folder, options, ThreadLauncher()) as engine,
    ):
        expected = engine.generate([request])[0].tokens
        for where in ("on_token", "on_read"):

            def broken(*arguments: int) -> None:
                raise OSError("the terminal has gone")

            long = Request(tokens=tuple(range(100, 300)) + (5,) * 20, params=params)
            with pytest.raises(OSError, match="the terminal has gone"):
                while True:  # reading is reported by time: not by every answer
                    engine.generate([long], chunk=1, reuse=False, **{where: broken})  # type: ignore[arg-type]
            assert engine.generate([request])[0].tokens == expected


def test_a_cancellation_finds_what_is_under_way() -> None:
    """However close to its start: never the answer after it."""
    params = SamplingParams(temperature=0, max_tokens=200)
    request = Request(tokens=(5, 6, 7), params=params)
    options = EngineOptions(run=RunOptions(context=256))
    with (
        Folder.open(demo_folder()) as folder,
        Engine.start(folder, options, ThreadLauncher()) as engine,
    ):
        engine.cancel()  # nothing is under way
        assert engine.generate([request])[0].reason != "cancelled"
        for delay in (0.0, 0.0005, 0.002):
            timer = threading.Timer(delay, engine.cancel)
            timer.start()
            engine.generate([request])
            timer.join()
            assert engine.generate([request])[0].reason != "cancelled"


# --- a command that fails in mid-answer ---


def endless(folder: Path) -> Path:
    """A model without an end token: its answers stop at ``max_tokens``."""
    synthesise(find_shape("tiny", context=100_000), folder)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        fields = json.loads((folder / name).read_text())
        ends = {key: None for key in ("eos_token_id", "eos_token") if key in fields}
        (folder / name).write_text(json.dumps({**fields, **ends}))
    return folder


@pytest.mark.alone
def test_json_keeps_what_had_come(tmp_path: Path) -> None:
    """Of an answer whose only machine is gone for good."""
    model, token = endless(tmp_path / "long"), tmp_path / "token"
    assert bandweave("worker", "--make-token", token).status == 0
    listen = ("--listen", "127.0.0.1:0", "--token-file", token)
    with start_command("worker", *listen) as worker:
        assert worker.process.stderr is not None
        line = b""
        while b"listening on " not in line:
            line = worker.process.stderr.readline()
        address = line.split()[-1].decode()
        ask = ("run", model, "--raw", "--prompt", "a", "--max-tokens", "90000", "--context",
               "99000", "--hosts", address, "--token-file", token, "--patience", "0.5",
               "--json")  # fmt: skip
        with start_command(*ask) as command:
            deadline = time.monotonic() + 30
            while not worker.nodes():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(3)
            worker.process.kill()  # and its node with it
            done = command.finish()
    assert done.status == 1
    found = json.loads(done.out)
    assert address in found["error"] and found["error"] in done.err
    assert found["exit_status"] == 1 and found["finish_reason"] == "error"
    assert len(found["tokens"]) > 10 and len(found["text"]) > 10
    assert found["plan"]["nodes"]


@pytest.mark.parametrize("arguments", [("run", "./none", "--prompt", "a"), ("bench", "./none"),
                                       ("run", "demo", "--prompt", "a", "--shares", "0"),
                                       ("plan", "no-such-model")])  # fmt: skip
def test_json_of_a_mistake_is_its_sentence(arguments: tuple[str, ...]) -> None:
    done = bandweave(*arguments, "--json")
    assert done.status == 2
    found: dict[str, Any] = json.loads(done.out)
    assert found["exit_status"] == 2 and f"bandweave: {found['error']}\n" == done.err
