"""ClusterProblem: a model that is to be divided, and the machines of a cluster that may hold it.

Knows a model's needs, machines' accounts of themselves, and what was measured of them; chooses
nothing and connects to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from bandweave.checkpoints.folder import Folder
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs
from bandweave.formats.names import PROBED_FORMATS
from bandweave.membership.messages import Machine
from bandweave.planning.profile.profile import Profile
from bandweave.programs.split import make_split
from bandweave.serving.prediction import Predictor, find_predictor
from bandweave.serving.wish import Wish

_PLANNED_IN = "q4"  # where blocks of a GGUF file stay as they are: of all, the nearest to most


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterProblem:
    """Machines are told apart by their places in ``machines``. ``names``: the addresses by which
    ``profile`` knows them; ``context``: tokens that a prompt and its answer may have together."""

    folder: Folder
    options: EngineOptions
    context: int
    wish: Wish
    machines: Sequence[Machine]
    names: Sequence[str]
    profile: Profile

    def among(self, names: Sequence[str]) -> ClusterProblem:
        """The same for some of the machines, in this order."""
        machines = dict(zip(self.names, self.machines, strict=True))
        return replace(self, names=names, machines=[machines[name] for name in names])

    def label(self, number: int) -> str:
        """A machine's name for people."""
        hosts = [machine.host for machine in self.machines]
        host = hosts[number]
        return f"{host} ({self.names[number]})" if len(set(hosts)) < len(hosts) else host

    def rooms(self) -> list[int]:
        """Bytes that each machine may take."""
        return rooms_of(self.machines)

    def needs(self, shares: Sequence[Fraction], stages: int) -> list[int]:
        """Bytes that each node of such a split takes."""
        split = make_split(self.folder.spec, shares, stages=stages)
        asked = replace(one_node(self.options), shares=tuple(shares), stages=stages)
        needs = node_needs(self.folder, split, asked, self.context)
        return [need.total_bytes for need in needs]

    def measured_options(self, numbers: Sequence[int]) -> EngineOptions:
        """The options for these machines, in a format that is measured."""
        return replace(
            self.options,
            run=replace(self.options.run, weight_format=measured_format(self.options)),
            hosts=tuple(self.names[one] for one in numbers),
            shares=(Fraction(1),) * len(numbers),
            stages=1,
        )

    def predictor(self, numbers: Sequence[int]) -> Predictor | None:
        """What to expect of these machines; None where one of them was not measured."""
        return find_predictor(self.profile, self.measured_options(numbers))

    def speeds(self) -> list[float] | None:
        """Bytes of memory a second that each machine reads; None where one was not measured."""
        predictor = self.predictor(range(len(self.machines)))
        if predictor is None:
            return None
        return [one.machine.read_bytes_per_s(one.threads) for one in predictor.nodes]


def one_node(options: EngineOptions) -> EngineOptions:
    """The options of one node of this machine."""
    return replace(options, hosts=(), shares=(Fraction(1),), stages=1)


def measured_format(options: EngineOptions) -> str:
    """The weight format in which machines are measured for these options."""
    known = options.run.weight_format in PROBED_FORMATS
    return options.run.weight_format if known else _PLANNED_IN


def rooms_of(machines: Sequence[Machine]) -> list[int]:
    """Bytes that each may take: workers of one host share its memory."""
    hosts = [machine.host_id or machine.worker for machine in machines]
    return [
        machine.memory_bytes // hosts.count(host)
        for machine, host in zip(machines, hosts, strict=True)
    ]
