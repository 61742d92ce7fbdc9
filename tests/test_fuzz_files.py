"""Some damaged and hostile files of every kind; `python -m tests.fuzz.files` reads many more."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bandweave.text.files import TextError
from tests.fuzz import files
from tests.fuzz.files import fuzz, main
from tests.fuzz.kinds import KINDS, Kind


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_files_end_in_one_sentence_in_time_and_within_memory(kind: str) -> None:
    tally = fuzz(kind, 150, seed=0)
    assert not tally.faults
    assert tally.inputs == 150
    assert tally.read > 0 and tally.refused.total() > 0  # so that not all end alike


def read_and(end: Callable[[], object]) -> Kind:
    return Kind(make=lambda folder, chance: None, read=lambda folder: end())


def raising(error: BaseException) -> Callable[[], object]:
    def end() -> object:
        raise error

    return end


class PanicError(BaseException):
    """As a library's panic is no Exception."""


@pytest.mark.parametrize(
    ("end", "part"),
    [
        (raising(TypeError("x")), "TypeError: x"),
        (raising(RecursionError("x")), "RecursionError"),
        (raising(PanicError("x")), "PanicError"),
        (raising(KeyError("x")), "KeyError"),
        (raising(TextError("")), "no message"),
        (raising(TextError("a\nb")), "more than one line"),
        (raising(ValueError("a\x1bb")), "no terminal"),
        (raising(ValueError("a" * 5000)), "5000 characters"),
        (lambda: "\ud800".encode(), "Python's own"),
        (lambda: time.sleep(60), "TimeoutError: hung"),
    ],
)
def test_what_counts_as_a_fault(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    end: Callable[[], object],
    part: str,
) -> None:
    monkeypatch.setattr(files, "KINDS", {"template": read_and(end)})
    monkeypatch.setattr(files, "_PATIENCE_SECONDS", 1)
    assert main(["--kind", "template", "--inputs", "1", "--keep", str(tmp_path)]) == 1
    assert part in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["template-0-0"]


def test_work_and_memory_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "KINDS", {"x": read_and(lambda: sum(range(10**5)))})
    assert not fuzz("x", 2, 0).faults
    slow = dataclasses.replace(files.KINDS["x"], seconds=0.0)
    monkeypatch.setattr(files, "KINDS", {"x": slow})
    assert "took" in fuzz("x", 1, 0).faults[0]
    monkeypatch.setattr(files, "KINDS", {"x": dataclasses.replace(slow, seconds=60.0)})
    monkeypatch.setattr(files, "MOST_BYTES", -1)
    assert "MB" in fuzz("x", 1, 0).faults[0]


def test_inputs_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        KINDS["gguf"].make(tmp_path / name, random.Random("gguf 3 4"))
    assert (tmp_path / "a/m.gguf").read_bytes() == (tmp_path / "b/m.gguf").read_bytes()
