"""What a controller tells the head of its cluster, for whoever asks: who holds what and why, over
which links, and what goes on. Knows an open session and how its machines were gathered."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from typing import Any, Self

from bandweave.engine.loading_nodes import NodeInfo
from bandweave.executors.executor import StepError
from bandweave.membership.membership import BEAT_SECONDS
from bandweave.messages import EngineState
from bandweave.serving.gathering import Gathered, Gathering
from bandweave.serving.session import Session
from bandweave.serving.status.machines import machines_of
from bandweave.serving.status.recoveries import cluster_json


class Reporter:
    """Looks every few seconds, in a thread of its own, and tells the membership what it saw. A
    context manager."""

    def __init__(self, gathering: Gathering, session: Session) -> None:
        self._gathering, self._session = gathering, session
        self._plan: dict[str, Any] = {}
        self._planned_for: object = None
        self._state: EngineState | None = None
        self._text = "{}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._gathering.membership.tell(lambda: self._text)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """A question that is still owed an answer is not waited for."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(StepError):
                self._state = self._session.engine.state()
            if not self._over.is_set():
                with contextlib.suppress(StepError):
                    self._look()

    def _look(self) -> None:
        session, gathered = self._session, self._gathering.gathered
        engine, state = session.engine, self._state
        assert gathered is not None
        generation = getattr(engine, "generation", 0)
        if self._planned_for != generation:
            self._plan = plan_json(session, gathered)
            self._planned_for = generation
        self._text = json.dumps(
            {
                "model": session.name,
                **self._plan,
                "streams": {
                    "running": state.running if state else 0,
                    "waiting": state.waiting if state else 0,
                },
                **cluster_json(engine if hasattr(engine, "health") else None),  # type: ignore[arg-type]
            }
        )


def plan_json(session: Session, gathered: Gathered) -> dict[str, Any]:
    """Who holds what of the model, over which links, and why so."""
    machines = machines_of(session)
    hosts = gathered.launcher.machines
    whole = sum(node["weight_bytes"] for node in machines.plan["nodes"]) or 1
    nodes = []
    for node in machines.plan["nodes"]:
        found = [
            one for number, one in hosts.items() if node["name"].startswith(f"node {number} (")
        ]
        nodes.append(
            {
                "name": node["name"],
                "host": found[0].host if found else "",
                "worker": found[0].worker if found else "",
                "stage": node["stage"],
                "share": round(node["weight_bytes"] / whole, 4),
                "weight_bytes": node["weight_bytes"],
                "threads": node["threads"],
            }
        )
    return {
        "format": machines.plan["format"],
        "stages": machines.plan["stages"],
        "why": list(gathered.why),
        "nodes": nodes,
        "links": links_json(machines.links, session.engine.nodes),
    }


def links_json(links: Sequence[dict[str, Any]], nodes: Sequence[NodeInfo]) -> list[dict[str, Any]]:
    """The links, each with the ``address`` that carries it where a node had a choice of several,
    and with the ``routes`` that there were, soonest first (seconds there and back)."""
    taken = {(one.rank, rank): one.routes for rank, node in enumerate(nodes) for one in node.routes}
    told = []
    for link in links:
        routes = taken.get((link["nodes"][0], link["nodes"][1]), ())
        told.append(
            {
                **link,
                "address": routes[0].address if routes else None,
                "routes": [{"address": one.address, "seconds": one.seconds} for one in routes],
            }
        )
    return told
