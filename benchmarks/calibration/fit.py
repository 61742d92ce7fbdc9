"""Fits efficiency factors to published measurements. Pure: rows in, factors and residuals out.

A class is an engine on the kinds of hardware that behave alike there. Its few numbers are found by
a pattern search in their logarithms: the least sum of Huber losses of ``log(predicted/measured)``
plus a weak pull towards those of the class that is nearest to it (``NEAREST``), or towards common
values, so that what its rows cannot tell is taken from there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bandweave.planning.costs.cost import decode_step, prefill
from bandweave.planning.costs.deployment import EngineTraits
from bandweave.planning.costs.efficiency import Factors, beside_from_factors, rates_from_factors
from bandweave.planning.machines.rates import NodeRates
from benchmarks.calibration.measurements import Measurement, deployment_of, workload_of

#: Classes, each with the ``engine/kind`` that it covers.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "llama.cpp 2023, Apple GPU": ("llama.cpp-2023/apple",),
    "llama.cpp, Apple GPU": ("llama.cpp/apple", "llama.cpp-rpc/apple"),
    "llama.cpp 2024, Apple GPU": ("llama.cpp-2024/apple",),
    "Ollama, Apple GPU": ("ollama/apple",),
    "MLX, Apple GPU": ("mlx/apple", "exo-v0/apple"),
    "llama.cpp, NVIDIA": ("llama.cpp/geforce", "llama.cpp/nvidia-pro"),
    "llama.cpp, GB10": ("llama.cpp/gb10",),
    "llama.cpp 2024, GeForce": ("llama.cpp-2024/geforce",),
    "llama.cpp 2024, NVIDIA professional": ("llama.cpp-2024/nvidia-pro",),
    "llama.cpp 2024, NVIDIA data centre": ("llama.cpp-2024/nvidia-dc",),
    "Ollama, NVIDIA": ("ollama/geforce", "ollama/nvidia-pro"),
    "llama.cpp, Strix Halo": ("llama.cpp-vulkan/apu", "llama.cpp-rpc/apu", "ollama/apu"),
    "llama.cpp, Radeon": (
        "llama.cpp-vulkan/radeon", "llama.cpp/radeon", "ollama/radeon",
        "llama.cpp-vulkan/instinct",
    ),
    "llama.cpp, Arc": ("llama.cpp-vulkan/arc",),
    "llama.cpp by Vulkan, NVIDIA": ("llama.cpp-vulkan/geforce", "llama.cpp-vulkan/nvidia-pro"),
    "vLLM, cards": ("vllm-cards/geforce", "vllm-cards/nvidia-pro"),
    "gpt-fast, data centre": ("gpt-fast/nvidia-dc", "gpt-fast/instinct"),
    "vLLM, GB10": ("vllm/gb10",),
    "vLLM, Strix Halo": ("vllm/apu",),
    "llama.cpp, server processor": ("llama.cpp-cpu/cpu-server",),
    "llama.cpp, small processor": (
        "llama.cpp-cpu/cpu-desktop", "llama.cpp-cpu/apu", "llama.cpp-cpu/sbc",
        "llama.cpp-rpc/sbc",
    ),
    "ik_llama.cpp, processor": (
        "ik_llama.cpp/cpu-server", "ik_llama.cpp/apple", "ik_llama.cpp/cpu-desktop",
    ),
    "distributed-llama, server processor": ("distributed-llama/cpu-server",),
    "distributed-llama, Raspberry Pi": ("distributed-llama/sbc", "distributed-llama/cpu-desktop"),
    "llama.cpp, cards beside memory": ("llama.cpp-beside/*",),
    "ik_llama.cpp, cards beside memory": ("ik_llama.cpp-beside/*",),
    "KTransformers 0.2, cards beside memory": ("ktransformers-0.2/*",),
    "KTransformers 0.3, cards beside memory": ("ktransformers-0.3/*",),
    "KTransformers, cards beside memory": ("ktransformers/*",),
}  # fmt: skip

BESIDE_CLASSES = tuple(name for name in CLASSES if "beside" in name)

#: Whose factors a class is pulled towards. Fitted in the order of ``CLASSES``: those come first.
NEAREST: Mapping[str, str] = {
    "llama.cpp, Apple GPU": "llama.cpp 2023, Apple GPU",
    "llama.cpp 2024, Apple GPU": "llama.cpp 2023, Apple GPU",
    "Ollama, Apple GPU": "llama.cpp, Apple GPU",
    "MLX, Apple GPU": "llama.cpp, Apple GPU",
    "llama.cpp, GB10": "llama.cpp, NVIDIA",
    "llama.cpp 2024, GeForce": "llama.cpp, NVIDIA",
    "llama.cpp 2024, NVIDIA professional": "llama.cpp 2024, GeForce",
    "llama.cpp 2024, NVIDIA data centre": "llama.cpp 2024, GeForce",
    "Ollama, NVIDIA": "llama.cpp, NVIDIA",
    "vLLM, GB10": "llama.cpp, GB10",
    "vLLM, Strix Halo": "vLLM, GB10",
    "llama.cpp, Radeon": "llama.cpp, Strix Halo",
    "llama.cpp, Arc": "llama.cpp, Radeon",
    "vLLM, cards": "llama.cpp, NVIDIA",
    "ik_llama.cpp, processor": "llama.cpp, server processor",
    "ik_llama.cpp, cards beside memory": "ik_llama.cpp, processor",
    "KTransformers 0.2, cards beside memory": "llama.cpp, cards beside memory",
    "KTransformers 0.3, cards beside memory": "KTransformers 0.2, cards beside memory",
    "KTransformers, cards beside memory": "KTransformers 0.2, cards beside memory",
}

#: By kind of card, the class whose factors a card beside host memory has, and its engine.
CARD_CLASSES: Mapping[str, tuple[str, str]] = {
    "geforce": ("llama.cpp, NVIDIA", "llama.cpp"),
    "nvidia-pro": ("llama.cpp, NVIDIA", "llama.cpp"),
    "nvidia-dc": ("llama.cpp 2024, NVIDIA data centre", "llama.cpp-2024"),
    "radeon": ("llama.cpp, Radeon", "llama.cpp-vulkan"),
    "arc": ("llama.cpp, Arc", "llama.cpp-vulkan"),
}

_TURNS = 3  # of nodes' factors and of what joins them
_OVERLAPS = tuple(part / 20 for part in range(21))
_HUBER = 0.15
_PULL = 0.02
_MANY, _MANY_MACHINES = 12, 6  # rows, machines
_PRIOR = Factors(
    name="common", weight_efficiency=0.75, weight_16_gain=1.0, kv_efficiency=0.4,
    compute_efficiency=0.35, compute_16_efficiency=0.5, expert_compute_efficiency=0.6,
    attention_efficiency=0.2, state_efficiency=1.7,
    layer_s=80e-6, expert_layer_s=160e-6, latent_layer_s=60e-6, linear_layer_s=30e-6,
    routing_row_s=0.3e-6, score_bytes=0.0,
    bus_efficiency=0.6, card_speed=1.0,
    decode_spread=1.0, prefill_spread=1.0, decode_rows=0, prefill_rows=0,
)  # fmt: skip
_DECODE = (
    "weight_efficiency", "weight_16_gain", "kv_efficiency", "layer_s", "expert_layer_s",
    "latent_layer_s", "linear_layer_s",
)  # fmt: skip
_PREFILL = (
    "compute_efficiency", "compute_16_efficiency", "expert_compute_efficiency",
    "attention_efficiency", "state_efficiency", "routing_row_s",
)  # fmt: skip
_DECODE_BESIDE = ("weight_efficiency", "expert_layer_s")
_PREFILL_BESIDE = ("compute_efficiency", "bus_efficiency", "card_speed")
_LEAST = {
    "layer_s": 1e-6, "expert_layer_s": 1e-6, "latent_layer_s": 1e-6, "linear_layer_s": 1e-6,
    "routing_row_s": 1e-9, "kv_efficiency": 0.15,
}  # fmt: skip
_MOST = 0.98
_BUS_MOST = 1.25  # of a bus' usual rate: what PCI Express has beside its packets' headers
_BEYOND_PEAK = 4.0  # fp16 accumulation doubles GeForce's rate; 8-bit kernels pass a 16-bit peak

#: Builds without a fused attention kernel, on NVIDIA's cards, take the scores of each query, key
#: and head through memory: products in 16 bits (2), widened (2 + 4), through softmax (4 + 4),
#: narrowed (4 + 2) and read again (2).
_SCORE_BYTES = {
    "llama.cpp 2024, GeForce": 24.0,
    "llama.cpp 2024, NVIDIA professional": 24.0,
    "llama.cpp 2024, NVIDIA data centre": 24.0,
}

_BEGIN = {"hop_s": 1e-3, "exchange_s": 2e-5, "sharded_overhead": 0.3}

Fitted = tuple[dict[str, Factors], dict[str, EngineTraits]]


@lru_cache(maxsize=4096)
def _class_of(kind: str, engine: str) -> str:
    return next(name for name, kinds in CLASSES.items() if kind in kinds or f"{engine}/*" in kinds)


def class_of(row: Measurement) -> str:
    return _class_of(row.kind, row.engine)


def node_of(
    row: Measurement, factors: Mapping[str, Factors], own: Factors | None = None
) -> NodeRates:
    """The node of a row under factors by class; ``own`` instead of those of its own class."""
    own = own or factors[class_of(row)]
    if not row.hardware.cards:
        return rates_from_factors(row.hardware, own, row.engine)
    card, engine = CARD_CLASSES[row.hardware.cards[0].kind]
    return beside_from_factors(row.hardware, factors[card], own, engine, row.engine)


def predicted(
    row: Measurement,
    factors: Mapping[str, Factors],
    engine: EngineTraits,
    *,
    reading: bool,
    own: Factors | None = None,
) -> float:
    """Tokens a second: of prefill where ``reading``, else of decoding."""
    deployment = deployment_of(row, node_of(row, factors, own), engine)
    workload = workload_of(row, prefill=reading)
    if reading:
        return prefill(deployment, workload).tokens_per_s
    return decode_step(deployment, workload).tokens_per_s


def measured(row: Measurement, *, reading: bool) -> float | None:
    return row.prefill_tokens_per_s if reading else row.decode_tokens_per_s


@dataclass(frozen=True, kw_only=True)
class Residual:
    """One row: what was predicted beside what was measured."""

    row: Measurement
    reading: bool
    predicted: float
    measured: float

    @property
    def log_ratio(self) -> float:
        return math.log(self.predicted / self.measured)

    @property
    def error(self) -> float:
        """Relative, of the measured value."""
        return abs(self.predicted / self.measured - 1)


def residuals(rows: Iterable[Measurement], fitted: Fitted, *, reading: bool) -> list[Residual]:
    """Of those rows that have the figure."""
    factors, engines = fitted
    result = []
    for row in rows:
        value = measured(row, reading=reading)
        if value is not None:
            guess = predicted(row, factors, engines[row.engine], reading=reading)
            result.append(Residual(row=row, reading=reading, predicted=guess, measured=value))
    return result


def fit(rows: Sequence[Measurement], engines: Mapping[str, EngineTraits]) -> Fitted:
    """Factors by class and traits by engine: nodes first, then hops and exchanges, in turns.

    It starts from nothing: of ``engines`` only what is not fitted counts."""
    factors = {
        name: dataclasses.replace(_PRIOR, score_bytes=_SCORE_BYTES.get(name, 0.0))
        for name in CLASSES
    }
    traits = {
        name: dataclasses.replace(engine, hop_s=0.0, exchange_s=0.0, sharded_overhead=0.0)
        for name, engine in engines.items()
    }
    by_class = {name: [row for row in rows if class_of(row) == name] for name in CLASSES}
    for turn in range(_TURNS):
        for name, group in by_class.items():
            one = [row for row in group if row.split == "one"]
            used = one if len(one) >= 3 else group
            # What prompts take depends on what decoding does, and the other way round. Beyond that
            # only where several machines are fitted to does a hop change a machine's factors.
            if turn > 1 and all(row.devices == 1 for row in used):
                continue
            nearest = factors[NEAREST[name]] if name in NEAREST else _PRIOR
            for reading in (False, True):
                factors[name] = _fit_factors(
                    name, factors, nearest, used, traits, reading=reading, first=turn == 0
                )
        for name in traits:
            group = [row for row in rows if row.engine == name and row.devices > 1]
            if group:
                traits[name] = _fit_traits(traits[name], group, factors)
                traits[name] = _fit_overlap(traits[name], group, factors)
    return factors, traits


def _fitted_names(name: str, *, reading: bool) -> Sequence[str]:
    if name in BESIDE_CLASSES:
        return _PREFILL_BESIDE if reading else _DECODE_BESIDE
    return _PREFILL if reading else _DECODE


def _fit_factors(
    class_name: str,
    factors: Mapping[str, Factors],
    nearest: Factors,
    rows: Sequence[Measurement],
    traits: Mapping[str, EngineTraits],
    *,
    reading: bool,
    first: bool,
) -> Factors:
    names = _fitted_names(class_name, reading=reading)
    rows = [row for row in rows if measured(row, reading=reading) is not None]
    start = factors[class_name]
    if first or not rows:
        values = {name: getattr(nearest, name) for name in names}
        start = dataclasses.replace(start, **values)
    if not rows:
        return start

    # A few rows, or those of few machines, say little beyond what is known of the nearest class.
    machines = len({row.machine for row in rows})
    pulled = max(1.0, _MANY / len(rows), _MANY_MACHINES / machines)

    def build(values: Sequence[float]) -> Factors:
        changed: dict[str, float] = {}
        for name, value in zip(names, values, strict=True):
            most = _MOST if name in _DECODE and name != "weight_16_gain" else _BEYOND_PEAK
            most = _BUS_MOST if name == "bus_efficiency" else most
            changed[name] = min(max(math.exp(value), _LEAST.get(name, 1e-3)), most)
        return dataclasses.replace(start, **changed)  # type: ignore[arg-type]

    def loss(values: Sequence[float]) -> float:
        candidate = build(values)
        total = sum(
            _huber(math.log(
                predicted(row, factors, traits[row.engine], reading=reading, own=candidate)
                / (measured(row, reading=reading) or 1.0)
            ))
            for row in rows
        )  # fmt: skip
        common = [math.log(getattr(nearest, name)) for name in names]
        return total + _PULL * pulled * sum(
            (value - prior) ** 2 for value, prior in zip(values, common, strict=True)
        )

    return build(search(loss, [math.log(getattr(start, name)) for name in names]))


def _fit_traits(
    start: EngineTraits, rows: Sequence[Measurement], factors: Mapping[str, Factors]
) -> EngineTraits:
    staged = rows[0].split == "stages"
    names = ["hop_s"] if staged else ["exchange_s", "sharded_overhead"]

    def build(values: Sequence[float]) -> EngineTraits:
        times = {
            name: min(max(math.exp(value), 1e-7), 1.0)
            for name, value in zip(names, values, strict=True)
        }
        return dataclasses.replace(start, **times)  # type: ignore[arg-type]

    def loss(values: Sequence[float]) -> float:
        candidate = build(values)
        # Rows tell what an exchange costs, but hardly what a split divides of a layer's fixed time.
        divided = math.log(candidate.sharded_overhead or _BEGIN["sharded_overhead"])
        pulled = (divided - math.log(_BEGIN["sharded_overhead"])) ** 2
        return _PULL * pulled + sum(
            _huber(math.log(predicted(row, factors, candidate, reading=False)
                            / (row.decode_tokens_per_s or 1.0)))
            for row in rows
            if row.decode_tokens_per_s is not None
        )  # fmt: skip

    begin = [math.log(getattr(start, name) or _BEGIN[name]) for name in names]
    return build(search(loss, begin))


def _fit_overlap(
    start: EngineTraits, rows: Sequence[Measurement], factors: Mapping[str, Factors]
) -> EngineTraits:
    """The part of an engine's overlap of stages that fits prompts best, of a few."""
    rows = [row for row in rows if row.prefill_tokens_per_s is not None]
    if not rows or not start.overlaps_stages:
        return start

    def loss(overlap: float) -> float:
        candidate = dataclasses.replace(start, overlap=overlap)
        return sum(
            _huber(math.log(predicted(row, factors, candidate, reading=True)
                            / (row.prefill_tokens_per_s or 1.0)))
            for row in rows
        )  # fmt: skip

    best = min(_OVERLAPS, key=loss)
    return dataclasses.replace(start, overlap=best)


def _huber(value: float) -> float:
    size = abs(value)
    return size * size / 2 if size <= _HUBER else _HUBER * (size - _HUBER / 2)


def search(
    loss: Callable[[Sequence[float]], float], start: Sequence[float], *, step: float = 0.7
) -> list[float]:
    """A pattern search (Hooke and Jeeves 1961) for the least of ``loss``; deterministic."""
    best, value = list(start), loss(start)
    while step > 0.01:
        moved = False
        for index in range(len(best)):
            for direction in (step, -step):
                trial = list(best)
                trial[index] += direction
                found = loss(trial)
                if found < value - 1e-12:
                    best, value, moved = trial, found, True
                    break
        if not moved:
            step /= 2
    return best


def spread(found: Sequence[Residual], common: float | None, *, least: float = 1.08) -> float:
    """The factor that four residuals in five lie within; few of them are mixed with ``common``
    (the spread of all classes together) as if that were five more."""
    if not found:
        return common or 1.5
    sizes = sorted(abs(residual.log_ratio) for residual in found)
    own = math.exp(sizes[min(len(sizes) - 1, math.ceil(0.8 * len(sizes)) - 1)])
    if common is None:
        return max(own, least)
    weight = len(sizes) / (len(sizes) + 5)
    return max(least, math.exp(weight * math.log(own) + (1 - weight) * math.log(common)))
