"""Where packed weights are kept when nobody says where; apart, so that asking costs no import."""

from __future__ import annotations

from pathlib import Path


def default_folder() -> Path:
    """A folder of the user's home; ``RuntimeError`` where there is none."""
    return Path.home() / ".cache" / "bandweave" / "panels"
