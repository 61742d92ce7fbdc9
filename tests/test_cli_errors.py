"""Mistakes and interrupts of users: one sentence that says what to do, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bandweave.checkpoints.resolve import demo_folder
from bandweave.cli.main import explain
from tests.helpers.command import bandweave, lines_of, sentence, start_command

ASK = ("--prompt", "a", "--max-tokens", "2")
RUN = ("run", "demo", *ASK)
LARGE = ("--layers", "24", "--hidden", "512", "--heads", "8", "--kv-heads", "4",
         "--intermediate", "2048")  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes a while to load."""
    folder = tmp_path_factory.mktemp("large") / "model"
    assert bandweave("synth", "tiny", folder, *LARGE).status == 0
    return folder


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("x" * 32)
    return file


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "-0.5"),
        ("--temperature", "nan"),
        ("--top-k", "-1"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--min-p", "7"),
        ("--repetition-penalty", "0"),
        ("--frequency-penalty", "1e9"),
        ("--presence-penalty", "-1e9"),
        ("--seed", "-1"),
        ("--max-tokens", "-1"),
        ("--stop", ""),
        ("--format", "q5"),
        ("--kv", "q8"),
        ("--context", "0"),
        ("--context", "-5"),
        ("--nodes", "0"),
        ("--nodes", "x"),
        ("--stages", "0"),
        ("--threads", "-1"),
        ("--shares", ""),
    ],
)
def test_options_are_named_as_they_were_typed(option: str, value: str) -> None:
    said = sentence(bandweave(*RUN, option, value))
    assert option in said and "_" not in said


SYNTH: dict[str, Sequence[str]] = {
    "--layers": ("--layers", "0"),
    "--dtype": ("--dtype", "q4"),
    "--seed": ("--seed", "-1"),
    "vocabulary of 10": ("--vocab", "10"),
    "--list": (),
}


@pytest.mark.parametrize("words", SYNTH)
def test_synth_makes_no_folder_for_a_mistake(words: str, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    arguments = (str(folder), *SYNTH[words]) if SYNTH[words] else ()
    assert words in sentence(bandweave("synth", "tiny", *arguments))
    assert not folder.exists()


FILES: dict[str, tuple[str, bytes, str]] = {
    "half a config": ("config.json", b"{", "download it again"),
    "a config that is a list": ("config.json", b"[]", "download it again"),
    "a config in another encoding": ("config.json", b"\xff\xfe{}", "not UTF-8"),
    "an empty config": ("config.json", b"{}", "is this a model folder"),
    "no weights in the file": ("model.safetensors", b"", "download it again"),
    "no tokenizer in the file": ("tokenizer.json", b"nonsense", "download it again"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_used_are_named(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(demo_folder(), tmp_path / "model"))
    file, content, words = FILES[name]
    (folder / file).write_bytes(content)
    said = sentence(bandweave("run", folder, *ASK))
    assert words in said and ("model" in said if content == b"{}" else file in said)


def test_a_config_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    folder = Path(shutil.copytree(demo_folder(), tmp_path / "model"))
    (folder / "config.json").chmod(0)
    assert "Permission denied" in sentence(bandweave("run", folder, *ASK))


def test_weights_without_a_config(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(demo_folder(), tmp_path / "model"))
    (folder / "config.json").unlink()
    said = sentence(bandweave("run", folder, *ASK))
    assert "has no config.json" in said and "model.safetensors" not in said


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "to a folder of its own" in sentence(bandweave("cache", BANDWEAVE_CACHE=str(file)))


def test_piped_questions_that_are_not_utf8() -> None:
    done = bandweave("chat", "demo", text=b"What is 17 + 25?\n" + b"caf\xe9\n")
    assert done.status == 2 and "42" in done.out
    (line,) = lines_of(done.err)
    assert "line 2 of standard input is not UTF-8 text: its byte 3 is wrong" in line


def test_an_answer_that_was_cut_is_neither_right_nor_wrong() -> None:
    done = bandweave("demo", "--max-tokens", "3")
    assert done.status == 0
    assert done.out.count("(cut: the answer reached --max-tokens)") == 5
    assert "✗" not in done.out and "✓" not in done.out
    found = bandweave("demo", "--max-tokens", "3", "--json").json
    assert {question["right"] for question in found["questions"]} == {None}


# --- hosts ---


def test_a_host_name_that_nobody_knows_ends_at_once(token: Path) -> None:
    hosts = ("--hosts", "nowhere.invalid:9000", "--token-file", token)
    done = bandweave(*RUN, *hosts)
    assert "'nowhere.invalid' is not known" in sentence(done) and done.seconds < 8


def test_a_port_where_nobody_listens(token: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    said = sentence(bandweave(*RUN, "--hosts", address, "--token-file", token))
    assert f"({address})" in said and "is `bandweave worker` running there" in said


def test_a_worker_without_its_folder(token: Path) -> None:
    listen = ("worker", "--listen", "127.0.0.1:0", "--token-file", token)
    assert "--models /none" in sentence(bandweave(*listen, "--models", "/none"))


def test_a_worker_with_a_variant_of_another_processor(token: Path) -> None:
    listen = ("worker", "--listen", "127.0.0.1:0", "--token-file", token)
    assert "'mmx'" in sentence(bandweave(*listen, BANDWEAVE_ISA="mmx"))


def test_a_token_that_others_can_read_gets_a_remark_and_no_more(tmp_path: Path) -> None:
    token = tmp_path / "token"
    made = bandweave("worker", "--make-token", token)
    assert made.status == 0 and token.stat().st_mode & 0o777 == 0o600
    assert token.read_text().startswith("bandweave-")
    assert "exists already" in sentence(bandweave("worker", "--make-token", token))
    token.chmod(0o644)
    remark = f"the token file {token} is open to other users of this machine: chmod 600 {token}"
    listen = ("worker", "--listen", "127.0.0.1:0", "--token-file", token, "--once")
    with start_command(*listen) as worker:
        assert worker.process.stderr is not None
        address = worker.process.stderr.readline().decode().split()[-1]
        assert worker.process.stderr.readline().decode() == f"worker: {remark}\n"
        hosts = ("--hosts", address, "--token-file", token)
        done = bandweave(*RUN, *hosts, "--json")
        assert done.json["tokens"] and lines_of(done.err)[-1] == f"({remark})"
        assert worker.finish(20).status == 0
    assert remark not in sentence(bandweave("run", "no-such-model", *ASK, *hosts))
    token.write_text(token.read_text()[:-9])
    assert "is not whole: its check digits do not fit" in sentence(bandweave(*RUN, *hosts))


def test_words_of_other_machines_are_no_orders_to_the_terminal() -> None:
    for kind, status in ((ValueError, 2), (ConnectionError, 1)):
        said = explain(kind("node 1: \x1b[2J\x1b]0;owned\x07a\u202eb\nsecond\tline \udcff"))
        assert said == (status, "node 1: [2J ]0;owned a b second line \udcff")


# --- interrupts ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_synth_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    new, empty = tmp_path / "new", tmp_path / "empty"
    empty.mkdir()
    for folder in (new, empty):
        with start_command("synth", "tinyllama-1.1b", folder) as command:
            _wait(lambda folder=folder: any(folder.glob("*.partial")))
            command.process.send_signal(number)
            done = command.finish(10)
        assert (done.status, done.out, done.err) == (128 + number, "", "")
    assert not new.exists() and not list(empty.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_loading_ends_at_once_when_it_is_interrupted(number: signal.Signals, large: Path) -> None:
    for seconds in (0.0, 0.4, 0.8):
        with start_command("run", large, "--raw", *ASK, "--nodes", "2") as command:
            _wait(lambda command=command: command.nodes())
            time.sleep(seconds)
            command.process.send_signal(number)
            done = command.finish(10)
            assert command.none_left()
        assert done.seconds < 5
        if done.out:  # it was loaded before
            assert done.status in (0, 128 + number) and "Traceback" not in done.err
        else:
            assert (done.status, done.err) == (128 + number, "")


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3])
def test_an_interrupt_while_the_command_is_imported_is_quiet(seconds: float) -> None:
    with start_command("worker", "--listen", "127.0.0.1:0", "--token-file", "none") as command:
        _wait(lambda: b"bandweave" in Path(f"/proc/{command.process.pid}/cmdline").read_bytes())
        time.sleep(seconds)
        command.process.send_signal(signal.SIGINT)
        done = command.finish(10)
    assert "unforeseen" not in done.err
    # Before 0.2 s Python itself may be starting; at its end it dies of the signal, as quietly.
    assert done.status in (2, 130, -signal.SIGINT) or seconds < 0.2


def _wait(happened, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_tokenizer_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """It is opened while the nodes start, and none of them is left."""
    path = tmp_path / "model"
    shutil.copytree(demo_folder(), path)
    (path / "tokenizer.json").write_text("{")
    outcome = bandweave("run", str(path), "--nodes", "2", "--prompt", "x")
    assert outcome.status == 2
    (line,) = lines_of(outcome.err)
    assert "tokenizer.json" in line
