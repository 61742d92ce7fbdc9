"""The controller's side of a probe: starts nodes, has them measure, gathers a profile.

Machines of their own are measured at the same time, nodes of one machine in turn. Knows messages;
measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bandweave.executors.executor import StepError
from bandweave.handshake.encryption import AUTO
from bandweave.host.machine import usable_cpus
from bandweave.mesh.address import format_address, is_loopback
from bandweave.mesh.channel import ChannelClosed
from bandweave.mesh.printable import printable
from bandweave.messages import M, MessageError, Progress, decode, encode
from bandweave.nodes.context import STALL_SECONDS
from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.launcher import Launcher
from bandweave.nodes.local_launcher import LocalLauncher
from bandweave.nodes.node_handle import LONGEST_REASON, NodeHandle
from bandweave.planning.profile.link_profile import LinkProfile
from bandweave.planning.profile.profile import (
    HERE,
    HERE_SHARED,
    HERE_TCP,
    MachineProfile,
    Profile,
    link_name,
)
from bandweave.probing.links import Schedule
from bandweave.probing.machine import Scope
from bandweave.probing.messages import (
    MeasuredLinks,
    MeasuredMachine,
    ProbeLinks,
    ProbeMachine,
)

_PATIENCE_SECONDS = 300.0  # between two signs of life

OnProgress = Callable[[str, int, int], None]  # what is measured, parts done, and in all


def _quiet(what: str, done: int, total: int) -> None: ...


def probe_here(
    *,
    nodes: int = 1,
    threads: int | None = None,
    isa: str = "",
    scope: Scope | None = None,
    schedule: Schedule | None = None,
    on_progress: OnProgress = _quiet,
) -> Profile:
    """This machine's profile, and with several ``nodes`` the links between its processes: over
    shared memory and over TCP. ``OSError`` or ``StepError`` where a node fails."""
    with LocalLauncher() as launcher:
        handles = launcher.start(1)
        _ask_machine(handles[0], threads, isa, scope or Scope(), pin=True)
        machine = _await_machine(handles[0], "this machine", on_progress)
    links: dict[str, LinkProfile] = {}
    if nodes > 1:
        for shared in (True, False):
            with LocalLauncher() as launcher:
                name = HERE_SHARED if shared else HERE_TCP
                found = _probe_links(
                    launcher, nodes, isa, schedule, shared=shared, on_progress=on_progress
                )
                links[name] = found[0, 1]
    return Profile(machines={HERE: machine}, links=links)


def probe_hosts(
    addresses: Sequence[str],
    secret: bytes,
    *,
    threads: int | None = None,
    isa: str = "",
    scope: Scope | None = None,
    schedule: Schedule | None = None,
    links_only: bool = False,
    machines_only: bool = False,
    encryption: str = AUTO,
    on_progress: OnProgress = _quiet,
    launcher: HostLauncher | None = None,
) -> Profile:
    """The profiles of the machines whose workers listen at ``addresses``, and of the link between
    every two (``links_only``, ``machines_only``: these alone), as ``encryption`` has it.
    ``launcher``: what starts their nodes, at those very addresses, where that is no plain one.
    Errors as ``probe_here``; ``ValueError`` for addresses that make no sense."""
    machines: dict[str, MachineProfile] = {}
    links: dict[str, LinkProfile] = {}
    launcher = launcher or HostLauncher(addresses, secret, encryption=encryption)
    names = [format_address(address) for address in launcher.addresses]
    if not links_only:
        with launcher:
            handles = launcher.start(len(names))
            for wave in _waves([address[0] for address in launcher.addresses]):
                for node in wave:
                    _ask_machine(handles[node], threads, isa, scope or Scope(), pin=False)
                for node in wave:
                    machines[names[node]] = _await_machine(handles[node], names[node], on_progress)
    if len(names) > 1 and not machines_only:
        with launcher:
            found = _probe_links(
                launcher, len(names), isa, schedule, shared=True, on_progress=on_progress
            )
        links = {link_name(names[a], names[b]): link for (a, b), link in found.items()}
    return Profile(machines=machines, links=links)


def _waves(hosts: Sequence[str]) -> list[list[int]]:
    """Nodes that may be measured at once: one of each host."""
    hosts = ["here" if is_loopback(host) else host for host in hosts]
    number = [hosts[:node].count(host) for node, host in enumerate(hosts)]
    return [[n for n, k in enumerate(number) if k == wave] for wave in range(max(number) + 1)]


def _ask_machine(
    handle: NodeHandle, threads: int | None, isa: str, scope: Scope, *, pin: bool
) -> None:
    asked = ProbeMachine(threads=threads or 0, pin=pin, isa=isa, scope=scope)
    handle.channel.send(encode(asked))


def _await_machine(handle: NodeHandle, name: str, on_progress: OnProgress) -> MachineProfile:
    what = f"{name}: processors and memory"
    return _await(handle, MeasuredMachine, what, on_progress).machine


def _probe_links(
    launcher: Launcher,
    num_nodes: int,
    isa: str,
    schedule: Schedule | None,
    *,
    shared: bool,
    on_progress: OnProgress,
) -> dict[tuple[int, int], LinkProfile]:
    handles = launcher.start(num_nodes)
    local = isinstance(launcher, LocalLauncher)
    cpus = usable_cpus()
    each = max(1, len(cpus) // num_nodes)
    pinned = local and each * num_nodes == len(cpus)
    for handle in handles:
        asked = ProbeLinks(
            names=tuple(one.name for one in handles),
            addresses=tuple(one.address for one in handles if one.address is not None),
            schedule=schedule or Schedule(num_nodes=num_nodes),
            cpus=(cpus[handle.node * each],) if pinned else (),
            isa=isa,
            spin=not local or num_nodes <= len(cpus),
            stall_seconds=STALL_SECONDS,
            shared=shared,
            links=launcher.link_encryption(),
        )
        handle.channel.send(encode(asked))
    found: dict[tuple[int, int], LinkProfile] = {}
    medium = "links" if not local else "shared memory" if shared else "TCP of this machine"
    for handle in handles:
        for one in _await(handle, MeasuredLinks, medium, on_progress).links:
            found[one.pair] = one.link
    if set(found) != {(a, b) for b in range(num_nodes) for a in range(b)}:
        raise StepError(f"{len(found)} of the links between {num_nodes} nodes were measured")
    return found


def _await(handle: NodeHandle, kind: type[M], what: str, on_progress: OnProgress) -> M:
    while True:
        try:
            message = handle.receive(_PATIENCE_SECONDS)
        except TimeoutError as error:
            raise StepError(str(error)) from None
        except ChannelClosed:
            handle.wait(1.0)
            reason = handle.exit_reason() or "closed its connection"
            raise StepError(f"{handle.name} {reason}") from None
        if message.get("type") == "failed":
            reason = f"{handle.name}: {printable(message.get('reason'), LONGEST_REASON)}"
            raise ValueError(reason) if message.get("mistake") else StepError(reason)
        try:
            if message.get("type") != Progress.TYPE:
                return decode(kind, message)
            progress = decode(Progress, message)
        except MessageError as error:
            sentence = f"{handle.name} sent a message that makes no sense: {error}"
            raise StepError(sentence) from error
        on_progress(what, progress.done, progress.total)
