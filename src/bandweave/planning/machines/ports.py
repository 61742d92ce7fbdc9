"""Ports: how machines can be joined as they are sold. Pure but for packaged data.

Knows which Ethernet a machine has, which cable (Thunderbolt, USB4) and how many sockets for it, and
whether it takes network cards. Knows no rates: those are ``links``'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from bandweave.planning.machines.hardware import Hardware
from bandweave.planning.machines.links import find_link, link_names, link_needs
from bandweave.planning.machines.tables import required, rows

#: Cables by their generation: two machines talk as fast as the older one.
_CABLES = ("thunderbolt-3", "thunderbolt-4", "usb4", "thunderbolt-5")
#: What joins machines over their own cable, whatever that is.
_CABLE_WORDS = ("thunderbolt", "thunderbolt-bridge", "thunderbolt-tcp", "tb", "cable", "usb4")
_RDMA_WORDS = ("thunderbolt-rdma", "tb-rdma", "rdma")
#: A cable without a word of how machines talk over it: as fast as both can.
_PLAIN_CABLES = ("thunderbolt-5", "tb5", "thunderbolt5", "tb-5")
_NO_CARDS = ("apple", "apu", "gb10", "sbc")  # kinds that are whole machines
_ADAPTED = 3.5e9  # bytes/s; up to here there are Ethernet adapters for a Thunderbolt port


@dataclass(frozen=True, kw_only=True)
class Ports:
    """``ethernet``: the link of its own port; ``cable``: of its Thunderbolt or USB4 sockets,
    ``""`` where that is not known, None where it has none; ``cable_ports``: how many."""

    ethernet: str
    cable: str | None
    cable_ports: int
    slots: bool


def ports_of(machine: Hardware) -> Ports:
    """The ports of a machine; of a card those of the machines that it usually sits in."""
    return _ports(machine.name.partition(" with ")[0], machine.kind)


def slowest_port(hardware: Sequence[Hardware]) -> Hardware:
    """The machine whose own Ethernet port is the slowest: it decides for all."""
    return min(hardware, key=lambda m: find_link(ports_of(m).ethernet).bytes_per_s.likely)


def own_link_name(text: str, hardware: Sequence[Hardware]) -> str | None:
    """The link that a word means on these machines: ``thunderbolt`` or ``usb4`` is what their
    sockets have in common, by IP; ``thunderbolt-rdma`` the same by RDMA; ``thunderbolt-5`` alone is
    RDMA where all have that. None for other words, and where it is what the catalogue calls so;
    ``ValueError`` where a machine has no such socket."""
    word = re.sub(r"[\s_]+", "-", text.strip().lower())
    if word in _PLAIN_CABLES:
        return remote_memory_link("thunderbolt-5-tcp", hardware)
    if word not in (*_CABLE_WORDS, *_RDMA_WORDS):
        return None
    cables = []
    for machine in hardware:
        cable = ports_of(machine).cable
        if cable is None:
            raise ValueError(
                f"{machine.name} has no Thunderbolt or USB4 port, so --link {text} cannot join it; "
                f"{_instead(hardware)}"
            )
        cables.append(cable or "thunderbolt-4")
    oldest = min(cables, key=_CABLES.index)
    if word in _RDMA_WORDS:
        if oldest == "thunderbolt-5" and all(machine.kind == "apple" for machine in hardware):
            return "thunderbolt-5-rdma"
        raise ValueError(
            f"--link {text}: these machines have no RDMA over their cable, which Macs with "
            "Thunderbolt 5 have from macOS 26.2 on; `--link thunderbolt` is IP over the cable, "
            "`--link usb4-rdma` a module for Linux"
        )
    return f"{oldest}-tcp"


def remote_memory_link(name: str, hardware: Sequence[Hardware]) -> str | None:
    """The link by remote memory access over the very ports that a link by IP uses, where these
    machines have it as they are sold: Macs with Thunderbolt 5, and DGX Spark's network ports."""
    if name == "thunderbolt-5-tcp":
        other = "thunderbolt-5-rdma"
    elif all(machine.kind == "gb10" for machine in hardware):
        other = name.replace("ethernet-", "roce-")
    else:
        return None
    known = other != name and other in link_names()
    return other if known and not why_not_joined(other, hardware) else None


def why_not_joined(name: str, hardware: Sequence[Hardware]) -> str:
    """Why a link of the catalogue cannot join these machines, for what is known of them; empty
    where it can."""
    needs = link_needs(name)
    for machine in hardware:
        cable = ports_of(machine).cable
        reason = ""
        if needs in _CABLES or needs.endswith("-rdma"):
            if cable is None:
                reason = f"{machine.name} has no Thunderbolt or USB4 port"
            elif needs == "thunderbolt-5" and cable not in ("", "thunderbolt-5"):
                reason = f"{machine.name} has {_said(cable)}"
            elif needs == "thunderbolt-5-rdma" and not (
                machine.kind == "apple" and cable == "thunderbolt-5"
            ):
                reason = (
                    f"{machine.name} has no RDMA over Thunderbolt, which is there between Macs "
                    "with Thunderbolt 5 (macOS 26.2 or newer)"
                )
        elif needs == "rdma" and machine.kind == "apple":
            reason = f"{machine.name} has no RDMA over Ethernet or InfiniBand: macOS offers none"
        elif needs in ("bus", "nvlink") and machine.kind in _NO_CARDS:
            reason = f"{name} joins cards inside one machine, and {machine.name} is a machine"
        if reason:
            return f"{reason}; {_instead(hardware)}"
    if needs in ("usb4-rdma", "usb4") and all(m.kind == "apple" for m in hardware):
        return f"{name} needs Linux on one side at least; {_instead(hardware)}"
    return ""


def links_between(hardware: Sequence[Hardware]) -> tuple[str, ...]:
    """The links of the catalogue that these machines have, or can be given by an adapter or a
    card: what is worth comparing."""
    cards = all(machine.is_card for machine in hardware)
    ports = [ports_of(machine) for machine in hardware]
    slots = all(port.slots for port in ports)
    result = []
    for name in link_names():
        needs, rate = link_needs(name), find_link(name).bytes_per_s.likely
        if needs in ("bus", "nvlink"):
            fits = cards and (needs == "bus" or _has_nvlink(hardware))
        elif cards:
            fits = name in ("ethernet-10g", "ethernet-25g", "roce-100g", "infiniband-400g")
        elif needs in _CABLES or needs.endswith("-rdma"):
            fits = all(port.cable for port in ports) and not why_not_joined(name, hardware)
            fits = fits and (needs.endswith("-rdma") or name == own_link_name("cable", hardware))
        elif needs == "slot":
            fits = slots or rate <= _ADAPTED and all(port.cable for port in ports)
        elif needs == "rdma":
            fits = slots and not why_not_joined(name, hardware)
        elif needs == "port":
            fits = name.startswith("ethernet-") and "100m" not in name
        else:
            fits = needs in ("air", "powerline") or name == "wan"
        if fits:
            result.append(name)
    return tuple(result)


def most_cabled(name: str, hardware: Sequence[Hardware]) -> int | None:
    """How many of these machines can each have a cable of this kind to all others; None where a
    switch or a medium joins any number."""
    if link_needs(name) not in (*_CABLES, "usb4-rdma", "thunderbolt-5-rdma"):
        return None
    known = [ports_of(machine) for machine in hardware if ports_of(machine).cable]
    return min((port.cable_ports for port in known), default=8) + 1


def _has_nvlink(hardware: Sequence[Hardware]) -> bool:
    return all(machine.kind == "nvidia-dc" for machine in hardware)


def _instead(hardware: Sequence[Hardware]) -> str:
    ethernet = ports_of(slowest_port(hardware)).ethernet
    cables = [ports_of(machine).cable for machine in hardware]
    own = ""
    if all(cables):
        oldest = min((cable for cable in cables if cable), key=_CABLES.index)
        own = f" or {oldest}-tcp"
    return (
        f"they have {ethernet}{own}; for a link that is only imagined give its "
        "'latency=30us,bandwidth=10Gbit/s'"
    )


def _said(cable: str) -> str:
    return "USB4" if cable == "usb4" else cable.replace("thunderbolt-", "Thunderbolt ")


@lru_cache(maxsize=512)
def _ports(name: str, kind: str) -> Ports:
    for row in rows("ports"):
        if fnmatchcase(name, row["pattern"]) or fnmatchcase(f"kind:{kind}", row["pattern"]):
            cable = row["cable"]
            return Ports(
                ethernet=row["ethernet"],
                cable=None if cable == "none" else cable,
                cable_ports=int(required(row, "cable_ports")),
                slots=row["slots"] == "1",
            )
    raise AssertionError(f"ports.csv has no row for {name} of kind {kind}")
