"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bandweave.whole_file import whole_file


def test_the_name_comes_with_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    path.chmod(0o640)
    with whole_file(path) as file:
        file.write(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two" and path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError(28, "full")])
def test_what_ends_it_leaves_what_was_there(error: BaseException, tmp_path: Path) -> None:
    path, old = tmp_path / "file", tmp_path / "old"
    old.write_bytes(b"old")
    for one in (path, old):
        with pytest.raises(type(error)) as raised, whole_file(one) as file:
            file.write(b"half")
            raise error
        if isinstance(raised.value, OSError):
            assert (raised.value.errno, raised.value.filename) == (28, str(one))
    assert list(tmp_path.iterdir()) == [old] and old.read_bytes() == b"old"


def test_the_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for before in (False, True):
        if before:
            path.chmod(0o644)
        with whole_file(path, private=True) as file:
            file.write(b"secret")
        assert path.stat().st_mode & 0o777 == 0o600


def test_links_and_pipes(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    with whole_file(link) as file:
        file.write(b"there")
    assert link.is_symlink() and path.read_bytes() == b"there"
    pipe, heard = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with whole_file(pipe) as file:
        file.write(b"through")
    reader.join(60)
    assert heard == [b"through"]


def test_what_cannot_be_written_is_named_as_it_was_given(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / "none" / "file", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(OSError) as raised, whole_file(path):
            pass
        assert raised.value.filename == str(path)
    long = tmp_path / ("x" * 255)
    with whole_file(long) as file:
        file.write(b"1")
    assert long.read_bytes() == b"1"
