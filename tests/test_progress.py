"""What is shown of long work: one line, on terminals only."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.cli.progress import progress_line
from tests.helpers.command import Terminal, bandweave, start_on_terminal

_ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


@given(
    words=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
    share=st.none() | st.floats(-1, 2),
    width=st.integers(48, 200),
)
def test_a_line_fits(words: str, share: float | None, width: int) -> None:
    line = progress_line(words, share, "12.3 GB of 45.6 GB", width)
    assert len(line) <= width
    if share is not None:
        assert line.endswith("12.3 GB of 45.6 GB")
        assert line.count("━") == round(16 * min(1.0, max(0.0, share)))
    if len(words) <= width - 40:
        assert line.startswith(words)


def shown(terminal: Terminal) -> list[str]:
    """Waits for the command's end; all lines that it drew, those drawn over included."""
    seen = terminal.rest()
    text = _ESCAPE.sub(b"", seen).replace(b"\r", b"\n").decode()
    return [line for line in text.split("\n") if line.strip()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a long path and a long context."""
    folder = tmp_path_factory.mktemp("a-folder-with-quite-a-long-name-so-that-lines-get-long")
    sizes = ("--layers", "4", "--hidden", "512", "--heads", "8", "--kv-heads", "4",
             "--intermediate", "2048", "--context", "40000")  # fmt: skip
    assert bandweave("synth", "tiny", folder / "model", *sizes).status == 0
    return folder / "model"


def test_loading_and_reading_a_long_prompt(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt"
    file.write_text("far too much to read " * 400)
    arguments = ("run", model, "--raw", "--max-tokens", "2", "--context", "40000", "--prompt-file",
                 file, "--threads", "1")  # fmt: skip
    with start_on_terminal(*arguments, TERM="xterm") as terminal:
        lines = shown(terminal)
    bars = [line for line in lines if "━" in line or "─" in line]
    assert max(map(len, bars)) < 80
    assert any(line.startswith("loading /") for line in lines)
    reading = [line for line in bars if line.startswith("reading the prompt")]
    done = [int(number) for line in reading for number in re.findall(r"(\d+) of \d+ tokens", line)]
    assert done == sorted(done) and len(set(done)) > 1
    quiet = bandweave(*arguments, "--json")
    assert quiet.err == "" and quiet.json["prompt_tokens"] > done[-1]


def test_what_is_waited_for_is_named(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 32)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    arguments = ("run", "demo", "--prompt", "a", "--hosts", address, "--token-file", token)
    with start_on_terminal(*arguments, TERM="xterm") as terminal:
        terminal.wait_for(f"waiting for node 0 ({address})".encode())
        terminal.wait_for(b": is `bandweave worker` running there?")
        terminal.type(b"\x03")
        assert terminal.command.process.wait(10) == 130


def test_rounds_are_counted() -> None:
    arguments = ("bench", "demo", "--rounds", "2", "--prompt-tokens", "8", "--new-tokens", "4")
    with start_on_terminal(*arguments, TERM="xterm") as terminal:
        lines = shown(terminal)
    for words in ("warming up", "round 1 of 2", "round 2 of 2"):
        assert words in lines
    assert max(map(len, lines)) <= 80
