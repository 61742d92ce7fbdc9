"""Contestant: a name, and a process that gives one sample whenever it is asked.

The process stays loaded between samples, so that a round costs what it measures; it waits in a
read and uses no processor while another contestant runs. Knows how each is started; knows no
figures.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from benchmarks.peers.protocol import Work

ROOT = Path(__file__).resolve().parent.parent
_LOAD_SECONDS = 1800.0
_SAMPLE_SECONDS = 3600.0
_END_SECONDS = 20.0
_SHOWN = 3000  # characters of what a process said before it failed

Sample = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """``name`` as tables show it; ``command`` starts its process; ``nodes`` and ``threads`` of
    each, ``format`` and ``model`` are what it runs, for the record."""

    name: str
    command: tuple[str, ...]
    nodes: int = 1
    threads: int = 1
    format: str = ""
    model: str = ""

    def start(self) -> Running:
        return Running(self)


class Running:
    """A contestant's process. ``description`` is what it says of itself, once it is loaded."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        # Closed by close(); a pipe could fill up while nobody reads it.
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            contestant.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C ends us, and we end it
        )
        try:
            self.description: dict[str, Any] = self._receive(_LOAD_SECONDS)["ready"]
        except BaseException:
            self.close()
            raise

    def sample(self, work: Work) -> Sample:
        """Does the work once. ``RuntimeError`` where the process fails."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(work.to_json()) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail("ended")
        return self._receive(_SAMPLE_SECONDS)

    def close(self) -> None:
        """Ends the process: by the end of its input, else by force."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self, seconds: float) -> dict[str, Any]:
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], seconds)[0]:
            self._fail(f"said nothing for {seconds:.0f} s")
        line = output.readline()
        if not line:
            self._fail("ended")
        return json.loads(line)

    def _fail(self, what: str) -> NoReturn:
        self._said.seek(0)
        raise RuntimeError(f"{self.contestant.name} {what}:\n{self._said.read()[-_SHOWN:]}")


def _cpus(threads: int) -> str:
    """The processors that bandweave would pin so many threads to: the peers get the same."""
    from bandweave.host.machine import usable_cpus

    usable = usable_cpus()
    return ",".join(map(str, usable[:threads])) if threads <= len(usable) else ""


def _python(module: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.peers.{module}", *map(str, arguments))


def bandweave(
    folder: Path,
    *,
    context: int,
    nodes: int = 1,
    threads: int = 1,
    format: str = "q4",
    streams: int = 1,
    shares: Sequence[int] = (),
    stages: int = 1,
    link: str = "",
    name: str = "",
    before: Sequence[str] = (),
    hosts: Sequence[str] = (),
    token_file: Path | None = None,
    encrypt: bool = True,
) -> Contestant:
    """bandweave; ``link`` is emulated between its nodes; ``before`` is put in front of its command,
    to run it in a network namespace; ``encrypt`` what leaves one."""
    command = _python(
        "bandweave_engine", folder, "--nodes", nodes, "--threads", threads, "--format", format,
        "--context", context, "--streams", streams, "--stages", stages,
    )  # fmt: skip
    if shares:
        command += ("--shares", ",".join(map(str, shares)))
    if link:
        command += ("--emulate-link", link)
    if hosts:
        command += ("--hosts", ",".join(hosts), "--token-file", str(token_file))
        command += () if encrypt else ("--no-encrypt",)
    linked = f"{nodes} nodes x {threads}" if nodes > 1 else f"{threads}"
    return Contestant(
        name=name or f"bandweave {format}, {linked} thread{'s' if threads > 1 else ''}",
        command=(*before, *command),
        nodes=nodes,
        threads=threads,
        format=format,
        model=folder.name,
    )


def llama_cpp(
    gguf: Path,
    *,
    context: int,
    threads: int = 1,
    format: str = "q4",
    streams: int = 1,
    plain_attention: bool = False,
) -> Contestant:
    """llama.cpp with its defaults; ``plain_attention``: with flash attention off, which on some
    processors decodes faster and reads prompts slower."""
    command = _python(
        "llama_cpp", gguf, "--threads", threads, "--context", context, "--streams", streams,
        "--cpus", _cpus(threads),
    )  # fmt: skip
    stored = {"q4": "Q4_0", "q8": "Q8_0"}[format]
    name = f"llama.cpp {stored}, {threads} thread{'s' if threads > 1 else ''}"
    if plain_attention:
        command += ("--plain-attention",)
        name += ", flash attention off"
    return Contestant(name=name, command=command, threads=threads, format=stored, model=gguf.stem)


def torch_bf16(folder: Path, *, threads: int = 1) -> Contestant:
    command = _python("torch_bf16", folder, "--threads", threads, "--cpus", _cpus(threads))
    name = f"PyTorch bf16, {threads} thread{'s' if threads > 1 else ''}"
    return Contestant(name=name, command=command, threads=threads, format="bf16", model=folder.name)


def plain_read(threads: int) -> Contestant:
    """The yardstick: what so many threads read when they do nothing else."""
    name = f"plain read, {threads} thread{'s' if threads > 1 else ''}"
    return Contestant(
        name=name, command=_python("plain_read", "--threads", threads), threads=threads
    )
