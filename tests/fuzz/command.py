"""The command of a fuzzer that needs nothing but a number of inputs and a seed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any


def command(run: Callable[[int, int], dict[str, Any]], title: str | None) -> None:
    """Reads ``--inputs`` and ``--seed``, runs so many inputs, and prints what became of them."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(run(options.inputs, options.seed), indent=2))
