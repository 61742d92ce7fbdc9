"""Nodes that die and hang at random moments, over and over: `python -m tests.exhaustive.failures`.

Every round starts a model on some nodes, asks for answers of every kind, harms nodes meanwhile, one
or two at a time, and compares all that was told with what one node says. Prints from fault to next
token, by parts. Exit status 1 where a byte differs, or a stream was lost.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.cluster.recoveries import Recovery
from bandweave.engine.options import EngineOptions
from bandweave.run_options import RunOptions
from tests.helpers.lasting import Streams, asks, cluster, harm, pids, undisturbed, wait_until

_HOW = {"kill": signal.SIGKILL, "hang": signal.SIGSTOP}
_ROUND_FAULTS = 4
_PARTS = ("noticed", "planned", "loaded", "prefilled")


@dataclass
class Tally:
    """Of one kind of fault."""

    faults: int = 0
    gaps: list[float] = field(default_factory=list)  # from fault to next token
    recoveries: list[Recovery] = field(default_factory=list)


def _options(choose: random.Random) -> tuple[str, EngineOptions]:
    model = choose.choice(("demo", "demo", "demo-moe"))
    nodes = choose.randint(1, 4)
    speculate = choose.choice(("off", "ngram", "mtp" if model == "demo-moe" else "off"))
    return model, EngineOptions(
        shares=tuple(Fraction(choose.randint(1, 3)) for _ in range(nodes)),
        stages=choose.choice((1, 1, min(2, nodes))),
        threads=1,
        run=RunOptions(context=512, streams=choose.randint(2, 6), speculate=speculate),
    )


def run_round(choose: random.Random, hows: Sequence[str], tallies: dict[str, Tally]) -> str:
    """What differs; empty where nothing does."""
    model, options = _options(choose)
    path = str(demo_folder(model))
    plain = EngineOptions(threads=1, run=replace(options.run, speculate="off", streams=8))
    embeds = options.stages == 1 and options.run.speculate != "mtp"
    expected = undisturbed(path, plain, embeds=embeds)
    with Folder.open(path) as folder, cluster(folder, options) as (one, launcher):
        for _ in range(_ROUND_FAULTS):
            how = choose.choice(hows)
            streams = Streams(one, asks(embeds=embeds))
            streams.wait_for(choose.randint(1, 700))
            before = one.num_recoveries
            there = sorted(pids(launcher))
            nodes = choose.sample(there, min(len(there), choose.choice((1, 1, 1, 2))))
            moments = [harm(launcher, node, _HOW[how]) for node in nodes if node in pids(launcher)]
            hearts = streams.hearts(120)
            if hearts != expected:
                return f"{model}, {options}: answers differ after {how} of {nodes}"
            tally = tallies[how]
            tally.faults += 1
            later = [at for told in streams.told for at in told.times if at > moments[0] + 0.02]
            if later and one.num_recoveries > before:
                times = sorted(at for told in streams.told for at in told.times)
                after = [b - a for a, b in zip(times, times[1:], strict=False) if b > moments[0]]
                tally.gaps.append(max(after, default=0.0))
                found = one.recoveries()[before - one.num_recoveries :]
                tally.recoveries += [each for each in found if each.kind == "failed"][:1]
            count = len(options.shares)
            if not wait_until(lambda count=count: len(pids(launcher)) == count, 30):
                return f"{model}, {options}: {len(pids(launcher))} of {count} nodes came back"
            if not wait_until(lambda count=count: len(one.nodes) == count, 30):
                return f"{model}, {options}: {len(one.nodes)} of {count} nodes take part"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.exhaustive.failures")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--how", choices=[*_HOW, "both"], default="both")
    arguments = parser.parse_args()
    hows = [*_HOW] if arguments.how == "both" else [arguments.how]
    choose, tallies = random.Random(arguments.seed), {how: Tally() for how in hows}
    end, rounds, wrong = time.monotonic() + arguments.seconds, 0, list[str]()
    while time.monotonic() < end:
        rounds += 1
        try:
            complaint = run_round(choose, hows, tallies)
        except Exception as error:
            complaint = f"round {rounds}: {type(error).__name__}: {error}"
        if complaint:
            wrong.append(complaint)
            print(complaint, file=sys.stderr, flush=True)
    print(f"{rounds} rounds, {len(wrong)} of them wrong; seconds, median and worst:")
    print(f"{'':6} {'faults':>7} {'to next token':>15} " + " ".join(f"{one:>15}" for one in _PARTS))
    for how, tally in tallies.items():
        columns = [tally.gaps, *([getattr(r, f"{p}_s") for r in tally.recoveries] for p in _PARTS)]
        figures = [
            f"{statistics.median(one):7.2f} {max(one):7.2f}" if one else f"{'-':>15}"
            for one in columns
        ]
        print(f"{how:6} {tally.faults:7} " + " ".join(figures))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
