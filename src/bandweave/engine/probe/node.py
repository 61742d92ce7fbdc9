"""The node's side of a probe: measures its machine or its links when the controller says so.

Messages: ``probe`` with ``what`` ``"machine"`` or ``"links"``, any number of them, ``shutdown``.
"""

from __future__ import annotations

from typing import Any

from bandweave.engine.context import NodeContext
from bandweave.engine.joining import meet
from bandweave.engine.machine import usable_cpus
from bandweave.engine.probe.links import Schedule, probe_pairs
from bandweave.engine.probe.machine import Scope, probe_machine
from bandweave.engine.probe.stopwatch import Setting
from bandweave.mesh.channel import ChannelClosed
from bandweave.planning.record import from_json, to_json


def serve_probe(context: NodeContext, message: dict[str, Any]) -> None:
    """Serves a probe from its first message to the end of the session."""
    cpus = usable_cpus()  # before any thread is pinned
    while message.get("type") == "probe":
        if message["what"] == "machine":
            _machine(context, message, cpus)
        else:
            _links(context, message, len(cpus))
        try:
            message = context.channel.receive()
        except ChannelClosed:
            return


def _machine(context: NodeContext, message: dict[str, Any], cpus: tuple[int, ...]) -> None:
    threads = message["threads"] or context.threads or len(cpus)
    threads = min(threads, len(cpus))

    def report(done: int, total: int) -> None:
        context.channel.send({"type": "progress", "done": done, "total": total})

    profile = probe_machine(
        threads=threads,
        setting=Setting(cpus=cpus if message["pin"] and threads == len(cpus) else (),
                        isa=context.isa or message["isa"]),
        scope=from_json(Scope, message["scope"], "the scope"),
        on_progress=report,
    )  # fmt: skip
    context.channel.send({"type": "probed", "machine": to_json(profile)})


def _links(context: NodeContext, message: dict[str, Any], num_cpus: int) -> None:
    names = message["names"]
    addresses = [(str(host), int(port)) for host, port in message["addresses"]]
    mesh = meet(
        context,
        names,
        addresses,
        stall_seconds=message["stall_seconds"],
        spin=message["spin"],
        shared=message["shared"],
    )
    if mesh is None:
        raise ValueError("a link has two ends, but one node was named")
    schedule = from_json(Schedule, message["schedule"], "the schedule")
    done = 0

    def transport_of(peer: int) -> str:
        return "shared" if peer in mesh.sharing else "tcp"

    def report() -> None:
        nonlocal done
        done += 1
        context.channel.send({"type": "progress", "done": done, "total": message["num_pairs"]})

    found = probe_pairs(
        context.node,
        mesh.exchange,
        schedule,
        Setting(
            cpus=tuple(message["cpus"]), isa=context.isa or message["isa"], spin=message["spin"]
        ),
        transport_of=transport_of,
        on_pair=report,
    )
    mesh.exchange.leave()
    links = [{"pair": list(pair), "link": to_json(link)} for pair, link in found.items()]
    context.channel.send({"type": "probed", "links": links})
