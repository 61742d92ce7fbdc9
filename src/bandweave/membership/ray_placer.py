"""The placer: a driver of a Ray cluster that has one node actor run on every machine of it.

A process of its own, since Ray ends a driver whose head is gone for long; whoever started it starts
it again. It writes what goes on to standard output, a JSON object a line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any

from bandweave import __version__
from bandweave.membership.ray_actor import NodeActor

_LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 1.0
_MEMORY_PART = 0.8  # of a machine's that Ray counts as ours


@dataclass
class _Placed:
    """One machine's actor."""

    actor: Any
    host: str
    asked: Any = None
    trouble: str = "Ray has not started its actor yet"


class Placer:
    """Keeps to the machines that Ray has, as they come and go."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._placed: dict[str, _Placed] = {}

    def look(self) -> str:
        """What is to be said of it all; empty where every machine's worker runs."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        alive = {
            node["NodeID"]: node
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        }
        for gone in self._placed.keys() - alive.keys():
            del self._placed[gone]
        for identity, node in alive.items():
            if identity not in self._placed:
                cpus = int(node["Resources"]["CPU"])
                asked = min(cpus, self._options.threads or cpus)
                memory = int(node["Resources"].get("memory", 0) * _MEMORY_PART)
                kind = ray.remote(NodeActor).options(
                    num_cpus=asked,
                    memory=memory or None,
                    max_restarts=-1,
                    max_concurrency=4,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(identity, soft=False),
                )
                actor = kind.remote(
                    head=self._options.head,
                    token_file=self._options.token_file,
                    name=self._options.secret_name,
                    version=__version__,
                    models=self._options.models,
                    threads=self._options.threads,
                    encrypted=self._options.require_encryption,
                )
                self._placed[identity] = _Placed(actor=actor, host=node["NodeManagerHostname"])
        for identity, placed in list(self._placed.items()):
            self._ask(identity, placed)
        count = len(self._placed)
        machines = "1 machine" if count == 1 else f"{count} machines"
        lines = [f"Ray places workers on {machines}"]
        lines += [f"{one.host}: {one.trouble}" for one in self._placed.values() if one.trouble]
        return "; ".join(lines)

    def _ask(self, identity: str, placed: _Placed) -> None:
        """Hears how an actor does, without waiting for one that has not started."""
        import ray

        placed.asked = placed.asked or placed.actor.state.remote()
        try:
            state = ray.get(placed.asked, timeout=_ANSWER_SECONDS)
            placed.trouble = state["trouble"]
        except ray.exceptions.GetTimeoutError:
            placed.trouble = "Ray has not started its actor yet; are its processors free?"
            return
        except ray.exceptions.RayActorError as error:
            cause = str(error).strip().splitlines()
            placed.trouble = cause[-1].strip() if cause else "its actor has died"
            del self._placed[identity]  # of its own mistake: another is tried at the next look
        except ray.exceptions.RayError as error:
            placed.trouble = str(error).strip().splitlines()[-1]
        placed.asked = None

    def stop(self) -> None:
        """No actor starts a worker any more."""
        import ray

        with contextlib.suppress(Exception):
            ray.get([one.actor.stop.remote() for one in self._placed.values()], timeout=3.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bandweave.membership.ray_placer")
    for name in ("address", "head", "token-file", "secret-name"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--models", action="append", default=[])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--require-encryption", action="store_true")
    options = parser.parse_args()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import ray

    ray.init(
        address=options.address,
        namespace="bandweave",
        configure_logging=True,
        logging_level="ERROR",
        log_to_driver=False,
        include_dashboard=None,
    )
    placer = Placer(options)
    try:
        while not over.is_set():
            note = placer.look()
            # Said again at every look: who says nothing waits for a Ray that does not answer.
            print(json.dumps({"note": note}), flush=True)
            over.wait(_LOOK_SECONDS)
    finally:
        placer.stop()
        ray.shutdown()


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(1)
