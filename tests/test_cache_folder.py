"""The cache's folder deletes what it wrote itself, and nothing else, whatever it is pointed at."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bandweave.weights.cache_folder import MARK, CacheFolder
from bandweave.weights.panel_cache import PanelCache, open_cache
from tests.helpers.command import bandweave

NAME = f"{'a' * 64}.0-64.{'0' * 16}.panels"
OLD = f"{'b' * 64}.0-64.panels"  # as versions before called them
LONG_AGO = (1, 1)


def put(folder: CacheFolder, name: str = NAME, data: bytes = b"panels") -> Path:
    with folder.writing(name) as file:
        file.write(data)
    return folder.place(name)


def foreign(root: Path) -> list[Path]:
    """Files of other people, in places that look like a cache's."""
    files = [
        root / "notes.txt", root / "go" / "main.go", root / "db" / "data.bin", root / "ab" / "x",
        root / "ab" / f"{NAME}.txt", root / "aa" / f"{'A' * 64}.panels", root / "aa" / "0.panels",
        root / "ff" / f"{NAME}.1234567.partial", root / "aa" / "deep" / NAME,
    ]  # fmt: skip
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
        os.utime(file, LONG_AGO)
    return files


def test_it_is_marked_and_empties_itself(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "cache")
    folder.check()
    path = put(folder)
    assert (
        (folder.path / MARK).read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    )
    assert path.read_bytes() == b"panels" and [file.path for file in folder.files()] == [path]
    assert folder.clear() == 6
    assert [one.name for one in folder.path.iterdir()] == [MARK]
    folder.check()


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    files = foreign(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    cache = PanelCache(tmp_path)
    with pytest.raises(ValueError, match="holds other files than packed weights"):
        cache.folder.check()
    with pytest.raises(ValueError, match="holds other files"):
        open_cache(str(tmp_path))
    with pytest.raises(PermissionError):
        put(cache.folder)
    assert cache.entries() == [] and cache.clear() == 0
    cache.trim()
    assert all(file.read_text() == "mine" for file in files)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_strangers_in_a_cache_stay(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path)
    put(folder)
    files = foreign(tmp_path)
    folder.check()  # it is marked
    assert folder.clear() == 6
    assert all(file.read_text() == "mine" for file in files)


@pytest.mark.parametrize("link", ["aa", "ab"])
def test_links_are_not_followed(tmp_path: Path, link: str) -> None:
    elsewhere = CacheFolder(tmp_path / "elsewhere")
    other = put(elsewhere)
    folder = CacheFolder(tmp_path / "cache")
    put(folder, f"{'c' * 64}.content")
    (folder.path / link).symlink_to(other.parent)
    (folder.path / "cc" / NAME).symlink_to(other)
    folder.clear()
    assert other.read_bytes() == b"panels"


def test_a_mark_of_another_program_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / MARK).write_text(
        "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag.\n"
    )
    (tmp_path / "aa").mkdir()
    with pytest.raises(ValueError, match="holds other files"):
        CacheFolder(tmp_path).check()


def test_what_versions_before_left_unmarked_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "bb").mkdir()
    (tmp_path / "bb" / OLD).write_bytes(b"{}")
    cache = PanelCache(tmp_path)
    cache.folder.check()
    put(cache.folder)
    assert (tmp_path / MARK).exists()
    assert [entry.path.name for entry in cache.entries() if not entry.model]
    cache.clear()
    assert not (tmp_path / "bb").exists()


@pytest.mark.parametrize("nameless", [True, False])
def test_a_writer_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")
    folder = CacheFolder(tmp_path)
    with pytest.raises(RuntimeError), folder.writing(NAME) as file:
        file.write(b"half")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "aa").iterdir()] == []
    assert put(folder).read_bytes() == b"panels"
    assert put(folder, data=b"again").read_bytes() == b"again"


WRITER = """
import os, sys, time
from pathlib import Path
from bandweave.weights.cache_folder import CacheFolder
if sys.argv[2] == "named":
    del os.O_TMPFILE
with CacheFolder(Path(sys.argv[1])).writing(sys.argv[3]) as file:
    file.write(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["nameless", "named"])
def test_a_writer_that_is_killed_leaves_nothing(tmp_path: Path, how: str) -> None:
    folder = CacheFolder(tmp_path)
    put(folder, OLD)
    command = [sys.executable, "-c", WRITER, str(tmp_path), how, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
        for partial in tmp_path.glob("aa/*"):
            os.utime(partial, LONG_AGO)
        assert len(folder.files()) == 1
        assert len(list(tmp_path.glob("aa/*"))) == (how == "named")  # it lives: left alone
        writer.kill()
    folder.files()
    assert list(tmp_path.glob("aa/*")) == []


def test_the_quota_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, quota_bytes=100)
    names = [f"{digit * 64}.0-64.{'0' * 16}.panels" for digit in "0123456789"]
    for age, name in enumerate(names):
        os.utime(put(folder, name, bytes(10)), (age + 1, age + 1))
    room = folder.room()
    assert room.make(0) and len(folder.files()) == 10
    assert room.make(25)
    assert sorted(file.path.name for file in folder.files()) == names[3:]
    room.taken(25)
    assert not room.make(60, since=8.5)  # what this start uses is not forgotten for it
    assert sorted(file.path.name for file in folder.files()) == names[8:]
    assert not room.make(101)


def test_commands_refuse_a_folder_that_is_somebody_elses(tmp_path: Path) -> None:
    files = foreign(tmp_path)
    for arguments in (["cache"], ["cache", "--clear"], ["run", "demo", "--prompt", "1 + 1 ="]):
        result = bandweave(*arguments, BANDWEAVE_CACHE=str(tmp_path))
        assert result.status == 2 and "holds other files" in result.err
    assert all(file.read_text() == "mine" for file in files)


def test_time_of_use_is_that_of_the_machine(tmp_path: Path) -> None:
    before = time.time()
    assert put(CacheFolder(tmp_path)).stat().st_mtime >= before - 0.001


@pytest.mark.parametrize("length", [0, 30])
def test_a_mark_that_a_full_disk_cut_short_is_made_whole(tmp_path: Path, length: int) -> None:
    folder = CacheFolder(tmp_path / "cache")
    path = put(folder)
    mark = folder.path / MARK
    whole = mark.read_bytes()
    mark.write_bytes(whole[:length])
    (folder.path / f".{'0' * 16}.partial").touch()  # and one that was killed while it marked
    folder.check()
    assert put(folder) == path and mark.read_bytes() == whole
    mark.write_bytes(b"Signature: of somebody else")
    with pytest.raises(ValueError, match="holds other files"):
        folder.check()


def test_a_clock_that_was_ahead_keeps_nothing_for_ever(tmp_path: Path) -> None:
    """What was used in a future that never came goes first."""
    folder = CacheFolder(tmp_path, quota_bytes=20)
    ahead, now = put(folder), put(folder, f"{'c' * 64}.0-64.{'0' * 16}.panels")
    future = time.time() + 10 * 86400
    os.utime(ahead, (future, future))
    room = folder.room()
    assert room.make(10, since=time.time() - 60)
    assert not ahead.exists() and now.exists()
    assert not room.make(15, since=time.time() - 60) and now.exists()
