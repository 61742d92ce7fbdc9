"""How bandweave is built elsewhere: what a machine without a compiler says, and the wheels."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def without_compiler(tmp_path: Path) -> dict[str, str]:
    """An environment whose only tools are those that CMake itself needs."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make; Debian's package make brings it")
    (tmp_path / "make").symlink_to(make)
    return {"PATH": str(tmp_path)}


def configure(folder: Path, environment: dict[str, str] | None, *settings: str) -> str:
    cmake = shutil.which("cmake") or str(Path(sys.executable).parent / "cmake")
    command = (cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Unix Makefiles", *settings)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def test_a_build_without_a_compiler_names_the_packages(tmp_path: Path) -> None:
    said = configure(tmp_path / "build", without_compiler(tmp_path))
    assert "there is no C++ compiler. Install one. Debian, Ubuntu: apt install g++" in said
    assert "Fedora: dnf install gcc-c++" in said and "macOS: xcode-select --install" in said


def test_a_build_without_pythons_headers_names_the_packages(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("there is no c++; Debian's package g++ brings it")
    python = (f"-DPython_EXECUTABLE={sys.executable}", f"-DPython_INCLUDE_DIR={tmp_path}")
    said = configure(tmp_path / "build", None, *python)
    assert re.search(r"the headers of Python 3\.\d+\.\d+ are missing. Install them. Debian", said)


def test_wheels_are_made_for_what_is_said_to_be_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheels = project["tool"]["cibuildwheel"]
    assert wheels["test-command"] == "bandweave doctor --verify && bandweave demo"
    assert {"*-musllinux_*", "*-manylinux_i686"} <= set(wheels["skip"].split())
    assert (wheels["linux"]["archs"], wheels["macos"]["archs"]) == ("auto64", "arm64")
    stable = project["tool"]["scikit-build"]["wheel"]["py-api"]
    assert stable == "cp312" and wheels["build"].split()[:2] == ["cp311-*", f"{stable}-*"]
