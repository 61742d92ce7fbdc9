"""Shortage: by how much a model does not fit, and what would fit. Pure."""

from __future__ import annotations

from dataclasses import replace

from bandweave.models.model_shape import ModelShape, distinct_experts
from bandweave.planning.costs.capacity import BASE_BYTES
from bandweave.planning.costs.weight_bytes import WeightBytes, find_format
from bandweave.planning.machines.hardware import GIB, find_hardware, hardware_names
from bandweave.planning.search.layout import Question, Setup
from bandweave.planning.search.search import find_plans

_FORMATS = ("q8", "q4", "gguf-q3_k_m", "gguf-q2_k")
_MOST_MACHINES = 64


def needed_bytes(question: Question, setup: Setup) -> float:
    """Weights, caches of all streams and one engine's own; what splitting adds left out."""
    model, weights = question.model, question.weights
    parameters = model.parameters_by_role()
    if not setup.engine.embedding_in_memory and not model.tied:
        parameters["embedding"] = 0
    size = weights.total(parameters)
    elements = model.kv_elements(question.context) * question.streams
    return size + elements * question.kv_bytes_per_element + BASE_BYTES


def read_bytes(model: ModelShape, weights: WeightBytes, rows: int = 1) -> float:
    """Bytes of weights that a step of so many rows reads, uniformly routed: of one token's it is
    the least that memory must give."""
    size = weights.of("head") * model.head_parameters
    size += weights.of("norm") * model.final_norm_parameters
    for layer, count in model.distinct_layers(0, len(model.layers)):
        size += count * weights.total({**layer.total_by_role(), "expert": 0})
        distinct = distinct_experts(layer.experts, layer.top_k, rows)
        size += count * weights.of("expert") * layer.expert_parameters * distinct
    return size


def shortage_sentence(question: Question, setup: Setup) -> str:
    """One sentence: needed, available, and the nearest things that fit."""
    needed = needed_bytes(question, setup)
    memory = sum(node.memory_bytes for node in setup.nodes)
    count = len(setup.nodes)
    there = "the machine has" if count == 1 else f"the {count} machines have"
    by = (
        f"{(needed - memory) / GIB:.0f} GiB too little"
        if needed > memory
        else "and no split puts it where there is room"
    )
    return (
        f"{question.model.name} in {question.weights.name} with a context of {question.context} "
        f"needs {needed / GIB:.0f} GiB, {there} {memory / GIB:.0f} GiB usable, {by}; "
        f"{_remedies(question, setup)}"
    )


def _remedies(question: Question, setup: Setup) -> str:
    remedies = []
    for name in _FORMATS:
        smaller = replace(question, weights=find_format(name))
        if needed_bytes(smaller, setup) < needed_bytes(question, setup) and _fits(smaller, setup):
            remedies.append(f"in {name} ({needed_bytes(smaller, setup) / GIB:.0f} GiB)")
            break
    if context := _halved(question, "context", 1024, setup):
        remedies.append(f"with a context of {context}")
    if streams := _halved(question, "streams", 1, setup):
        remedies.append(f"with {streams} {'stream' if streams == 1 else 'streams'}")
    if setup.networks[0].default.name != "none":
        more = _more_machines(question, setup)
        if more:
            remedies.append(more)
    machine = _one_machine(question, setup)
    if machine:
        remedies.append(f"on one {machine}")
    if not remedies:
        return "no format, context or single machine that is known makes it fit"
    return "it fits " + ", or ".join(remedies)


def _halved(question: Question, field: str, least: int, setup: Setup) -> int:
    """The most of a question's field that fits, of its halves; ends once it is ``least`` or less.
    0 where none fits."""
    value = getattr(question, field)
    while value > least:
        value //= 2
        if _fits(replace(question, **{field: value}), setup):
            return value
    return 0


def _more_machines(question: Question, setup: Setup) -> str:
    largest = max(setup.nodes, key=lambda node: node.memory_bytes)
    missing = needed_bytes(question, setup) - sum(node.memory_bytes for node in setup.nodes)
    first = max(1, int(missing // largest.memory_bytes))
    for count in range(first, min(first + 4, _MOST_MACHINES)):
        if _fits(question, setup.with_more(largest, count)):
            return f"with {count} more {largest.name}"
    return ""


def _one_machine(question: Question, setup: Setup) -> str:
    needed = needed_bytes(question, setup)
    machines = [find_hardware(name) for name in hardware_names()]
    fitting = [m for m in machines if not m.is_card and m.memory_bytes * 0.92 > needed]
    if not fitting:
        return ""
    # The quickest of those that hold it.
    return max(fitting, key=lambda machine: machine.bytes_per_s).name


def _fits(question: Question, setup: Setup) -> bool:
    return find_plans(question, setup) is not None
