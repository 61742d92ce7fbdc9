"""The environment variables that bandweave reads: all of them, here and nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Environment:
    """``debug``: show tracebacks (``BANDWEAVE_DEBUG``). ``isa``: the kernel variant to use in the
    place of the fastest (``BANDWEAVE_ISA``). ``state``: where a command may keep what it remembers
    (``XDG_STATE_HOME``), None where there is no home folder."""

    debug: bool
    isa: str
    state: Path | None


def read_environment() -> Environment:
    """The environment as it is now."""
    return Environment(
        debug=os.environ.get("BANDWEAVE_DEBUG", "") not in ("", "0"),
        isa=os.environ.get("BANDWEAVE_ISA", ""),
        state=_state_folder(os.environ.get("XDG_STATE_HOME", "")),
    )


def _state_folder(home: str) -> Path | None:
    if home:
        return Path(home) / "bandweave"
    try:
        return Path.home() / ".local" / "state" / "bandweave"
    except RuntimeError:
        return None
