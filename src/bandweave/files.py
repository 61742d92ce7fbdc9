"""Reads files that come from outside: regular files only, bounded, and without ever waiting.

A name that a user or a download gave may be a named pipe, a device, a socket or a folder; reading
one of those hangs, or never ends. Every reader names its own class of error, a ``ValueError`` whose
message is one sentence. Knows JSON; knows no fields of it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any, NoReturn

from bandweave.shown import printable, shown

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
#: Those of the system: Windows has no devices that wait, and text that is not bytes.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
_MOST_VALUES = 4_000_000  # in a JSON text; a model has 7 for each tensor, and some 100,000 tensors
_MOST_DIGITS = 4000  # beyond 4300 Python neither reads nor writes a number
_SEEKING = threading.Lock()
_DIGITS, _TOO_LONG = bytes.maketrans(b"123456789", b"0" * 9), b"0" * (_MOST_DIGITS + 1)


def open_regular(path: Path, error: type[ValueError]) -> int:
    """A descriptor of a regular file, for reading; a link counts as what it leads to.

    ``error`` where there is no such file, where it is something else, or where it cannot be opened.
    """
    if "\0" in os.fspath(path):
        raise error(f"{printable(path)} is no name of a file")
    try:
        _check_regular(path, os.stat(path).st_mode, error)  # before the open, which devices notice
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError as problem:
        _refuse(path, problem, error)
    try:
        _check_regular(path, os.fstat(descriptor).st_mode, error)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_at(
    descriptor: int, path: Path, target: memoryview, offset: int, error: type[ValueError]
) -> int:
    """Fills ``target`` from ``offset`` on, as far as the open file goes; how many bytes came.
    ``error`` where it cannot be read."""
    done = 0
    while done < len(target):
        try:
            count = _read_some(descriptor, target[done:], offset + done)
        except OSError as problem:
            _refuse(path, problem, error)
        if count == 0:
            break
        done += count
    return done


def _read_some(descriptor: int, target: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [target], offset)
    with _SEEKING:  # Windows: an open file has one position, whoever reads
        os.lseek(descriptor, offset, os.SEEK_SET)
        content = os.read(descriptor, len(target))
    target[: len(content)] = content
    return len(content)


def read_bytes(path: Path, *, most: int, error: type[ValueError]) -> bytes:
    """The content of a regular file of at most ``most`` bytes; ``error`` otherwise."""
    descriptor = open_regular(path, error)
    try:
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(most + 1)
    except OSError as problem:
        _refuse(path, problem, error)
    if len(content) > most:
        raise error(f"{printable(path)} has more than {most} bytes; is it the right file?")
    return content


def read_json(path: Path, *, most: int, error: type[ValueError]) -> tuple[dict[str, Any], bytes]:
    """The JSON object in a file, and the bytes that it was read from; ``error`` otherwise."""
    content = read_bytes(path, most=most, error=error)
    return parse_object(content, printable(path), error), content


def parse_object(
    content: bytes, where: str, error: type[ValueError], remedy: str = "; download it again"
) -> dict[str, Any]:
    """The JSON object that ``content`` is; ``error`` names ``where`` it was found.

    A name that stands twice in one object is refused where it has two values.
    """
    # Before anything is built of them: a value takes a hundred times the memory of its bytes.
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise error(f"{where} has more than {_MOST_VALUES} values; is it the right file?")
    if _TOO_LONG in content.translate(_DIGITS):  # ten times as fast as a pattern
        raise error(f"{where} has a number of more than {_MOST_DIGITS} digits{remedy}")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as problem:
        raise error(f"{where} is not UTF-8: byte {problem.start} is wrong{remedy}") from problem
    except ValueError as problem:
        raise error(f"{where} is no valid JSON: {problem}{remedy}") from problem
    except RecursionError as problem:
        raise error(f"{where} is no valid JSON: it is nested too deeply{remedy}") from problem
    if not isinstance(value, dict):
        raise error(f"{where} must be a JSON object, not {_json_name(value)}{remedy}")
    return value


def is_there(path: Path) -> bool:
    """Whether there is anything by that name, even a link that leads nowhere."""
    try:
        return os.path.lexists(path)
    except ValueError:  # no name of a file
        return False


def _check_regular(path: Path, mode: int, error: type[ValueError]) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for test, name in _KINDS if test(mode)), "something else")
    raise error(f"{printable(path)} is {kind}, not a file")


def _refuse(path: Path, problem: OSError, error: type[ValueError]) -> NoReturn:
    name = printable(path)
    if problem.errno in (errno.ENOENT, errno.ENOTDIR):
        leads = " leads nowhere" if is_there(path) else " does not exist"
        raise error(name + leads) from problem
    if problem.errno == errno.ELOOP:
        raise error(f"{name} is a link that leads back to itself") from problem
    raise error(f"{name} cannot be read: {problem.strerror}") from problem


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen and seen[name] != value:
                raise ValueError(f"{shown(name)} stands in it twice, with two values")
            seen[name] = value
    return result


def _json_name(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
