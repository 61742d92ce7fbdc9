"""What engines get out of hardware: fitted factors, and the NodeRates that follow from them.

Two columns for every machine: ``limit_rates``, what its accelerator allows with an engine that
knows it, and ``bandweave_rates``, what bandweave does there today, on the processor. Factors come
from ``data/efficiency.csv``, which ``calibration`` fits to published measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from bandweave.planning.machines.hardware import Hardware, find_hardware
from bandweave.planning.machines.links import find_link
from bandweave.planning.machines.memory import usable_bytes
from bandweave.planning.machines.rates import ANY, ComputeRate, Estimate, HostSide, NodeRates
from bandweave.planning.machines.tables import Row, number, required, rows

#: Engines that compute on the processor, whatever accelerator there is.
PROCESSOR_ENGINES = ("llama.cpp-cpu", "ik_llama.cpp", "distributed-llama", "bandweave")
#: Engines whose processor part works beside cards.
BESIDE_ENGINES = (
    "llama.cpp-beside", "ik_llama.cpp-beside", "ktransformers", "ktransformers-0.2",
    "ktransformers-0.3",
)  # fmt: skip
_TENSOR_OVER_CARDS = ("ktransformers",)
#: The engine that a limit is stated for, by kind of hardware.
LIMIT_ENGINES: Mapping[str, str] = {
    "apple": "llama.cpp", "geforce": "llama.cpp", "nvidia-pro": "llama.cpp", "gb10": "llama.cpp",
    "nvidia-dc": "gpt-fast", "instinct": "gpt-fast", "apu": "llama.cpp-vulkan",
    "radeon": "llama.cpp-vulkan", "arc": "llama.cpp-vulkan", "cpu-server": "ik_llama.cpp",
    "cpu-desktop": "llama.cpp-cpu", "sbc": "llama.cpp-cpu",
}  # fmt: skip

_INTEGER_ENGINES = ("llama.cpp", "llama.cpp-2024", "ollama")
_INTEGER_KINDS = ("geforce", "nvidia-pro", "nvidia-dc", "gb10")
_FLOPS_A_WATT = 1e12  # only scales the fitted factors
_HALF_FILLED = 30e12  # of an accelerator's peak FLOP/s, for each row of an expert that it takes
_SOCKETS_BESIDE = 0.5  # two sockets read 1.4 times what one does
_MOST_OF_PEAK = 0.98  # of a memory's bytes/s
_BUSES = 0.5  # two cards' buses bring 1.4 times what one does: both read the same memory


@dataclass(frozen=True, kw_only=True)
class Factors:
    """One class: parts of the peak, and fixed times. ``*_spread``: residuals lie within a factor
    of this in four cases of five."""

    name: str
    weight_efficiency: float  # of peak bytes/s, reading weights
    weight_16_gain: float  # beside that, of weights in 16 bits: they need no unpacking
    kv_efficiency: float  # of peak bytes/s, reading the cache
    compute_efficiency: float  # of peak dense FLOP/s, many rows, quantised weights
    compute_16_efficiency: float  # the same for weights in 16 bits
    expert_compute_efficiency: float  # of the former, for routed experts
    attention_efficiency: float  # of peak dense 16-bit FLOP/s, attention of many rows
    state_efficiency: float  # of peak bytes/s, a prompt's rows through a recurrent state
    layer_s: float
    expert_layer_s: float
    latent_layer_s: float  # beside either of them, with latent attention
    linear_layer_s: float  # beside either of them, with linear attention: many small kernels
    routing_row_s: float  # of a prompt's row in a layer that routes, whatever the FLOP/s
    score_bytes: float  # to and from memory for each query, key and head of a prompt
    bus_efficiency: float  # of a bus' rate, carrying weights to a card for a prompt
    card_speed: float  # beside cards: of what their class computes, what this engine does
    decode_spread: float
    prefill_spread: float
    decode_rows: int  # measured rows that it was fitted to
    prefill_rows: int


def factors(engine: str, kind: str) -> Factors:
    """The class of an engine on a kind of hardware; ``ValueError`` where nothing is known."""
    table = _table()
    for name in (f"{engine}/{kind}", f"{engine}/*", f"*/{kind}"):
        if name in table:
            return table[name]
    raise ValueError(f"nothing is known of {engine} on {kind}; known are {', '.join(table)}")


def engine_classes(engine: str) -> tuple[str, ...]:
    """The kinds of hardware that something is known of an engine on."""
    return tuple(name.partition("/")[2] for name in _table() if name.partition("/")[0] == engine)


def limit_rates(hardware: Hardware, *, engine: str | None = None) -> NodeRates:
    """The node as its accelerator allows, by the engine that is known to use it best."""
    if hardware.cards:
        card = LIMIT_ENGINES[hardware.cards[0].kind]
        return rates_beside(hardware, card, "ik_llama.cpp-beside")
    chosen = engine or LIMIT_ENGINES[hardware.kind]
    return rates_from_factors(hardware, factors(chosen, hardware.kind), chosen)


def bandweave_rates(hardware: Hardware) -> NodeRates | None:
    """The node as bandweave runs on it today: processor, and the memory that it reads.

    For a card that is its assumed host; cards in a machine are not used. None where the
    processor's bandwidth is not known."""
    if hardware.is_card:
        if hardware.host is None:
            return None
        host = bandweave_rates(find_hardware(hardware.host))
        return host
    if hardware.cpu_bytes_per_s is None or hardware.cpu_flop_per_s is None:
        return None
    return rates_from_factors(hardware, factors("bandweave", hardware.kind), "bandweave")


def rates_beside(hardware: Hardware, card_engine: str, host_engine: str) -> NodeRates:
    """A machine with cards in it: cards and processor each by their engine's factors."""
    return beside_from_factors(
        hardware,
        factors(card_engine, hardware.cards[0].kind),
        factors(host_engine, hardware.kind),
        card_engine,
        host_engine,
    )


def beside_from_factors(
    hardware: Hardware, card: Factors, host: Factors, card_engine: str, host_engine: str
) -> NodeRates:
    """The same under given factors. ``ValueError`` where the processor's rates are not known.

    Several cards work one after the other: together they are one with all their memory; but
    KTransformers divides tensors among them. What ``host`` calls the fixed time of a layer that
    routes is that of crossing to it and back."""
    if hardware.cpu_bytes_per_s is None:
        raise ValueError(f"nothing is known of the processor of {hardware.name}")
    # How far both together are off was measured for both together.
    card = replace(
        card,
        compute_efficiency=card.compute_efficiency * host.card_speed,
        compute_16_efficiency=card.compute_16_efficiency * host.card_speed,
        attention_efficiency=card.attention_efficiency * host.card_speed,
        decode_spread=host.decode_spread,
        prefill_spread=host.prefill_spread,
    )
    divided = len(hardware.cards) if host_engine in _TENSOR_OVER_CARDS else 1
    cards = rates_from_factors(_together(hardware.cards, divided), card, card_engine)
    plain = replace(hardware, cards=(), bus="")
    bus, spread = find_link(hardware.bus), host.decode_spread
    own = _quick_with_one_row(rates_from_factors(plain, host, host_engine))
    card_bytes = sum(usable_bytes(each, on_processor=False) for each in hardware.cards)
    return replace(
        cards,
        name=hardware.name,
        memory_bytes=card_bytes + own.memory_bytes,
        watts=hardware.measured_watts or hardware.watts,
        price_usd=hardware.price_usd,
        host=HostSide(
            node=own,
            card_bytes=card_bytes,
            crossing_s=Estimate.within(host.expert_layer_s, spread),
            bus_bytes_per_s=bus.bytes_per_s.times(host.bus_efficiency * divided**_BUSES),
        ),
        source=f"{cards.source}; {own.source}",
    )


def _quick_with_one_row(node: NodeRates) -> NodeRates:
    """A processor multiplies one row in 8-bit integers as its weights go by: what was fitted to
    prompts holds from some rows on."""
    most, few = 32, 4.0

    def rate(compute: ComputeRate) -> ComputeRate:
        many = compute.points[-1][1]
        return ComputeRate(points=((1, many.times(few)), (most, many)))

    experts = node.expert_compute
    return replace(
        node,
        compute={name: rate(compute) for name, compute in node.compute.items()},
        expert_compute=None if experts is None else rate(experts),
    )


def _together(cards: Sequence[Hardware], divided: int) -> Hardware:
    """Cards that work one after the other, each on as much as it holds, as one; or ``divided``, all
    at once."""
    memory = sum(card.memory_bytes for card in cards)

    def mean(rates: Sequence[float]) -> float:
        parts = (card.memory_bytes / rate for card, rate in zip(cards, rates, strict=True))
        return divided * memory / sum(parts)

    kinds = set.intersection(*(set(card.flop_per_s) for card in cards))
    return replace(
        cards[0],
        memory_bytes=memory,
        bytes_per_s=mean([card.bytes_per_s for card in cards]),
        flop_per_s={kind: mean([card.flop_per_s[kind] for card in cards]) for kind in kinds},
    )


def rates_from_factors(hardware: Hardware, factors: Factors, engine: str) -> NodeRates:
    """The rates of hardware under given factors; the whole spread is a factor on every rate and
    every fixed time, so that a predicted time spreads by just that much."""
    on_processor = engine in PROCESSOR_ENGINES or engine in BESIDE_ENGINES
    peak = hardware.bytes_per_s
    if on_processor:
        # Engines of today read weights where they happen to lie: two sockets are no faster than
        # one unless each has its own node. Beside cards they hold a copy for each, or a half.
        sockets = hardware.sockets
        peak = (hardware.cpu_bytes_per_s or peak) / (
            sockets**_SOCKETS_BESIDE if engine in BESIDE_ENGINES else sockets
        )
    decode, reading = factors.decode_spread, factors.prefill_spread
    integer, floating = _flops(hardware, engine, on_processor)
    quantised = Estimate.within(integer * factors.compute_efficiency, reading)
    sixteen = ComputeRate.constant(
        Estimate.within(floating * factors.compute_16_efficiency, reading)
    )
    experts = quantised.times(factors.expert_compute_efficiency)
    wide = Estimate.within(peak * _unpacked(factors), decode)
    scores = factors.score_bytes / (peak * _unpacked(factors))
    return NodeRates(
        name=hardware.name,
        memory_bytes=usable_bytes(hardware, on_processor=on_processor),
        weight_bytes_per_s={
            ANY: Estimate.within(peak * factors.weight_efficiency, decode),
            "f16": wide,
            "bf16": wide,
        },
        compute={ANY: ComputeRate.constant(quantised), "f16": sixteen, "bf16": sixteen},
        expert_compute=ComputeRate.constant(experts),
        half_filled_rows=0.0 if on_processor else integer / _HALF_FILLED,
        kv_bytes_per_s=Estimate.within(peak * factors.kv_efficiency, decode),
        attention_flop_per_s=Estimate.within(floating * factors.attention_efficiency, reading),
        state_bytes_per_s=Estimate.within(peak * factors.state_efficiency, reading),
        score_s=Estimate.within(scores, reading),
        layer_overhead_s=Estimate.within(factors.layer_s, decode),
        expert_layer_overhead_s=Estimate.within(factors.expert_layer_s, decode),
        latent_overhead_s=Estimate.within(factors.latent_layer_s, decode),
        linear_overhead_s=Estimate.within(factors.linear_layer_s, decode),
        routing_row_s=Estimate.within(factors.routing_row_s, reading),
        watts=hardware.measured_watts or hardware.watts,
        price_usd=hardware.price_usd,
        source=f"{engine} on {hardware.kind}: {factors.decode_rows} decode and "
        f"{factors.prefill_rows} prefill rows; {hardware.source}",
    )


def _unpacked(factors: Factors) -> float:
    """Of peak bytes/s, reading weights in 16 bits."""
    return min(_MOST_OF_PEAK, factors.weight_efficiency * factors.weight_16_gain)


def widened(node: NodeRates, factor: float) -> NodeRates:
    """The same rates with ranges wider by a factor up and down."""

    def wider(value: Estimate) -> Estimate:
        return Estimate(likely=value.likely, low=value.low / factor, high=value.high * factor)

    def rates(compute: ComputeRate) -> ComputeRate:
        return ComputeRate(points=tuple((rows, wider(rate)) for rows, rate in compute.points))

    experts, routing = node.expert_compute, node.expert_layer_overhead_s
    return replace(
        node,
        weight_bytes_per_s={name: wider(rate) for name, rate in node.weight_bytes_per_s.items()},
        compute={name: rates(compute) for name, compute in node.compute.items()},
        expert_compute=None if experts is None else rates(experts),
        kv_bytes_per_s=wider(node.kv_bytes_per_s),
        attention_flop_per_s=wider(node.attention_flop_per_s),
        state_bytes_per_s=wider(node.state_bytes_per_s),
        layer_overhead_s=wider(node.layer_overhead_s),
        expert_layer_overhead_s=None if routing is None else wider(routing),
        latent_overhead_s=wider(node.latent_overhead_s),
        linear_overhead_s=wider(node.linear_overhead_s),
        routing_row_s=wider(node.routing_row_s),
        score_s=wider(node.score_s),
    )


def _flops(hardware: Hardware, engine: str, on_processor: bool) -> tuple[float, float]:
    """Peak FLOP/s that products of quantised and of 16-bit weights are counted against.

    llama.cpp multiplies quantised weights in 8-bit integers where matrix units have them; vLLM and
    its like in fp8; others widen to 16 bits. What nobody published is taken from the next type.
    NVIDIA's cards are held back by their power limits while they multiply: prompts are read in
    proportion to the geometric mean of FLOP/s and watts, over a factor of four in both."""
    peaks = hardware.flop_per_s
    if on_processor:
        plain = hardware.cpu_flop_per_s or peaks.get("fp32") or 10.0 * hardware.bytes_per_s
        return plain, plain
    # Without any figure: a byte a second rarely comes with less than ten FLOP/s.
    floating = peaks.get("fp16") or peaks.get("fp32") or 10.0 * hardware.bytes_per_s
    if engine in _INTEGER_ENGINES and hardware.kind in _INTEGER_KINDS:
        integer = peaks.get("int8") or peaks.get("fp8") or 2 * floating
        return _under_power(hardware, integer), _under_power(hardware, floating)
    if engine in ("vllm", "tensorrt-llm"):
        return peaks.get("fp8") or floating, floating
    return floating, floating


def _under_power(hardware: Hardware, peak: float) -> float:
    if hardware.watts is None:
        return peak
    return (peak * hardware.watts * _FLOPS_A_WATT) ** 0.5


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Factors]:
    return {row["name"]: _factors(row) for row in rows("efficiency")}


def _factors(row: Row) -> Factors:
    return Factors(
        name=row["name"],
        weight_efficiency=required(row, "weight_efficiency"),
        weight_16_gain=required(row, "weight_16_gain"),
        kv_efficiency=required(row, "kv_efficiency"),
        compute_efficiency=required(row, "compute_efficiency"),
        compute_16_efficiency=required(row, "compute_16_efficiency"),
        expert_compute_efficiency=required(row, "expert_compute_efficiency"),
        attention_efficiency=required(row, "attention_efficiency"),
        state_efficiency=required(row, "state_efficiency"),
        layer_s=required(row, "layer_us") * 1e-6,
        expert_layer_s=required(row, "expert_layer_us") * 1e-6,
        latent_layer_s=required(row, "latent_layer_us") * 1e-6,
        linear_layer_s=required(row, "linear_layer_us") * 1e-6,
        routing_row_s=required(row, "routing_row_us") * 1e-6,
        score_bytes=required(row, "score_bytes"),
        bus_efficiency=number(row, "bus_efficiency") or 0.0,
        card_speed=number(row, "card_speed") or 1.0,
        decode_spread=required(row, "decode_spread"),
        prefill_spread=required(row, "prefill_spread"),
        decode_rows=int(required(row, "decode_rows")),
        prefill_rows=int(required(row, "prefill_rows")),
    )
