"""The processor's name. Knows Linux and macOS."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from bandweave.host import darwin

_CPUINFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """The processor as the system names it."""
    if _CPUINFO.exists():
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
        match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            return match[1].strip()
    return darwin.processor_name() or platform.processor() or platform.machine()
