"""A C++ compiler for macOS: ``zig_cxx.py ARGUMENTS`` is ``zig c++`` with clang's ``-march`` in the
words of zig, which takes ``-mcpu`` only. Needs the Python package ziglang.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ziglang

_ARCHITECTURES = {"armv8-a": "generic", "armv8.2-a": "generic+v8_2a"}


def translate(arguments: Sequence[str]) -> list[str]:
    return [_cpu(one) if one.startswith("-march=") else one for one in arguments]


def _cpu(argument: str) -> str:
    architecture, *features = argument.removeprefix("-march=").split("+")
    return "-mcpu=" + "+".join((_ARCHITECTURES[architecture], *features))


if __name__ == "__main__":
    zig = str(Path(ziglang.__file__).parent / "zig")
    os.execv(zig, [zig, "c++", *translate(sys.argv[1:])])
