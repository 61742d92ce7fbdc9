"""The two columns of every answer: what hardware allows, and what bandweave does there today.

From hardware and links to the setups that the search takes. Pure but for packaged data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bandweave.formats.names import WEIGHT_FORMATS
from bandweave.planning.costs.deployment import BANDWEAVE, EngineTraits, Network
from bandweave.planning.costs.efficiency import bandweave_rates, limit_rates
from bandweave.planning.costs.weight_bytes import WeightBytes, find_format
from bandweave.planning.machines.hardware import Hardware
from bandweave.planning.machines.links import find_link, link_needs, link_shares_port
from bandweave.planning.machines.ports import most_cabled, ports_of, slowest_port
from bandweave.planning.machines.rates import LinkRates, NodeRates
from bandweave.planning.search.layout import Question, Setup
from bandweave.planning.search.search import Answer, find_plans

#: An engine that wastes nothing beside what ``efficiency`` says of its kernels: 16 bits on the
#: wire, two steps where messages are large, several groups of streams in flight, embedding rows
#: read from the file.
ANY_ENGINE = EngineTraits(
    name="any engine",
    wire_bytes_per_value=2.0,
    handover_bytes_per_value=2.0,
    overlaps_stages=True,
    chunk_rows=2048,
    embedding_in_memory=False,
)


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What a user has or thinks of buying. ``links``: what may join them all, the quickest counts;
    ``pairs``: what joins these two instead. ``assumed``: nobody named a link.

    ``profiled``: rates that were measured, by machine, instead of the catalogue's."""

    hardware: tuple[Hardware, ...]
    links: tuple[LinkRates, ...]
    pairs: tuple[tuple[int, int, LinkRates], ...] = ()
    assumed: bool = False
    profiled: tuple[NodeRates | None, ...] = ()

    @property
    def title(self) -> str:
        """``2 x m3-ultra-512 + dgx-spark``."""
        counts = Counter(machine.name for machine in self.hardware)
        return " + ".join(f"{n} x {name}" if n > 1 else name for name, n in counts.items())

    @property
    def link_title(self) -> str:
        if len(self.hardware) < 2:
            return ""
        own = [f"{a + 1}-{b + 1} by {link.name}" for a, b, link in self.pairs]
        shown = own if len(own) <= 4 else [*own[:3], f"{len(own) - 3} more pairs by their own"]
        every = [] if self.all_paired else [" or ".join(link.name for link in self.links)]
        return ", ".join([*every, *shown])

    @property
    def all_paired(self) -> bool:
        """Whether every two machines have a link of their own."""
        pairs = {frozenset((a, b)) for a, b, _ in self.pairs}
        return len(pairs) == len(self.hardware) * (len(self.hardware) - 1) // 2

    @property
    def assumption(self) -> str:
        """What was assumed of the link, in brackets; empty where it was named."""
        if not self.assumed or len(self.hardware) < 2 or self.all_paired:
            return ""
        if all(machine.is_card for machine in self.hardware):
            return " (assumed: no --link was given)"
        slowest = slowest_port(self.hardware).name
        return f" (assumed, the port that {slowest} has: no --link was given)"

    @property
    def described(self) -> str:
        """``8 x dgx-spark over roce-200g``."""
        return f"{self.title} over {self.link_title}" if self.link_title else self.title

    def measured(self, index: int) -> NodeRates | None:
        """The rates of a machine that was probed."""
        return self.profiled[index] if index < len(self.profiled) else None

    def times(self, count: int) -> Machines:
        """The first machine, ``count`` times."""
        return replace(
            self,
            hardware=self.hardware[:1] * count,
            profiled=self.profiled[:1] * count,
            pairs=(),
        )


def default_link(hardware: Sequence[Hardware]) -> LinkRates:
    """What is assumed where nobody names a link: cards sit in one machine, machines on a switch, by
    the slowest port that one of them has."""
    if all(machine.is_card for machine in hardware):
        return find_link("nvlink-4" if hardware[0].kind == "nvidia-dc" else "pcie-4")
    return find_link(ports_of(slowest_port(hardware)).ethernet)


def limit_setup(machines: Machines) -> Setup:
    """What the hardware allows."""
    return Setup(
        nodes=tuple(
            machines.measured(index) or limit_rates(each)
            for index, each in enumerate(machines.hardware)
        ),
        networks=_networks(machines),
        engine=ANY_ENGINE,
    )


def bandweave_setup(machines: Machines) -> Setup | None:
    """What bandweave does there today, on the processors; None where one's rates are not known.

    Cards on a bus sit in one machine: together they are one node."""
    hardware = machines.hardware
    inside = all(_is_bus(link) for link in machines.links)
    if inside and all(machine.is_card for machine in hardware):
        hardware = hardware[:1]
    rates = []
    for index, each in enumerate(hardware):
        found = machines.measured(index) or bandweave_rates(each)
        if found is None:
            return None
        rates.append(found)
    return Setup(
        nodes=tuple(rates), networks=_networks(machines), engine=BANDWEAVE, whole_experts=False
    )


def both_columns(question: Question, machines: Machines) -> tuple[Answer | None, Answer | None]:
    """What the hardware allows, and bandweave today (None also where it does not run the model).

    Where the processor is the quicker way, as for very small models, the hardware allows that."""
    limit = find_plans(question, limit_setup(machines))
    own = bandweave_setup(machines)
    if own is None or question.model.why_not_run(question.context):
        return limit, None
    today = find_plans(bandweave_question(question), own)
    if today is None or today.question.weights.name != question.weights.name:
        return limit, today
    if limit is None or today.best.seconds < limit.best.seconds:
        return today, today
    return limit, today


def bandweave_question(question: Question) -> Question:
    """The question in the nearest format that bandweave has."""
    return replace(question, weights=bandweave_format(question.weights))


def bandweave_format(weights: WeightBytes) -> WeightBytes:
    """The format of bandweave's own with about as many bits."""
    if weights.name in WEIGHT_FORMATS:
        return find_format(weights.name)
    bits = weights.default * 8
    return find_format("q4" if bits <= 5.2 else "q8" if bits <= 9 else "bf16")


def _networks(machines: Machines) -> tuple[Network, ...]:
    pairs = {(a, b): link for a, b, link in machines.pairs}
    return tuple(
        Network(
            default=link,
            links=pairs,
            shared_port=_shares_port(link),
            most_joined=_most_joined(link, machines.hardware),
        )
        for link in machines.links
    )


def _most_joined(link: LinkRates, hardware: Sequence[Hardware]) -> int | None:
    try:
        return most_cabled(link.name, hardware)
    except ValueError:  # a user's own, or measured
        return None


def _is_bus(link: LinkRates) -> bool:
    """Whether it joins cards of one machine."""
    try:
        return link_needs(link.name) in ("bus", "nvlink")
    except ValueError:  # a user's own
        return False


def _shares_port(link: LinkRates) -> bool:
    try:
        return link_shares_port(link.name)
    except ValueError:  # a user's own
        return True
