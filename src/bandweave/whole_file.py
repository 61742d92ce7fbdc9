"""Files that are written whole or not at all. Knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file to write into, which takes the name, and the place of what had it, once the block is
    over. Where anything ends the block before, an interrupt included, nothing of it is left, and
    what had the name is as it was. ``OSError`` where it cannot be written.

    A link counts as what it leads to. What is no regular file (a device, a pipe) is written to as
    it is, and so is a file in a folder that takes no new ones. ``private``: the user alone can read
    the file.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")  # as short as a name may have to
    mode = target.stat().st_mode if target.exists() else None
    file = None
    if mode is None or stat.S_ISREG(mode):
        try:
            file = open(partial, "xb", opener=_private if private else None)  # noqa: SIM115
        except OSError as error:
            if mode is None or not isinstance(error, PermissionError):
                raise OSError(error.errno, error.strerror, str(path)) from None  # by its own name
    if file is None:
        with path.open("wb") as file:
            yield file
        return
    try:
        with file:
            yield file
        if mode is not None and not private:
            partial.chmod(stat.S_IMODE(mode))
        partial.replace(target)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a disk that is full says which
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
