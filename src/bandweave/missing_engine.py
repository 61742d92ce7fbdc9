"""What is said where the engine is missing: installations without the native module.

The planner needs none of it, and is installed where there is no compiler, and on Windows.
"""

from __future__ import annotations

import os

#: Modules of systems on which the engine runs.
_OF_UNIX = ("fcntl", "resource", "termios", "grp", "pwd")
_PACKAGES = (
    "Debian, Ubuntu: apt install g++ python3-dev; Fedora: dnf install gcc-c++ python3-devel; "
    "macOS: xcode-select --install"
)


def missing_engine(error: ImportError) -> str:
    """The sentence for an import that failed for want of the engine; empty for any other."""
    native = error.name == "bandweave._native" or (
        error.name == "bandweave" and "_native" in str(error)
    )
    if not native and error.name not in _OF_UNIX:
        return ""
    if os.name == "nt":
        return (
            "this needs bandweave's engine, which runs on Linux and macOS; under Windows install "
            "bandweave in WSL. `bandweave plan` works here"
        )
    return (
        "this needs bandweave's engine, which this installation lacks: it was made without a C++ "
        f"compiler or Python's headers. Install them ({_PACKAGES}), then bandweave again, with "
        "`pip install --force-reinstall --no-deps`. `bandweave plan` works without"
    )
