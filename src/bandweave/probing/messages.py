"""Messages of a probe between a controller and its nodes; see ``messages``."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.formats.names import KV_FORMATS, WEIGHT_FORMATS
from bandweave.mesh.address import Address
from bandweave.messages import LinkEncryption, Message, Question
from bandweave.planning.profile.link_profile import LinkProfile
from bandweave.planning.profile.profile import MachineProfile
from bandweave.probing.links import Schedule
from bandweave.probing.machine import Scope
from bandweave.run_options import MAX_NODES

_MOST_ROUNDS, _MOST_SIZES, _MOST_VALUES = 1000, 64, 1 << 24
_MOST_ROWS, _MOST_BYTES = 1 << 12, 1 << 36


@dataclass(frozen=True, kw_only=True)
class MeasuredMachine(Message, type="measured_machine"):
    """What a node measured of its machine."""

    machine: MachineProfile


@dataclass(frozen=True, kw_only=True)
class ProbeMachine(Question[MeasuredMachine], type="probe_machine"):
    """Asks for a ``MeasuredMachine``: with so many ``threads`` at most, 0 for the node's own
    choice; ``pin``: one to a processor."""

    threads: int
    pin: bool
    isa: str
    scope: Scope

    def __post_init__(self) -> None:
        """``ValueError`` for what is unknown or would take for ever."""
        _check_names(self.isa)
        scope = self.scope
        for name, values, known in (
            ("weight format", scope.formats, WEIGHT_FORMATS),
            ("KV format", scope.kv_formats, KV_FORMATS),
        ):
            for value in values:
                if value not in known:
                    raise ValueError(f"{name} {value[:40]!r} is unknown; choose {', '.join(known)}")
        for name, values, most in (
            ("rounds", (scope.rounds,), _MOST_ROUNDS),
            ("rows of a step", scope.rows, _MOST_ROWS),
            ("rows together", scope.together, _MOST_ROWS),
            ("bytes of weights", (scope.streamed_bytes + 1,), _MOST_BYTES),
        ):
            if not values or not all(1 <= value <= most for value in values):
                raise ValueError(f"{list(values)[:9]} {name}; there may be 1 to {most}")


@dataclass(frozen=True, kw_only=True)
class MeasuredLink:
    """The link between two nodes, the lower id first."""

    pair: tuple[int, int]
    link: LinkProfile


@dataclass(frozen=True, kw_only=True)
class MeasuredLinks(Message, type="measured_links"):
    """The links of which a node is the first end."""

    links: tuple[MeasuredLink, ...]


@dataclass(frozen=True, kw_only=True)
class ProbeLinks(Question[MeasuredLinks], type="probe_links"):
    """Tells all nodes to meet, as ``Assignment`` does, and to measure their links."""

    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    schedule: Schedule
    cpus: tuple[int, ...]
    isa: str
    spin: bool
    stall_seconds: float
    shared: bool
    links: LinkEncryption = LinkEncryption()

    def __post_init__(self) -> None:
        """``ValueError`` for what contradicts itself or would take for ever."""
        _check_names(self.isa, *self.names)
        nodes, schedule = self.schedule.num_nodes, self.schedule
        for name, value, least, most in (
            ("nodes", nodes, 2, MAX_NODES),
            ("names", len(self.names), nodes, nodes),
            ("addresses", len(self.addresses), nodes, nodes),
            ("rounds", schedule.rounds, 1, _MOST_ROUNDS),
            ("sizes", len(schedule.sizes), 1, _MOST_SIZES),
            ("seconds of patience", self.stall_seconds, 0.01, 86400),
        ):
            if not least <= value <= most:
                raise ValueError(f"{value} {name}; there may be {least} to {most}")
        if not all(0 < port < 65536 for _, port in self.addresses):
            raise ValueError("a node's address has no port")
        if not all(0 < width * count <= _MOST_VALUES for width, count in schedule.sizes):
            raise ValueError(f"messages of no values, or of more than {_MOST_VALUES} in a step")


def _check_names(*names: str) -> None:
    if not all(name.isprintable() for name in names):
        raise ValueError("a name that cannot be printed")
