"""What a controller tells the head of its cluster, for whoever asks: who holds what and why, over
which links, and what goes on. Knows an open session and how its machines were gathered."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from bandweave.cluster.cluster import Cluster
from bandweave.cluster.health import NodeHealth
from bandweave.cluster.replicas import Replicas
from bandweave.engine.engine import Engine
from bandweave.engine.loading_nodes import NodeInfo
from bandweave.executors.executor import StepError
from bandweave.membership.launcher import MemberLauncher
from bandweave.membership.membership import BEAT_SECONDS
from bandweave.membership.messages import Machine
from bandweave.messages import EngineState
from bandweave.serving.engine_start import AnyEngine
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
                # The nodes may become others in the midst of a look; the next one sees them.
                with contextlib.suppress(StepError, ValueError, LookupError):
                    self._look()

    def _look(self) -> None:
        session, gathered = self._session, self._gathering.gathered
        engine, state = session.engine, self._state
        assert gathered is not None
        groups = groups_of(engine)
        # A generation that is being loaded has no nodes yet.
        now = tuple((getattr(group, "generation", 0), group.nodes) for group in groups)
        if self._planned_for != now:
            self._plan = plan_json(session, gathered)
            self._planned_for = now
        self._text = json.dumps(
            {
                "model": session.name,
                **self._plan,
                "machines": roles_json(gathered, groups, self._gathering.membership.machines),
                "streams": {
                    "running": state.running if state else 0,
                    "waiting": state.waiting if state else 0,
                },
                **cluster_json(engine if hasattr(engine, "health") else None),  # type: ignore[arg-type]
            }
        )


def groups_of(engine: AnyEngine) -> Sequence[Engine | Cluster]:
    """Each of which holds the whole model."""
    return engine.groups if isinstance(engine, Replicas) else (engine,)


def plan_json(session: Session, gathered: Gathered) -> dict[str, Any]:
    """Who holds what of the model, over which links, and why so."""
    groups = groups_of(session.engine)
    nodes, links, why = [], [], list[str]()
    plan: dict[str, Any] = {}
    for number, (group, found) in enumerate(zip(groups, gathered.groups, strict=True)):
        machines = machines_of(replace(session, engine=group))
        plan = plan or machines.plan
        nodes += [
            {**one, "group": number} for one in _nodes_json(machines.plan, found.launcher.machines)
        ]
        links += [{**one, "group": number} for one in links_json(machines.links, group.nodes)]
        name = f"group {number}: " if len(groups) > 1 else ""
        why += [f"{name}{sentence}" for sentence in gathered.replanner.why(group.options)]
    return {
        "format": plan["format"],
        "stages": plan["stages"],
        "why": why,
        "nodes": nodes,
        "links": links,
    }


def _nodes_json(plan: dict[str, Any], hosts: Mapping[int, Machine]) -> list[dict[str, Any]]:
    whole = sum(node["weight_bytes"] for node in plan["nodes"]) or 1
    nodes = []
    for node in plan["nodes"]:
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
    return nodes


def roles_json(
    gathered: Gathered, groups: Sequence[Engine | Cluster], members: Sequence[Machine]
) -> list[dict[str, Any]]:
    """What every machine of the cluster is to the model. ``role``: a node's state (see
    ``NodeHealth``); ``"joining"``, which is being connected to; or ``"left out"``. ``reason``: why,
    where it holds nothing, or though it was left out at first, as ``stands_in`` says."""
    health = [group.health().nodes if isinstance(group, Cluster) else () for group in groups]
    told = []
    for machine in members:
        one = {"worker": machine.worker, "host": machine.host, "group": 0, "role": "joining",
               "stands_in": False, "reason": ""}  # fmt: skip
        for number, found in enumerate(gathered.groups):
            launcher = found.launcher
            if not launcher.owns(machine):
                continue
            one["group"], left_out = number, launcher.why_left_out(machine)
            node = _node_of(machine, launcher, health[number])
            if node is not None and node.state != "missing":
                one |= {"role": node.state, "reason": node.reason or left_out,
                        "stands_in": bool(left_out)}  # fmt: skip
            elif left_out:
                one |= {"role": "left out", "reason": left_out}
            elif node is not None:
                one["reason"] = node.reason
        told.append(one)
    return told


def _node_of(
    machine: Machine, launcher: MemberLauncher, nodes: Sequence[NodeHealth]
) -> NodeHealth | None:
    """How it is as a node; None where it is none, and nobody has tried to make it one."""
    own = {number for number, one in launcher.machines.items() if one.worker == machine.worker}
    found = [node for node in nodes if node.node in own]
    # A number may have been another machine's before: what serves is what counts.
    return min(found, key=lambda node: node.state == "missing", default=None)


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
