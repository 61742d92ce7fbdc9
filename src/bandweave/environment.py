"""The environment variables that bandweave reads: all of them, here and nowhere else."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

DOWNLOADS = "hub"  # the folder of models of the hub, in that of the cache


@dataclass(frozen=True, kw_only=True)
class Environment:
    """``debug``: show tracebacks (``BANDWEAVE_DEBUG``). ``isa``: the kernel variant to use in the
    place of the fastest (``BANDWEAVE_ISA``). ``state``: where a command may keep what it remembers
    (``XDG_STATE_HOME``), None where there is no home folder. ``cache``: where packed weights are
    kept (``BANDWEAVE_CACHE``, a folder or ``off``; else under ``XDG_CACHE_HOME``), None for not at
    all. ``downloads``: where models of the hub are kept (``BANDWEAVE_DOWNLOADS``; else ``hub`` in
    the folder of ``BANDWEAVE_CACHE``, or under ``XDG_CACHE_HOME``), None where there is no home
    folder. ``profile``: the file with what was measured of machines and links
    (``BANDWEAVE_PROFILE``, a file or ``off``; else under ``XDG_DATA_HOME``), None for none."""

    debug: bool
    isa: str
    state: Path | None
    cache: Path | None
    downloads: Path | None
    profile: Path | None


def read_environment() -> Environment:
    """The environment as it is now."""
    return Environment(
        debug=os.environ.get("BANDWEAVE_DEBUG", "") not in ("", "0"),
        isa=os.environ.get("BANDWEAVE_ISA", ""),
        state=_folder(os.environ.get("XDG_STATE_HOME", ""), ".local", "state"),
        cache=_cache_folder(
            os.environ.get("BANDWEAVE_CACHE", ""), os.environ.get("XDG_CACHE_HOME", "")
        ),
        downloads=_downloads_folder(
            os.environ.get("BANDWEAVE_DOWNLOADS", ""),
            os.environ.get("BANDWEAVE_CACHE", ""),
            os.environ.get("XDG_CACHE_HOME", ""),
        ),
        profile=_profile_file(
            os.environ.get("BANDWEAVE_PROFILE", ""), os.environ.get("XDG_DATA_HOME", "")
        ),
    )


def _folder(given: str, *default: str) -> Path | None:
    """bandweave's folder in the one that is given, or in the user's home at ``default``; None where
    nobody has a home."""
    if given:
        return _path(given) / "bandweave"
    try:
        return Path.home().joinpath(*default, "bandweave")
    except RuntimeError:
        return None


def _path(text: str) -> Path:
    """A path whose ``~`` the shell left alone, as it does in quotes; as it stands where there is no
    home of that name."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _cache_folder(own: str, home: str) -> Path | None:
    if own:
        return None if own == "off" else _path(own)
    folder = _folder(home, ".cache")
    return None if folder is None else folder / "panels"


def _downloads_folder(own: str, cache: str, home: str) -> Path | None:
    if own:
        return _path(own)
    if cache not in ("", "off"):  # which is about packed weights, and may be had without
        return _path(cache) / DOWNLOADS
    folder = _folder(home, ".cache")
    return None if folder is None else folder / DOWNLOADS


def _profile_file(own: str, home: str) -> Path | None:
    if own:
        return None if own == "off" else _path(own)
    apple = ("Library", "Application Support")
    folder = _folder(home, *(apple if sys.platform == "darwin" else (".local", "share")))
    return None if folder is None else folder / "profile.json"
