"""Ends commands at random moments: `python -m tests.interrupts [--trials N] [CASE | CASE:BLOW]...`.

Every case and blow in turn, at moments that the seed draws; names what is wrong at once, and exits
with 1 where anything is. One command at a time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.interrupts.story import story
from tests.interrupts.trial import SECONDS, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interrupts")
    parser.add_argument("wanted", nargs="*", metavar="CASE[:BLOW]", help="default: all")
    parser.add_argument("--trials", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S",
                        help="in which a command ends")  # fmt: skip
    options = parser.parse_args()
    wrong = 0
    for index, trial in enumerate(story(options.seed, options.trials, options.wanted,
                                        seconds=options.seconds)):  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="interrupts-") as folder:
            found = run(trial, Path(folder))
        wrong += bool(found)
        print(f"{index + 1:4} {trial}: {'; '.join(found) or 'fine'}", flush=True)
    print(f"{wrong} of {options.trials} trials went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
