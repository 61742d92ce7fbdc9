"""Servers: bandweave's and llama.cpp's, each a process on a port.

llama-server is built once from the source that llama-cpp-python's package carries. Knows how each
is started; knows no figures.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestant import ROOT
from benchmarks.rounds import say

_VERSION = "0.3.36"
_LOAD_SECONDS, _END_SECONDS = 600.0, 20.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """``command`` with ``{port}`` where its port goes; ``cpus`` that it may use."""

    name: str
    command: tuple[str, ...]
    cpus: frozenset[int]


def bandweave(
    folder: Path, *, streams: int, context: int, nodes: int = 1, threads: int = 1, name: str = ""
) -> Server:
    command = (
        sys.executable, "-m", "bandweave", "serve", str(folder), "--listen", "127.0.0.1:{port}",
        "--any-model", "--nodes", str(nodes), "--threads", str(threads), "--format", "q4",
        "--streams", str(streams), "--context", str(context), "--no-cache",
    )  # fmt: skip
    name = name or f"bandweave, {nodes} x {threads}"
    return Server(name=name, command=command, cpus=_cpus(nodes * threads))


def llama_server(binary: Path, gguf: Path, *, streams: int, context: int, threads: int) -> Server:
    command = (
        str(binary), "-m", str(gguf), "--port", "{port}", "--threads", str(threads),
        "--parallel", str(streams), "--ctx-size", str(streams * context), "--no-webui",
        "--cont-batching", "--log-disable",
    )  # fmt: skip
    return Server(name=f"llama-server, {threads}", command=command, cpus=_cpus(threads))


def _cpus(count: int) -> frozenset[int]:
    from bandweave.host.machine import usable_cpus

    return frozenset(usable_cpus()[:count])


@contextlib.contextmanager
def running(server: Server) -> Iterator[int]:
    """Starts a server, waits until it is healthy, gives its port, and ends it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    say(f"loading {server.name}")
    command = [word.replace("{port}", str(port)) for word in server.command]
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=nowhere, start_new_session=True, stderr=nowhere,
            preexec_fn=lambda: os.sched_setaffinity(0, server.cpus),
        )  # fmt: skip
    try:
        _wait(process, port, server.name)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, name: str) -> None:
    deadline = time.monotonic() + _LOAD_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with status {process.returncode}")
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{port}/health"
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.2)
    raise RuntimeError(f"{name} is not healthy after {_LOAD_SECONDS:.0f} s")


def build_llama_server(folder: Path) -> Path:
    """The binary of llama-server, built in ``folder`` for this processor where it is missing."""
    binary = folder / "build" / "bin" / "llama-server"
    if binary.exists():
        return binary
    say("building llama-server: ten minutes, once")
    folder.mkdir(parents=True, exist_ok=True)
    _run((sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
          "--dest", str(folder), f"llama-cpp-python=={_VERSION}"))  # fmt: skip
    archive = next(folder.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
    _run(("cmake", "-S", str(source), "-B", str(folder / "build"), "-DCMAKE_BUILD_TYPE=Release",
          "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_UI=OFF",
          "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_OPENSSL=OFF",
          "-DBUILD_SHARED_LIBS=OFF"))  # fmt: skip
    jobs = str(os.cpu_count() or 1)
    _run(("cmake", "--build", str(folder / "build"), "--target", "llama-server", "-j", jobs))
    return binary


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
