"""The file that keeps what was measured of machines and links. Knows a file; measures nothing."""

from __future__ import annotations

import json
from pathlib import Path

from bandweave import files
from bandweave.planning.profile.profile import HERE, MachineProfile, Profile, stale_reason
from bandweave.shown import printable
from bandweave.whole_file import whole_file

_MOST_BYTES = 64_000_000


def read_profile(path: Path | None) -> Profile:
    """What is stored, an empty profile where nothing is. ``ValueError`` names a file that cannot be
    used."""
    if path is None or not files.is_there(path):
        return Profile()
    content = files.read_bytes(path, most=_MOST_BYTES, error=ValueError)
    try:
        return Profile.from_json(files.parse_object(content, "it", ValueError, remedy=""))
    except ValueError as error:
        raise ValueError(
            f"the profile {printable(path)} cannot be used: {error}; delete it, then "
            "`bandweave probe`"
        ) from error


def save_profile(path: Path, profile: Profile) -> None:
    """Writes a profile whole or not at all. ``OSError`` where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, private=True) as file:
        file.write(json.dumps(profile.to_json(), indent=1).encode() + b"\n")


def why_stale(name: str, machine: MachineProfile) -> str:
    """Why a machine's profile no longer speaks for it; empty where it does."""
    from bandweave import NUMERICS_VERSION, __version__
    from bandweave.host.processor import processor_name

    return stale_reason(
        machine,
        version=__version__,
        numerics_version=NUMERICS_VERSION,
        processor=processor_name() if name == HERE else None,
    )
