"""``python -m benchmarks``: runs experiments, prints tables, writes JSON, charts and the document.

Knows the experiments by name; measures nothing itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import (
    conversation,
    decode,
    document,
    formats,
    latency,
    links,
    long_context,
    machine,
    mixtures,
    prediction,
    prefill,
    scaling,
    serving,
    simulation,
    table,
    wire,
)
from benchmarks.contestant import ROOT
from benchmarks.models import FULL, QUICK, Scale, Store
from benchmarks.result import Result
from benchmarks.rounds import say

Experiment = Callable[[Store, Scale], Result]

EXPERIMENTS: Mapping[str, Experiment] = {
    "decode": decode.run,
    "prefill": prefill.run,
    "mixtures": mixtures.run,
    "exchange": latency.exchange,
    "start": latency.start,
    "links": links.run,
    "context": scaling.context,
    "long-context": long_context.run,
    "rows": scaling.rows,
    "size": scaling.size,
    "wire": wire.run,
    "formats": formats.run,
    "prediction": prediction.run,
    "prediction-mixtures": prediction.run_mixtures,
    "serving": serving.run,
    "conversation": conversation.run,
    "simulation": simulation.run,
}


def main() -> int:
    arguments = _arguments()
    scale = QUICK if arguments.quick else FULL
    if arguments.rounds:
        scale = dataclasses.replace(scale, rounds=arguments.rounds)
    out: Path = arguments.out
    # Small models say nothing about speed: they must not overwrite what does.
    docs = arguments.docs or (out / "docs" if arguments.quick else ROOT / "docs")
    results = out / ("quick" if arguments.quick else "results")
    names = list(EXPERIMENTS) if "all" in arguments.experiments else arguments.experiments
    store = Store(path=out / "models")
    failed = []
    for name in names:
        begin, busy = time.monotonic(), machine.busy_share()
        if busy > machine.QUIET:
            say(f"other programs use {busy:.0%} of the processors: end them, or believe nothing")
        try:
            result = EXPERIMENTS[name](store, scale)
        except (OSError, RuntimeError, ValueError) as error:
            if len(names) == 1:
                raise
            say(f"{name} failed: {error}")
            failed.append(name)
            continue
        if busy > machine.QUIET:
            note = f"Other programs used {busy:.0%} of the processors when this was measured."
            result = dataclasses.replace(result, notes=(*result.notes, note))
        print(f"\n{table.terminal(result)}\n", flush=True)
        found = machine.describe()
        _save(results / f"{name}.json", result, found)
        _publish(docs, result, found)
        say(f"{name} took {time.monotonic() - begin:.0f} s")
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "experiments", nargs="+", choices=[*EXPERIMENTS, "all"], metavar="EXPERIMENT",
        help=f"{', '.join(EXPERIMENTS)} or all",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds at least; scaling takes a third")
    parser.add_argument("--quick", action="store_true", help="tiny models: does it all run?")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "benchmarks",
        help="models, JSON, and with --quick the document; default build/benchmarks",
    )  # fmt: skip
    parser.add_argument("--docs", type=Path, help="where performance.md and images/ are; docs")
    return parser.parse_args()


def _save(path: Path, result: Result, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": found, **result.to_json()}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _publish(docs: Path, result: Result, found: dict[str, Any]) -> None:
    from benchmarks import chart

    target = docs / "performance.md"
    charts = chart.draw(result, docs / "images")
    document.write(target, result, found, charts)
    document.write_summary(target, list(EXPERIMENTS))


if __name__ == "__main__":
    sys.exit(main())
