"""Reads damaged and hostile files, and says what did not end in one sentence, in time and within
memory: `python -m tests.fuzz.files --inputs 10000 --seed 1 --kind config`.

Every input is made from its kind, the seed and its number alone. Exit status 1 where any failed;
``--keep FOLDER`` keeps those.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bandweave.checkpoints.source import CheckpointError
from bandweave.models.config import ConfigError
from bandweave.text.files import TextError
from tests.fuzz.kinds import KINDS
from tests.fuzz.sentences import sentence_fault

MOST_BYTES = 900_000_000  # more than the process took before
_PATIENCE_SECONDS = 60  # until an input counts as hung

_OWN = (CheckpointError, ConfigError, TextError, ValueError)


@dataclass
class Tally:
    """Of one kind: how many inputs were read, refused, and failed."""

    kind: str
    memory_before: int = 0  # peak of the process
    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by class of error
    slowest: tuple[float, int] = (0.0, -1)  # seconds, number of the input
    faults: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.read + self.refused.total() + len(self.faults)


def fuzz(kind: str, inputs: int, seed: int, *, first: int = 0, keep: Path | None = None) -> Tally:
    """Makes and reads inputs of a kind."""
    tally = Tally(kind, memory_before=peak_bytes())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        folder.mkdir()
        KINDS[kind].prepare(folder)
        for number in range(first, first + inputs):
            KINDS[kind].make(folder, random.Random(f"{kind} {seed} {number}"))
            fault = _read(kind, folder, number, tally)
            if fault is None:
                continue
            tally.faults.append(f"{kind} {number}: {fault}")
            if keep is not None:
                shutil.copytree(folder, keep / f"{kind}-{seed}-{number}", dirs_exist_ok=True)
    return tally


def _read(kind: str, folder: Path, number: int, tally: Tally) -> str | None:
    """What is wrong with how an input ended, or None."""
    start = time.process_time()
    fault, refusal = None, None
    try:
        with _alarm():
            KINDS[kind].read(folder)
    except _OWN as error:
        refusal = type(error).__name__
        fault = sentence_fault(error)
        if fault is not None:
            fault = f"{fault}: {refusal}: {str(error)[:200]!r}"
    except BaseException as error:  # a panic of a library is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
    seconds = time.process_time() - start
    tally.slowest = max(tally.slowest, (seconds, number))
    if fault is None and seconds > KINDS[kind].seconds * _slowness():
        fault = f"took {seconds:.1f} s"
    if fault is None and peak_bytes() - tally.memory_before > MOST_BYTES:
        fault = f"took {peak_bytes() / 1e6:.0f} MB"
    if fault is None and refusal is None:
        tally.read += 1
    elif fault is None:
        tally.refused[str(refusal)] += 1
    return fault


def peak_bytes() -> int:
    """Of this process, so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_pace: list[float] = []


def _slowness() -> float:
    """How much slower than a usual machine this one is, at least 1: a fixed loop against its usual
    time, measured once."""
    if not _pace:
        start = time.process_time()
        total = 0
        for number in range(2_000_000):
            total += number
        _pace.append(max(1.0, (time.process_time() - start) / 0.1))
    return _pace[0]


@contextmanager
def _alarm() -> Iterator[None]:
    """Ends what hangs."""

    def ring(number: int, frame: Any) -> None:
        raise TimeoutError(f"hung for {_PATIENCE_SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_PATIENCE_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Reads damaged and hostile files.")
    parser.add_argument("--inputs", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all")
    parser.add_argument("--keep", type=Path, help="where failed inputs are kept")
    options = parser.parse_args(arguments)
    failed = False
    for kind in options.kind or KINDS:
        tally = fuzz(kind, options.inputs, options.seed, first=options.first, keep=options.keep)
        seconds, number = tally.slowest
        refused = ", ".join(f"{count} {name}" for name, count in tally.refused.most_common())
        print(
            f"{kind}: {tally.inputs} inputs, {tally.read} read, refused {refused or 'none'}; "
            f"{len(tally.faults)} faults; slowest {seconds:.2f} s (number {number}); peak "
            f"{peak_bytes() / 1e6:.0f} MB",
            flush=True,
        )
        for fault in tally.faults[:20]:
            print(f"  {fault}", flush=True)
        failed = failed or bool(tally.faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
