"""The two columns of every answer: the best software that exists, and bandweave, today.

From hardware, links and software to the setups that the search takes; and, apart from both, what
the hardware would allow if some software did it. Pure but for packaged data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bandweave.formats.names import WEIGHT_FORMATS
from bandweave.planning.costs.deployment import BANDWEAVE, EngineTraits, Network
from bandweave.planning.costs.efficiency import (
    bandweave_rates,
    limit_rates,
    rates_beside,
    widened,
)
from bandweave.planning.costs.software import (
    ANY,
    BANDWEAVE_NAME,
    Software,
    find_software,
    software_names,
)
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
_STAND_IN = 1.2  # a factor of what is not known where another engine's measurements stand in


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What a user has or thinks of buying. ``links``: what may join them all, the quickest counts;
    ``pairs``: what joins these two instead. ``assumed``: nobody named a link.

    ``profiled``: rates that were measured, by machine, instead of the catalogue's. ``engine``: the
    software that is asked for, or ``"any"``."""

    hardware: tuple[Hardware, ...]
    links: tuple[LinkRates, ...]
    pairs: tuple[tuple[int, int, LinkRates], ...] = ()
    assumed: bool = False
    profiled: tuple[NodeRates | None, ...] = ()
    engine: str = ANY

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
    """What the hardware would allow, whether or not software does it."""
    return Setup(
        nodes=tuple(
            machines.measured(index) or limit_rates(each)
            for index, each in enumerate(machines.hardware)
        ),
        networks=_networks(machines),
        engine=ANY_ENGINE,
        kinds=tuple(each.kind for each in machines.hardware),
    )


def software_setup(software: Software, question: Question, machines: Machines) -> Setup | None:
    """What one program can do there; None where it runs on none of the machines, or not the
    model. Machines that it does not run on are no part of any split."""
    if not software.runs(question.model):
        return None
    if software.beside_host and not software.on and not question.model.has_experts:
        return None
    machines = _seen_by(software, machines)
    nodes, kinds = [], []
    for index, each in enumerate(machines.hardware):
        rates = _rates(software, each, machines.measured(index))
        nodes.append(rates or limit_rates(each))
        kinds.append("" if rates is None else _kind(each))
    if not any(kinds):
        return None
    used = [each.kind for each, kind in zip(machines.hardware, kinds, strict=True) if kind]
    names = tuple(each.name for each in machines.hardware)
    inside = len(machines.hardware) > 1 and all(_is_bus(link) for link in machines.links)
    remote = all(_remote_memory(link) for link in machines.links)
    return Setup(
        nodes=tuple(nodes),
        networks=_networks(machines),
        engine=replace(
            software.traits(inside=inside, kinds=used),
            tensor_untried=not (remote or inside) and software.tensor_over_rdma,
        ),
        whole_experts=software.whole_experts,
        rules=software.rules(remote_memory=remote, inside=inside),
        kinds=tuple(kinds),
        titles=names,
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
        nodes=tuple(rates),
        networks=_networks(machines),
        engine=BANDWEAVE,
        whole_experts=False,
        kinds=tuple(each.kind for each in hardware),
    )


def engine_answer(question: Question, machines: Machines, name: str) -> Answer | None:
    """What one program does there, by name (bandweave included); None where it cannot."""
    if name == BANDWEAVE_NAME:
        setup = bandweave_setup(machines)
        if setup is None or question.model.why_not_run(question.context):
            return None
        return find_plans(bandweave_question(question), setup)
    setup = software_setup(find_software(name), question, machines)
    return None if setup is None else find_plans(question, setup)


def engine_answers(question: Question, machines: Machines) -> list[Answer]:
    """What software does there today, the quickest first: that which ``machines.engine`` asks for
    alone, else all of it. Their names are their ``setup.engine.name``."""
    names = software_names() if machines.engine == ANY else (machines.engine,)
    found = (engine_answer(question, machines, name) for name in names)
    return sorted(
        (answer for answer in found if answer is not None), key=lambda answer: answer.best.seconds
    )


def best_answer(question: Question, machines: Machines) -> Answer | None:
    """The best that software does there today."""
    return next(iter(engine_answers(question, machines)), None)


def both_columns(
    question: Question, machines: Machines, answers: Sequence[Answer] | None = None
) -> tuple[Answer | None, Answer | None]:
    """The best software today, and bandweave today (None also where it does not run the model).

    bandweave is both where nothing else runs there, or where it is the quickest and that was
    measured: what is assumed of it does not win over what others measured. For cards it is never
    the first: it uses none. ``answers``: ``engine_answers``, where they are known."""
    answers = engine_answers(question, machines) if answers is None else answers
    limit = next(iter(answers), None)
    if machines.engine == BANDWEAVE_NAME:
        return limit, limit
    today = engine_answer(question, machines, BANDWEAVE_NAME)
    if (
        today is not None
        and machines.engine == ANY
        and not any(each.is_card for each in machines.hardware)
        and today.question.weights.name == question.weights.name
        and (limit is None or _measured_best(machines, limit, today))
    ):
        return today, today
    return limit, today


def _measured_best(machines: Machines, other: Answer, own: Answer) -> bool:
    """Whether bandweave is the quickest by measurements of these very machines."""
    measured = all(machines.measured(index) for index in range(len(machines.hardware)))
    return measured and own.best.seconds < other.best.seconds


def would_allow(question: Question, machines: Machines) -> Answer | None:
    """What the hardware would allow with software that wastes nothing, whether there is any."""
    return find_plans(question, limit_setup(machines))


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


def _seen_by(software: Software, machines: Machines) -> Machines:
    """The machines as a program sees them: cards in a machine are nodes of their own for one that
    does not compute on the processor beside them."""
    if software.beside_host or not any(each.cards for each in machines.hardware):
        return machines
    hardware, owners = [], []
    for index, each in enumerate(machines.hardware):
        used = [card for card in each.cards if card.kind in software.on]
        hardware += used or [replace(each, cards=(), bus="")]
        owners += [index] * max(len(used), 1)
    pairs = []
    buses = {}
    for a, first in enumerate(owners):
        for b, second in enumerate(owners[:a]):
            if first == second:
                bus = buses.setdefault(first, find_link(machines.hardware[first].bus))
                pairs.append((b, a, bus))
            else:
                named = (link for x, y, link in machines.pairs if {x, y} == {first, second})
                pairs += [(b, a, link) for link in named]
    alone = len(set(owners)) == 1
    return replace(
        machines,
        hardware=tuple(hardware),
        links=(find_link(machines.hardware[0].bus),) if alone else machines.links,
        pairs=() if alone else tuple(pairs),
        profiled=tuple(machines.measured(owner) for owner in owners),
    )


def _rates(software: Software, hardware: Hardware, measured: NodeRates | None) -> NodeRates | None:
    """A machine's rates under a program; None where it does not run on it."""
    if hardware.cards:
        usable = [name for name in software.beside_cards if _drives(name, hardware.cards)]
        if not usable or hardware.cpu_bytes_per_s is None:
            plain = replace(hardware, cards=(), bus="")
            return _rates(software, plain, measured) if software.on else None
        return rates_beside(hardware, usable[0], software.beside_host)
    label = software.on.get(hardware.kind)
    if label is None:
        return None
    if measured is not None:
        return measured
    rates = limit_rates(hardware, engine=label)
    return widened(rates, _STAND_IN) if software.stands_in(hardware.kind) else rates


def _drives(engine: str, cards: Sequence[Hardware]) -> bool:
    """Whether an engine's factors are for these cards: llama.cpp's for NVIDIA's, its Vulkan ones
    for others."""
    nvidia = all(card.kind.startswith(("geforce", "nvidia")) for card in cards)
    return nvidia == (engine == "llama.cpp")


def _kind(hardware: Hardware) -> str:
    """Cards of one maker work together, as do Apple's machines; else kinds."""
    return {"geforce": "nvidia", "nvidia-pro": "nvidia", "nvidia-dc": "nvidia"}.get(
        hardware.kind, hardware.kind
    )


def _remote_memory(link: LinkRates) -> bool:
    return any(word in link.name for word in ("rdma", "roce", "infiniband"))


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
