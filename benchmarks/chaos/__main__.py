"""``python -m benchmarks.chaos``: 30 streams against a server whose nodes fail; nothing may be lost
and no byte may change.

Nodes are processes of this machine, or with ``--hosts`` machines in networks of their own. What
follows ``--`` goes to ``bandweave serve``. Ends with status 1 where a stream was lost or changed,
or something is left over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos import cluster, hosts
from benchmarks.chaos.faults import MACHINE, PROCESS
from benchmarks.chaos.questions import questions
from benchmarks.chaos.report import as_json, lines
from benchmarks.chaos.trial import Found, Plan, play
from benchmarks.rounds import say

# Fewer places than streams: some wait, and some give way to others.
_SERVER = ("--threads", "1", "--context", "1024", "--streams", "10", "--speculate")


def main(arguments: Sequence[str] | None = None) -> int:
    given, more = _arguments(list(sys.argv[1:] if arguments is None else arguments))
    if given.hosts and (why := hosts.why_not()):
        print(f"--hosts: {why}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as chaos.workers does
    found = run(given, more)
    print("\n".join(lines(found)), flush=True)
    if given.json:
        given.json.write_text(json.dumps(as_json(found), indent=1) + "\n", encoding="utf-8")
    return 0 if found.fine else 1


def run(given: argparse.Namespace, more: Sequence[str]) -> Found:
    possible = (*PROCESS, *MACHINE) if given.hosts else PROCESS
    kinds = tuple(given.kinds.split(",")) if given.kinds else possible
    if unknown := set(kinds) - set(possible):
        raise SystemExit(f"no such fault here: {', '.join(unknown)}; there are "
                         f"{', '.join(possible)}")  # fmt: skip
    plan = Plan(
        seconds=given.seconds,
        seed=given.seed,
        questions=questions(given.streams, given.seed, given.tokens),
        kinds=kinds,
        pauses=(given.pauses[0], given.pauses[1]),
        pairs=not given.single,
    )
    options = [*_SERVER, *more]
    with contextlib.ExitStack() as stack:
        if given.hosts:
            there = stack.enter_context(hosts.started(given.nodes, given.model, options))
            found = there.inside(lambda: asyncio.run(play(there, plan, say)))
            stopped = there.stop()
            log = there.log()
        else:
            here = stack.enter_context(cluster.started(given.nodes, given.model, options))
            found = asyncio.run(play(here, plan, say))
            stopped = here.stop()
            log = here.log()
        found.left += stopped
        if given.log:
            given.log.write_text(log, encoding="utf-8")
    return found


def _arguments(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    more: list[str] = []
    if "--" in words:
        words, more = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults; default 60")
    parser.add_argument("--nodes", type=int, default=4, help="default 4")
    parser.add_argument("--hosts", action="store_true",
                        help="machines in networks of their own; needs root")  # fmt: skip
    parser.add_argument("--streams", type=int, default=30, help="default 30")
    parser.add_argument("--tokens", type=int, default=200, help="of an answer at most; default 200")
    parser.add_argument("--seed", type=int, default=1, help="of faults and questions; default 1")
    parser.add_argument("--kinds", help=f"of faults: {','.join((*PROCESS, *MACHINE))}; all")
    parser.add_argument("--single", action="store_true", help="never two faults at once")
    parser.add_argument("--pauses", type=float, nargs=2, default=(2.0, 6.0),
                        metavar=("FROM", "TO"), help="seconds between faults; 2 6")  # fmt: skip
    parser.add_argument("--model", default="demo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="what was found, for programs")
    parser.add_argument("--log", type=Path, metavar="FILE", help="what the server said")
    return parser.parse_args(words), more


if __name__ == "__main__":
    sys.exit(main())
