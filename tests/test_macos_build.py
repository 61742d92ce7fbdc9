"""The core and the runner compile and link for macOS on Apple silicon. Nothing here runs them."""

from __future__ import annotations

import struct

import pytest

from tests.helpers.runner_builds import build_macos_runner

pytestmark = pytest.mark.timeout(900)  # zig compiles its library too, once for all builds

# From <mach-o/loader.h>.
_MAGIC_64, _CPU_ARM64, _EXECUTE = 0xFEEDFACF, 0x0100000C, 2
_BUILD_VERSION, _LOAD_DYLIB, _PLATFORM_MACOS = 0x32, 0xC, 1


@pytest.mark.late
def test_the_runner_links_for_macos() -> None:
    data = build_macos_runner().read_bytes()
    magic, cpu, _, kind, num_commands = struct.unpack_from("<5I", data)
    assert (magic, cpu, kind) == (_MAGIC_64, _CPU_ARM64, _EXECUTE)
    libraries, platforms, at = [], [], 32
    for _ in range(num_commands):
        command, size = struct.unpack_from("<2I", data, at)
        if command == _BUILD_VERSION:
            platforms.append(struct.unpack_from("<2I", data, at + 8))
        elif command == _LOAD_DYLIB:
            (name,) = struct.unpack_from("<I", data, at + 8)
            libraries.append(data[at + name : at + size].rstrip(b"\0").decode())
        at += size
    assert platforms == [(_PLATFORM_MACOS, 14 << 16)]  # the oldest that wheels are made for
    # Every Mac has these; zig's C++ library is inside.
    assert libraries and all(name.startswith("/usr/lib/lib") for name in libraries)
