"""Weight files that change while they are open: what was read before and what is read later would
be of two models, and no answer of that may come out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import StepError
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.ranges import Range

_WEIGHTS = "model.safetensors"
_ROWS = Range(start=0, stop=4)


def _overwrite(path: Path) -> None:
    """As `cp` does where the file is there: the same file, other bytes, the same size."""
    with path.open("r+b") as file:
        file.seek(-4000, os.SEEK_END)
        file.write(bytes(4000))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 512)


def _add(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(demo_folder(), tmp_path / "model"))
    os.utime(folder / _WEIGHTS, (1, 1))  # whatever the clock's steps
    return folder


@pytest.mark.parametrize("change", [_overwrite, _cut, _add])
def test_a_file_that_was_written_to_is_read_no_more(
    model: Path, change: Callable[[Path], None]
) -> None:
    with Folder.open(model) as folder:
        folder.read("embed_tokens", _ROWS)
        change(model / _WEIGHTS)
        with pytest.raises(CheckpointError, match="was written to while it was in use; start agai"):
            folder.read("embed_tokens", _ROWS)


def _replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    _overwrite(other)
    other.replace(path)


@pytest.mark.parametrize(
    "change",
    [Path.unlink, lambda path: path.rename(path.with_name("other")), lambda path: path.chmod(0o600),
     lambda path: os.link(path, path.with_name("other")), _replace],
)  # fmt: skip
def test_a_file_whose_name_changes_is_the_same_file(
    model: Path, change: Callable[[Path], None]
) -> None:
    with Folder.open(model) as folder:
        before = folder.read("embed_tokens", _ROWS)
        change(model / _WEIGHTS)
        assert (folder.read("embed_tokens", _ROWS) == before).all()


def test_an_engine_says_so_and_answers_no_more(model: Path) -> None:
    request = Request(tokens=tuple(range(3, 40)), params=SamplingParams(max_tokens=4))
    options = EngineOptions(shares=(Fraction(1),) * 2, threads=1)
    with Folder.open(model) as folder, Engine.start(folder, options) as engine:
        assert engine.generate([request])[0].tokens
        _overwrite(model / _WEIGHTS)
        other = Request(tokens=tuple(range(50, 90)), params=request.params)
        with pytest.raises(StepError, match="was written to while it was in use"):
            engine.generate([other])
