"""Files from outside that are something else: nothing hangs, everything is a sentence."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bandweave import files
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.model_files import shape_from_path
from bandweave.checkpoints.source import CheckpointError
from bandweave.cli.plan.setup import read_hardware_file
from bandweave.serving.profile_store import read_profile
from bandweave.shown import printable, shown
from bandweave.synth.tokenizer import tokenizer_config, tokenizer_json
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.files import TextError
from bandweave.text.tokenizer import Tokenizer
from tests.test_checkpoints import CONFIG, random_tensors, write_folder


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a named pipe, not a file"),
    "socket": (make_socket, "is a socket, not a file"),
    "folder": (Path.mkdir, "is a folder, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
    "loop": (lambda path: path.symlink_to(path.name), "leads back to itself"),
    "link to nowhere": (lambda path: path.symlink_to("nowhere"), "leads nowhere"),
    "link to a pipe": (
        lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
        "is a named pipe, not a file",
    ),
}


def open_folder(path: Path) -> None:
    Folder.open(path).close()


#: What reads a file of a model folder, and what it raises.
READERS: dict[str, tuple[Callable[[Path], object], type[ValueError]]] = {
    "config.json": (open_folder, CheckpointError),
    "model.safetensors": (open_folder, CheckpointError),
    "model.safetensors.index.json": (open_folder, CheckpointError),
    "model-00001-of-00002.safetensors": (open_folder, CheckpointError),
    "tokenizer.json": (Tokenizer.from_folder, TextError),
    "tokenizer_config.json": (Tokenizer.from_folder, TextError),
    "special_tokens_map.json": (Tokenizer.from_folder, TextError),
    "added_tokens.json": (Tokenizer.from_folder, TextError),
    "generation_config.json": (Tokenizer.from_folder, TextError),
    "chat_template.jinja": (ChatTemplate.from_folder, TextError),
}


@contextmanager
def refused(error: type[ValueError], *parts: str) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_named(tmp_path: Path, name: str, kind: str) -> None:
    shards = 1 if name == "model.safetensors" else 2
    folder = write_folder(tmp_path / "m", CONFIG, random_tensors(CONFIG), shards)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(300)))
    if name not in ("special_tokens_map.json", "added_tokens.json"):
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(64)))
    (folder / name).unlink(missing_ok=True)
    make, what = KINDS[kind]
    make(folder / name)
    read, error = READERS[name]
    with refused(error, f"{folder / name} ", what):
        read(folder)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["m.gguf", "hardware.toml", "profile.json"])
def test_what_is_no_file_is_named_elsewhere_too(tmp_path: Path, name: str, kind: str) -> None:
    make, what = KINDS[kind]
    make(tmp_path / name)
    read = {"m.gguf": shape_from_path, "hardware.toml": read_hardware_file}.get(name, read_profile)
    with refused(ValueError, f"{tmp_path / name} ", what):
        read(tmp_path / name)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"x" * 100)
    for name in ("pipe", "long", "none", ""):
        with pytest.raises(ValueError):
            files.read_bytes(tmp_path / name, most=10, error=ValueError)
    assert len(os.listdir("/dev/fd")) == before


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert files.read_bytes(path, most=10, error=CheckpointError) == b"0123456789"
    with refused(CheckpointError, "more than 9 bytes", "is it the right file?"):
        files.read_bytes(path, most=9, error=CheckpointError)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert files.read_bytes(link, most=10, error=CheckpointError) == b"0123456789"
    with refused(TextError, "does not exist"):
        files.read_bytes(path / "deeper", most=10, error=TextError)
    with refused(TextError, "no name of a file"):
        files.read_bytes(Path("a\0b"), most=10, error=TextError)
    assert not files.is_there(Path("a\0b"))
    if os.getuid():
        path.chmod(0)
        with refused(TextError, "cannot be read"):
            files.read_bytes(path, most=10, error=TextError)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "no valid JSON"),
        (b"[1]", "must be a JSON object, not a list"),
        (b'"x"', "not a text"),
        (b"null", "not null"),
        (b"true", "not true or false"),
        (b"1", "not a number"),
        (b"\xff{}", "not UTF-8: byte 0"),
        (b"\xef\xbb\xbf{}", "no valid JSON"),
        (b'{"a": 1, "a": 2}', "'a' stands in it twice"),
        (b'{"x": {"a": [], "a": {}}}', "'a' stands in it twice"),
        (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "more than 4000 digits"),
        (b'{"a": [' + b"[]," * 5_000_000 + b"1]}", "more than 4000000 values"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_json_that_is_refused(content: bytes, part: str) -> None:
    with refused(TextError, "here", part):
        files.parse_object(content, "here", TextError)


def test_json_that_is_taken() -> None:
    content = b'{"a": 1, "a": 1, "b": NaN, "c": 1e999, "d": ' + b"9" * 4000 + b"}"
    value = files.parse_object(content, "here", TextError)
    assert value["a"] == 1 and value["c"] == float("inf") and value["d"] == 10**4000 - 1


def test_what_is_shown_of_values_and_paths() -> None:
    assert shown("a'b") == '"a\'b"'
    assert shown([1, "x"]) == "[1, 'x']"
    assert len(shown("x" * 10**6)) == 80 and len(shown([0] * 10**6)) == 80
    assert shown(10**5000) == "a number of thousands of digits"
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested" in shown(deep) or len(shown(deep)) <= 80
    assert shown("\ud800\x1b[2J") == "'\\ud800\\x1b[2J'"
    assert printable(Path(os.fsdecode(b"/a/\xff\n\x1b"))) == "/a/\\xff\\n\\x1b"
    assert printable("\ud800") == "\\ud800"
    assert printable("世 é") == "世 é"
