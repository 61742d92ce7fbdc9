"""The node's side of a probe: measures its machine or its links when the controller says so.

Messages: ``probe_machine`` any number of times, or ``probe_links`` once, then ``shutdown``.
"""

from __future__ import annotations

from typing import Any

from bandweave.host.machine import usable_cpus
from bandweave.mesh.channel import ChannelClosed
from bandweave.messages import Progress, decode, encode
from bandweave.nodes.context import NodeContext
from bandweave.nodes.joining import Members, Mesh, meet
from bandweave.probing.links import probe_pairs
from bandweave.probing.machine import probe_machine
from bandweave.probing.messages import (
    MeasuredLink,
    MeasuredLinks,
    MeasuredMachine,
    ProbeLinks,
    ProbeMachine,
)
from bandweave.probing.stopwatch import Setting

PROBES = (ProbeMachine.TYPE, ProbeLinks.TYPE)


def serve_probe(context: NodeContext, message: dict[str, Any]) -> None:
    """Serves a probe from its first message to the end of the session. ``MessageError`` for a
    message that makes no sense."""
    cpus = usable_cpus()  # before any thread is pinned
    # To the end of the session: a node that closed its links at once would break those that still
    # measure, where what it was sent and has not read makes the system forget its last word.
    kept: list[Mesh] = []
    while message.get("type") in PROBES:
        if message["type"] == ProbeMachine.TYPE:
            _machine(context, decode(ProbeMachine, message), cpus)
        else:
            kept.append(_links(context, decode(ProbeLinks, message)))
        try:
            message = context.channel.receive()
        except ChannelClosed:
            return


def _machine(context: NodeContext, asked: ProbeMachine, cpus: tuple[int, ...]) -> None:
    threads = min(asked.threads or context.threads or len(cpus), len(cpus))
    pinned = cpus if asked.pin and threads == len(cpus) else ()
    profile = probe_machine(
        threads=threads,
        setting=Setting(cpus=pinned, isa=context.isa or asked.isa),
        scope=asked.scope,
        on_progress=lambda done, total: _report(context, done, total),
    )
    context.channel.send(encode(MeasuredMachine(machine=profile)))


def _links(context: NodeContext, asked: ProbeLinks) -> Mesh:
    mesh = meet(
        context,
        Members(
            meeting=asked.links.meeting(1),
            cipher=asked.links.cipher,
            nodes=tuple(range(len(asked.names))),
            names=asked.names,
            addresses=asked.addresses,
        ),
        stall_seconds=asked.stall_seconds,
        spin=asked.spin,
        shared=asked.shared,
    )
    assert mesh is not None, "a link has two ends"
    num_pairs = sum(1 for _ in asked.schedule.pairs)
    done = 0

    def transport_of(peer: int) -> str:
        return "shared" if peer in mesh.sharing else "tcp"

    def count() -> None:
        nonlocal done
        done += 1
        _report(context, done, num_pairs)

    found = probe_pairs(
        context.node,
        mesh.exchange,
        asked.schedule,
        Setting(cpus=asked.cpus, isa=context.isa or asked.isa, spin=asked.spin),
        transport_of=transport_of,
        on_pair=count,
    )
    mesh.exchange.leave()
    links = tuple(MeasuredLink(pair=pair, link=link) for pair, link in found.items())
    context.channel.send(encode(MeasuredLinks(links=links)))
    return mesh


def _report(context: NodeContext, done: int, total: int) -> None:
    context.channel.send(encode(Progress(done=done, total=total)))
