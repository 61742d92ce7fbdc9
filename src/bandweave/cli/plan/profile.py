"""``plan --profile``: machines and links that ``bandweave probe`` measured, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from bandweave.environment import read_environment
from bandweave.planning.machines.hardware import Hardware
from bandweave.planning.machines.rates import ANY, LinkRates, NodeRates
from bandweave.planning.profile.profile import HERE, Profile
from bandweave.planning.profile.profile_rates import link_rates_from_profile, rates_from_profile
from bandweave.planning.search.columns import Machines
from bandweave.serving.profile_store import read_profile

_HERE = re.compile(rf"(?:^|[+x*×]|\s){HERE}\s*(?:$|\+|\s)")
_USUAL = "q4"  # stands for formats that were not measured


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a profile knows, in the planner's terms."""

    profile: Profile
    hardware: dict[str, Hardware]
    rates: dict[str, NodeRates]


def read_probed(path: Path) -> Probed:
    """``ValueError`` where the file cannot be used, or knows no machine."""
    profile = read_profile(path)
    if not profile.machines:
        raise ValueError(f"the profile {path} knows no machine; `bandweave probe` measures them")
    rates = {name: _whole(rates_from_profile(machine, name=name))
             for name, machine in profile.machines.items()}  # fmt: skip
    hardware = {
        name: Hardware(
            name=name,
            title=f"{machine.processor}, measured",
            kind="cpu-server",
            memory_bytes=machine.memory_bytes,
            bytes_per_s=rates[name].weight_rate(_USUAL, "likely"),
            confidence="measured",
            source=rates[name].source,
        )
        for name, machine in profile.machines.items()
    }
    return Probed(profile=profile, hardware=hardware, rates=rates)


def stored_profile(texts: Sequence[str]) -> Path | None:
    """Where this machine's measurements are kept, where machines name it as ``here``.
    ``ValueError`` where nobody has measured it."""
    if not any(_HERE.search(text) for text in texts):
        return None
    path = read_environment().profile
    if path is None or HERE not in read_profile(path).machines:
        raise ValueError(
            "`here` is this machine, which has not been measured yet; run `bandweave probe`, or "
            "name the machine (`bandweave plan --list machines` shows names)"
        )
    return path


def with_measurements(machines: Machines, probed: Probed) -> Machines:
    """The machines with measured rates and links in the place of what a catalogue says.

    A link that a user names for a pair stays."""
    names = [machine.name for machine in machines.hardware]
    named = {frozenset((a, b)) for a, b, _ in machines.pairs}
    pairs: list[tuple[int, int, LinkRates]] = list(machines.pairs)
    for a, b in combinations(range(len(names)), 2):
        link = probed.profile.link(names[a], names[b]) if _known(names, a, b, probed) else None
        if link is not None and machines.assumed and frozenset((a, b)) not in named:
            title = f"measured {link.transport}"
            pairs.append((a, b, link_rates_from_profile(link, name=title)))
    return replace(
        machines,
        pairs=tuple(pairs),
        profiled=tuple(probed.rates.get(name) for name in names),
    )


def _known(names: Sequence[str], a: int, b: int, probed: Probed) -> bool:
    # Twice the same name is a second machine like it: nobody measured the way to that one.
    return names[a] != names[b] and names[a] in probed.rates and names[b] in probed.rates


def _whole(rates: NodeRates) -> NodeRates:
    """With an answer for formats that were not measured."""
    usual = _USUAL if _USUAL in rates.compute else next(iter(rates.compute))
    return replace(
        rates,
        weight_bytes_per_s={ANY: rates.weight_bytes_per_s[usual], **rates.weight_bytes_per_s},
        compute={ANY: rates.compute[usual], **rates.compute},
    )
