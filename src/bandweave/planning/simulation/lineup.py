"""PlannedLineup: a replica's machines, planned anew for whichever of them are up. Pure.

Asks the search; what was found for a set of machines is kept, and for equal machines it is the
number that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.deployment import Network
from bandweave.planning.machines.rates import LinkRates
from bandweave.planning.search.layout import Question, Setup
from bandweave.planning.search.search import Plan, find_plans
from bandweave.planning.simulation.exchange import crowd_factor
from bandweave.planning.simulation.server import PlannedServer
from bandweave.planning.simulation.takeover import Arrangement, Holding


class PlannedLineup:
    """Of a setup's machines the last ``spares`` stand by until they are needed."""

    def __init__(self, question: Question, setup: Setup, spares: int = 0) -> None:
        self._question, self._setup, self._spares = question, setup, spares
        self._plans: dict[tuple[object, ...], Plan | None] = {}
        self._arrangements: dict[tuple[int, ...], Arrangement | None] = {}

    @property
    def machines(self) -> Sequence[str]:
        return [node.name for node in self._setup.nodes]

    @property
    def wanted(self) -> int:
        """How many machines work where all are up."""
        return len(self._setup.nodes) - self._spares

    def plan(self, up: frozenset[int]) -> Plan | None:
        """The best plan of the first of them, as many as are wanted; its machines are numbers
        among those."""
        chosen = self._chosen(up)
        key = self._key(chosen)
        if key not in self._plans:
            answer = find_plans(self._question, self._among(chosen)) if chosen else None
            self._plans[key] = None if answer is None else answer.best
        return self._plans[key]

    def arrange(self, up: frozenset[int]) -> Arrangement | None:
        chosen = self._chosen(up)
        if chosen not in self._arrangements:
            plan = self.plan(up)
            self._arrangements[chosen] = None if plan is None else _arranged(plan, chosen)
        return self._arrangements[chosen]

    def _chosen(self, up: frozenset[int]) -> tuple[int, ...]:
        return tuple(sorted(up)[: self.wanted])

    def _key(self, chosen: tuple[int, ...]) -> tuple[object, ...]:
        if any(network.links for network in self._setup.networks):
            return chosen  # which machines they are tells how they are joined
        return tuple(self._setup.nodes[one].name for one in chosen)

    def _among(self, chosen: tuple[int, ...]) -> Setup:
        return replace(
            self._setup,
            nodes=tuple(self._setup.nodes[one] for one in chosen),
            kinds=tuple(self._setup.kinds[one] for one in chosen) if self._setup.kinds else (),
            titles=tuple(self._setup.titles[one] for one in chosen) if self._setup.titles else (),
            networks=tuple(_numbered_anew(each, chosen) for each in self._setup.networks),
        )


def server_of(plan: Plan) -> PlannedServer:
    """With what the exchange takes longer where many take part."""
    return PlannedServer(plan.deployment, crowd_factor(plan.deployment, plan.question.streams))


def _arranged(plan: Plan, chosen: Sequence[int]) -> Arrangement:
    deployment = plan.deployment
    needs = capacity(deployment, plan.question.decoding).nodes
    layers = len(deployment.model.layers)
    holdings = {}
    for stage in deployment.stages:
        whole = float(sum(stage.shares))
        start = 0.0
        for node, share in zip(stage.nodes, stage.shares, strict=True):
            stop = start + float(share) / whole
            holdings[chosen[plan.machines[node]]] = Holding(
                layers=(stage.layers.start / layers, stage.layers.stop / layers),
                share=(start, stop),
                weight_bytes=needs[node].weight_bytes,
            )
            start = stop
    return Arrangement(server=server_of(plan), holdings=holdings)


def _numbered_anew(network: Network, chosen: Sequence[int]) -> Network:
    if not network.links:
        return network
    links: dict[tuple[int, int], LinkRates] = {}
    for i, a in enumerate(chosen):
        for j, b in enumerate(chosen[:i]):
            links[(j, i)] = network.link(b, a)
    return replace(network, links=links)
