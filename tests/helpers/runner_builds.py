"""Builds of ``bandweave-runner`` for processors that this machine may not have, and emulators that
run them. What is missing is a reason to skip, with the package that brings it."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_TOOLCHAIN = _ROOT / "cmake" / "aarch64-linux-gnu.cmake"
_MACOS = _ROOT / "cmake" / "aarch64-macos.cmake"
_STATIC = "-DCMAKE_EXE_LINKER_FLAGS=-static"  # an emulator needs no libraries then

# Less optimised, which halves minutes of compiling: what counts is that it compiles, and to the
# bits of the module, which is optimised.
_QUICK = "-DCMAKE_CXX_FLAGS_RELEASE=-O1"

# By build: the compiler, its package, and what CMake is told.
_BUILDS = {
    "x86": (
        "g++",
        "g++",
        (_STATIC, "-DCMAKE_CXX_COMPILER=g++", "-DBANDWEAVE_VNNI_AS_AVX512=ON", _QUICK),
    ),
    "clang": ("clang++", "clang", ("-DCMAKE_CXX_COMPILER=clang++", _QUICK)),
    "aarch64": (
        "aarch64-linux-gnu-g++",
        "g++-aarch64-linux-gnu",
        (f"-DCMAKE_TOOLCHAIN_FILE={_TOOLCHAIN}", _QUICK),
    ),
}
RUNNERS = tuple(_BUILDS)
_EMULATORS = {"x86": "qemu-x86_64-static", "aarch64": "qemu-aarch64-static"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run of the runner ended; a negative status is a signal."""

    status: int
    out: str
    err: str


def build_runner(name: str) -> Path:
    """The runner's file, built anew where sources have changed; skips where tools are missing."""
    if name != "aarch64" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("this machine's own processor is not x86-64")
    compiler, package, settings = _BUILDS[name]
    for tool, brought_by in (("make", "make"), (compiler, package)):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}; Debian's package {brought_by} brings it")
    folder = _ROOT / "build" / "processors" / name
    build_native(folder, "-DBANDWEAVE_RUNNER=ON", *settings)
    return folder / "native" / "runner" / "bandweave-runner"


def build_macos_runner() -> Path:
    """The runner for macOS on Apple silicon, which nothing here can run; skips without zig."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("there is no zig; pip install ziglang brings it")
    if shutil.which("make") is None:
        pytest.skip("there is no make; Debian's package make brings it")
    folder = _ROOT / "build" / "macos"
    settings = (f"-DCMAKE_TOOLCHAIN_FILE={_MACOS}", f"-DZIG_PYTHON={sys.executable}")
    # Not optimised, and the variant of the newest processors alone: it is to compile and to link.
    quick = ("-DCMAKE_BUILD_TYPE=Debug", "-DBANDWEAVE_VARIANTS=neon_i8mm")
    build_native(folder, "-DBANDWEAVE_RUNNER=ON", *quick, *settings)
    return folder / "native" / "runner" / "bandweave-runner"


def build_native(folder: Path, *settings: str) -> None:
    """Builds the C++ core without Python in a folder, anew where sources have changed; warnings
    are errors."""
    # A cmake of the system's, or that of the development tools beside this Python.
    cmake = shutil.which("cmake") or str(Path(sys.executable).parent / "cmake")
    options = ("-DBANDWEAVE_PYTHON=OFF", "-DCMAKE_CXX_FLAGS=-Werror")
    place = ("-S", str(_ROOT), "-B", str(folder), "-G", "Unix Makefiles")
    with _lock(folder):
        _run(cmake, *place, *options, *settings)
        _run(cmake, "--build", str(folder), "--parallel", str(os.cpu_count() or 1))


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One build of a folder at a time, whichever thread or process asks."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start_builds(builds: Iterable[Callable[[], object]]) -> None:
    """Starts builds one after another in the background, on processors that nobody else wants; a
    test that comes earlier waits for its build. Where one fails, the test says so."""

    def work() -> None:
        os.nice(19)  # of this thread, and of what it starts
        for build in builds:
            with contextlib.suppress(BaseException):
                build()

    threading.Thread(target=work, name="builds", daemon=True).start()


def run_runner(
    runner: Path, *arguments: str | Path, build: str = "", processor: str = ""
) -> Outcome:
    """Runs the runner, on an emulated processor if one is named; skips where none emulates it."""
    command = [str(runner), *map(str, arguments)]
    if processor:
        emulator = _EMULATORS[build]
        if shutil.which(emulator) is None:
            pytest.skip(f"there is no {emulator}; Debian's package qemu-user-static brings it")
        command = [emulator, "-cpu", processor, *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return Outcome(status=done.returncode, out=done.stdout, err=done.stderr)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
