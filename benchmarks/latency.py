"""What does not grow with the model: one exchange between nodes, and the start of the program."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.contestant import ROOT
from benchmarks.exchange import WIDTH
from benchmarks.models import Scale, Store
from benchmarks.result import Figure, Result
from benchmarks.rounds import say
from benchmarks.statistics import estimate

_SECONDS = 600.0


def exchange(store: Store, scale: Scale) -> Result:
    """The median exchange of every round, each round with nodes of its own."""
    names = {"tcp": "TCP on loopback", "shared": "shared memory"}
    medians: dict[str, list[float]] = {transport: [] for transport in names}
    for number in range(scale.rounds):
        say(f"exchange: round {number + 1} of {scale.rounds}")
        for transport in names:
            medians[transport].append(1e6 * _exchange_once(transport))
    figures = [
        Figure(
            title=f"exchange of {WIDTH} grid values, 2 pinned nodes, {name}",
            estimate=estimate(medians[transport]),
            unit="us",
            at_most=15.0,
        )
        for transport, name in names.items()
    ]
    note = (
        "One exchange is a step of 64 of them, run by the native executor, less a step of none, "
        "over 64: it counts encoding, both ways over the link, checking and adding."
    )
    return Result(
        experiment="exchange", title="Exchange", figures=figures, notes=(note,), rounds=[medians]
    )


def _exchange_once(transport: str) -> float:
    """Seconds, the median of many steps."""
    command = [sys.executable, "-m", "benchmarks.exchange", "--transport", transport]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=_SECONDS, cwd=ROOT
    )
    return statistics.median(json.loads(done.stdout)["exchange_seconds"])


def start(store: Store, scale: Scale) -> Result:
    """From the start of the command to the first letter of an answer, in a new process."""
    folder = store.folder(scale.model)
    seconds = []
    _start_once(folder)  # files into the page cache, packed weights into theirs
    for number in range(scale.rounds):
        say(f"start: round {number + 1} of {scale.rounds}")
        seconds.append(_start_once(folder))
    figure = Figure(
        title=f"start to first token, {scale.model.name}, q4, files in the page cache",
        estimate=estimate(seconds),
        unit="s",
        at_most=2.0,
    )
    return Result(experiment="start", title="Start", figures=(figure,), rounds=[seconds])


def _start_once(folder: Path) -> float:
    command = [sys.executable, "-m", "bandweave", "run", str(folder), "--raw"]
    command += ["--prompt", "1 2 3 4", "--max-tokens", "1", "--format", "q4"]
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - begin
        process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    return seconds
