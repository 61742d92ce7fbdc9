"""``bandweave status``: the machines of a cluster, and what runs on them. Knows how it is shown."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bandweave.cli import output
from bandweave.cli.options import json_option
from bandweave.shown import printable

if TYPE_CHECKING:
    from bandweave.membership.messages import Controller, Member, Status

_WIDTH = 80
_SHOWN_RECOVERIES = 5
_LONGEST = 2000


@click.command("status", short_help="Show a cluster's machines and what runs on them.")
@click.argument("head", required=False)
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE",
              help="The cluster's secret, where this machine does not know it.")  # fmt: skip
@json_option
def command(head: str | None, token_file: Path | None, as_json: bool) -> None:
    """Shows the cluster of the head at HEAD (HOST:PORT). Default: the one that is up on this
    machine, or that this machine has joined.

    A command with --cluster-listen is a head, too.
    """
    from bandweave.cli.gathering import head_and_secret
    from bandweave.membership.attendance import ask_status

    address, secret = head_and_secret(head or "", token_file)
    found = status_json(address, ask_status(address, secret))
    found["ray"] = _ray_here()
    if as_json:
        output.print_json(found)
        return
    for line in status_lines(found):
        output.print_text(line)


def _ray_here() -> dict[str, Any] | None:
    """What Ray takes of this machine, where bandweave started it here."""
    from bandweave.membership.ray_processes import ray_memory_bytes
    from bandweave.membership.records import cluster_folder, find_record

    folder = cluster_folder()
    record = find_record(folder, "ray")
    if record is None:
        return None
    return {"address": record.address, "memory_bytes": ray_memory_bytes(record)}


def status_json(address: str, status: Status) -> dict[str, Any]:
    """As ``--json`` prints it."""
    return {
        "head": address,
        "cluster": status.cluster,
        "machines": [_member(one) for one in status.members],
        "gone": [printable(one) for one in status.gone],
        "notes": {printable(who): printable(note) for who, note in status.notes.items()},
        "models": [_controller(one) for one in status.controllers],
    }


def _member(member: Member) -> dict[str, Any]:
    machine = member.machine
    return {
        "host": machine.host,
        "worker": machine.worker,
        "addresses": list(machine.addresses),
        "processor": machine.processor,
        "cpus": machine.cpus,
        "threads": machine.threads or None,
        "memory_bytes": machine.total_bytes,
        "free_bytes": machine.memory_bytes,
        "version": machine.version,
        "placed_by": machine.placed_by or None,
        "seconds": round(member.seconds, 1),
    }


def _controller(one: Controller) -> dict[str, Any]:
    """What a controller reported; its words come from another process."""
    try:
        report = json.loads(one.report or "{}")
    except (ValueError, RecursionError):
        report = {}
    report = report if isinstance(report, dict) else {}
    return {"command": printable(one.name), "pid": one.pid, "peer": one.peer, **report}


# --- as text ---


def status_lines(found: dict[str, Any]) -> list[str]:
    """At most 80 columns wide."""
    machines = found["machines"]
    count = output.count(len(machines), "machine")
    lines = [f"The head at {found['head']}: {count}."]
    workers = {
        node.get("worker"): node
        for model in found["models"]
        for node in _list(model, "nodes")
        if isinstance(node, dict)
    }
    told = [
        one
        for model in found["models"]
        for one in _list(model, "machines")
        if isinstance(one, dict)
    ]
    # Of several models what a machine is to the one that it holds comes last, and counts.
    roles = {one.get("worker"): one for one in sorted(told, key=_holds)}
    rows = [
        _row(machine, workers.get(machine["worker"]), roles.get(machine["worker"]))
        for machine in machines
    ]
    if rows:
        lines += ["", *_table(["machine", "address", "cpus", "free", "of", "holds", "for"], rows)]
    for machine in machines:
        if len(machine["addresses"]) > 1:
            lines += _folded(f"{machine['host']} is at {', '.join(machine['addresses'])}.")
    for machine in machines:
        if machine["worker"] in roles:
            lines += _role(machine, roles[machine["worker"]])
    for sentence in (*found["notes"].values(), *found["gone"][-3:]):
        lines += _folded(f"{sentence}.")
    if found["ray"] is not None:
        size = output.size(found["ray"]["memory_bytes"])
        lines += _folded(f"Ray, started here by bandweave, takes {size} of memory.")
    for model in found["models"]:
        lines += ["", *_model(model)]
    if not found["models"]:
        lines += ["", "No model runs here: bandweave serve MODEL --cluster."]
    return lines


def _holds(role: dict[str, Any]) -> bool:
    return _text(role, "role") in ("serving", "loading", "silent")


def _row(
    machine: dict[str, Any], node: dict[str, Any] | None, role: dict[str, Any] | None
) -> list[str]:
    """What a machine holds of a model, or what it is to it."""
    holds = "-" if role is None else _text(role, "role")[:8]
    if node is not None and holds not in ("spare", "left out"):
        holds = f"{100 * _number(node, 'share'):.0f}%"
    return [
        machine["host"][:13],
        machine["addresses"][0][:20],
        str(machine["threads"] or machine["cpus"]),
        output.size(machine["free_bytes"]),
        output.size(machine["memory_bytes"]),
        holds,
        output.duration(machine["seconds"]),
    ]


def _role(machine: dict[str, Any], role: dict[str, Any]) -> list[str]:
    """Why a machine holds nothing of a model, or holds some though it was left out at first."""
    who, why = f"{machine['host']} ({machine['addresses'][0]})", _text(role, "reason")
    kind = _text(role, "role")
    if kind == "left out":
        return _folded(f"{who} is left out: {why}.")
    if kind == "spare":
        return _folded(f"{who} is held ready, and takes part once another machine fails.")
    if role.get("stands_in") is True:
        state = "takes part" if _holds(role) else "will take part"
        return _folded(
            f"{who} {state} while another machine is missing; it was left out at first: {why}."
        )
    if kind in ("joining", "ready"):
        more = f": {why}" if why else ""
        return _folded(f"{who} has joined, and holds nothing of the model yet{more}.")
    return []


def _model(model: dict[str, Any]) -> list[str]:
    if "model" not in model:
        command = model["command"] or "this command"
        return _folded(f"{command} (process {model['pid']}) waits for machines, or loads.")
    streams = model.get("streams")
    streams = streams if isinstance(streams, dict) else {}
    lines = _folded(
        f"{_text(model, 'model')}: {_number(streams, 'running'):.0f} streams, "
        f"{_number(streams, 'waiting'):.0f} waiting."
    )
    for sentence in _list(model, "why"):
        lines += _folded(f"  {printable(str(sentence))[:_LONGEST]}")
    groups = [one for one in _list(model, "groups") if isinstance(one, dict)]
    for one in groups:
        lines += _group(one)
    lines += _standby(model.get("standby"))
    links = [one for one in _list(model, "links") if isinstance(one, dict)]
    rows = [_link(link, bool(groups)) for link in links]
    if rows:
        lines += ["", *_table(["link", "over", "latency", "GB/s", "way"], rows)]
    for link in links:
        lines += _routes(link, bool(groups))
    outage = model.get("outage")
    if isinstance(outage, dict):
        lines += _folded(f"Answers wait: {_text(outage, 'reason')}.")
    recoveries = [one for one in _list(model, "recoveries") if isinstance(one, dict)]
    if recoveries:
        lines += ["", f"Changes: {_number(model, 'recoveries_total'):.0f}, the last ones:"]
        for one in recoveries[-_SHOWN_RECOVERIES:]:
            lines += _recovery(one)
    return lines


def _link(link: dict[str, Any], several: bool) -> list[str]:
    nodes = _list(link, "nodes")
    latency, rate = link.get("latency_seconds"), link.get("bytes_per_s")
    group = link.get("group")
    ends = " - ".join(str(node) for node in nodes)
    return [
        f"group {_number(link, 'group'):.0f}: {ends}" if several and group is not None else ends,
        _text(link, "transport"),
        output.seconds(latency) if isinstance(latency, (int, float)) else "-",
        f"{rate / 1e9:.3g}" if isinstance(rate, (int, float)) else "-",
        _text(link, "address") if link.get("address") else "-",
    ]


def _group(one: dict[str, Any]) -> list[str]:
    """One of several groups that each hold the whole model."""
    names = ", ".join(printable(str(name))[:_LONGEST] for name in _list(one, "nodes"))
    state = f"{_number(one, 'streams'):.0f} streams"
    if one.get("serves") is not True:
        state = f"answers nobody now, {_text(one, 'reason') or 'its nodes change'}"
    return _folded(f"  Group {_number(one, 'group'):.0f} ({names}): {state}.")


def _standby(summary: object) -> list[str]:
    """What nodes hold ready beside their shares."""
    if not isinstance(summary, dict):
        return []
    reasons = [printable(str(one))[:_LONGEST] for one in _list(summary, "reasons")]
    sizes = [one for one in _list(summary, "num_bytes") if type(one) is int]
    told = f"  Standby weights in {_text(summary, 'where')}: "
    if reasons:
        return _folded(f"{told}not all is ready: {'; '.join(reasons)}.")
    if summary.get("over") is not True:
        return _folded(f"{told}not ready yet.")
    return _folded(f"{told}{output.size(sum(sizes))} ready for the loss of a node.")


def _routes(link: dict[str, Any], several: bool) -> list[str]:
    """Why a link takes the way that it takes."""
    routes = [one for one in _list(link, "routes") if isinstance(one, dict)]
    if len(routes) < 2:
        return []
    best, *others = (
        f"{_text(one, 'address')} ({output.seconds(_number(one, 'seconds'))})" for one in routes
    )
    nodes = " and ".join(str(node) for node in _list(link, "nodes"))
    if several:
        nodes += f" of group {_number(link, 'group'):.0f}"
    return _folded(f"Nodes {nodes} meet at {best}, which answers sooner than {', '.join(others)}.")


def _recovery(one: dict[str, Any]) -> list[str]:
    seconds = one.get("seconds")
    seconds = seconds if isinstance(seconds, dict) else {}
    parts = ", ".join(
        f"{name} {output.seconds(_number(seconds, name))}"
        for name in ("noticed", "planned", "loaded", "prefilled", "waited")
        if _number(seconds, name) > 0
    )
    change = f"{_number(one, 'nodes_before'):.0f} to {_number(one, 'nodes_after'):.0f} nodes"
    came = ", ".join(printable(str(name))[:_LONGEST] for name in _list(one, "newcomers"))
    went = ", ".join(printable(str(name))[:_LONGEST] for name in _list(one, "retired"))
    if came and _text(one, "kind") != "joined":
        change += f"; {came} came in"
    if went:
        change += f"; {went} went, since nobody was missing any more"
    return _folded(f"  {_text(one, 'kind')}: {_text(one, 'cause')}; {change}; {parts}.")


def _table(headings: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = []
    for line in (headings, *rows):
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip()[:_WIDTH])
    lines.insert(1, "-" * min(_WIDTH, max(map(len, lines))))
    return lines


def _folded(sentence: str) -> list[str]:
    indent = " " * (len(sentence) - len(sentence.lstrip()))
    return textwrap.wrap(sentence, _WIDTH, subsequent_indent=indent) or [""]


# Reports come from other processes: nothing of them is believed to be what it should be.


def _list(value: dict[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    return found if isinstance(found, list) else []


def _text(value: dict[str, Any], name: str) -> str:
    return printable(str(value.get(name, "")))[:_LONGEST]


def _number(value: dict[str, Any], name: str) -> float:
    found = value.get(name)
    usable = isinstance(found, (int, float)) and not isinstance(found, bool)
    return float(found) if usable else 0.0  # type: ignore[arg-type]
