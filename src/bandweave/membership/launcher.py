"""MemberLauncher: nodes on the members of a cluster. Knows no models and no steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from bandweave.handshake.encryption import AUTO
from bandweave.handshake.handshake import HandshakeError
from bandweave.handshake.hello import Hello
from bandweave.membership.membership import Membership
from bandweave.membership.messages import Machine
from bandweave.mesh.address import Address, format_address, parse_address
from bandweave.mesh.routes import Route, best_routes
from bandweave.nodes.host_launcher import HostError, HostHandle, HostLauncher, OnWaiting
from bandweave.nodes.launcher import START_TIMEOUT, Candidate
from bandweave.nodes.node_handle import NodeHandle
from bandweave.run_options import MAX_NODES

Routes = Callable[[Sequence[Address]], list[Route]]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A member, and the address at which it is asked for a node."""

    machine: Machine
    address: Address


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A member that the planner left out, and why: a clause."""

    machine: Machine
    reason: str

    def is_of(self, machine: Machine) -> bool:
        """Whether that is the machine, even after it has joined again. One that has changed since,
        or been replaced, is another."""
        own = self.machine
        return machine.worker == own.worker or (
            machine.addresses,
            machine.processor,
            machine.cpus,
            machine.threads,
            machine.total_bytes,
        ) == (own.addresses, own.processor, own.cpus, own.threads, own.total_bytes)


class MemberLauncher(HostLauncher):
    """Nodes on the members that were ``chosen``, in their order. Members that come later, or come
    back, are candidates; those ``left_out`` of the plan only once a node is missing, and they are
    ``superfluous`` once none is any more."""

    def __init__(
        self,
        membership: Membership,
        chosen: Sequence[Placed],
        *,
        left_out: Sequence[LeftOut] = (),
        own: Callable[[Machine], bool] = lambda machine: True,
        connect_timeout: float = 10.0,
        start_timeout: float = START_TIMEOUT,
        on_waiting: OnWaiting = lambda name: None,
        routes: Routes = best_routes,
        encryption: str = AUTO,
    ) -> None:
        """``own``: whether a member may be one of these nodes, and not of another group."""
        super().__init__(
            [one.address for one in chosen],
            membership.secret,
            connect_timeout=connect_timeout,
            start_timeout=start_timeout,
            on_waiting=on_waiting,
            encryption=encryption,
        )
        self._membership, self._left_out, self._routes = membership, tuple(left_out), routes
        self._own = own
        self._machines = {node: one.machine for node, one in enumerate(chosen)}

    @property
    def machines(self) -> dict[int, Machine]:
        """The machine of every node that was ever started, by the node's number."""
        return dict(self._machines)

    def candidates(self) -> Sequence[Candidate]:
        """The members that run no node of ours."""
        with self._changing:
            running = {handle.node for handle in self._handles}
        there = {self._machines[node].worker for node in running if node in self._machines}
        short = len(running) < len(self.addresses)
        found, taken = [], set(running)
        for machine in self._membership.machines:
            if machine.worker in there or not self._own(machine):
                continue
            if self.why_left_out(machine) and not short:
                continue
            node = self._number(machine, taken)
            if node is None:
                break
            taken.add(node)
            address = machine.places[0]
            name = f"node {node} ({format_address(address)})"
            found.append(Candidate(node=node, name=name, address=address))
            self._machines[node] = machine
        return found

    def owns(self, machine: Machine) -> bool:
        """Whether a member may be one of these nodes, and not of another group."""
        return self._own(machine)

    def why_left_out(self, machine: Machine) -> str:
        """Why the plan has no part for a machine; empty where it has one, or where the machine came
        later."""
        return next((one.reason for one in self._left_out if one.is_of(machine)), "")

    def superfluous(self, nodes: Collection[int]) -> Collection[int]:
        """Those that were left out, once as many others are there as were chosen."""
        machines = self._machines
        over = [node for node in nodes if node in machines and self.why_left_out(machines[node])]
        return over if len(nodes) - len(over) >= len(self.addresses) else ()

    def _number(self, machine: Machine, taken: set[int]) -> int | None:
        """The number that its machine had before; else the next that nobody has."""
        for node, before in self._machines.items():
            if node not in taken and (
                before.worker == machine.worker or before.addresses == machine.addresses
            ):
                return node
        fresh = max((*self._machines, *taken), default=-1) + 1
        if fresh < MAX_NODES:
            return fresh
        return next((node for node in range(MAX_NODES) if node not in taken), None)

    def _admit(self, candidate: Candidate, timeout: float) -> NodeHandle:
        machine = self._machines[candidate.node]
        failure: HandshakeError | None = None
        for route in self._routes(machine.places):
            try:
                return self._dial(candidate.node, parse_address(route.address), timeout)
            except HandshakeError as error:
                failure = error
        raise failure or HostError(
            f"{candidate.name}: none of its addresses can be reached from here: "
            f"{', '.join(machine.addresses)}"
        )

    def _hello(self, node: int) -> Hello:
        return Hello(
            purpose="control", node=node, session=self.session, identity=self._membership.cluster
        )

    def _check(self, node: int, name: str, theirs: Hello) -> None:
        machine = self._machines.get(node)
        if machine is not None and theirs.identity != machine.worker:
            raise HostError(
                f"{name} is answered by another worker than the one that joined from "
                f"{machine.host}; does that machine share the address with another?"
            )

    def _dial(self, node: int, address: Address, timeout: float) -> HostHandle:
        handle = super()._dial(node, address, timeout)
        machine = self._machines.get(node)
        if machine is not None:
            handle.addresses = machine.places
        return handle
