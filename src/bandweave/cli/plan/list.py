"""``plan --list``: what the planner knows: machines, links, models and engines, by words."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bandweave import figures
from bandweave.cli import output
from bandweave.models.known_models import (
    find_model,
    known_model,
    model_matches,
    model_names,
    variant_names,
)
from bandweave.planning.costs.efficiency import engine_classes
from bandweave.planning.costs.software import (
    BANDWEAVE_NAME,
    Software,
    find_software,
    software_names,
    software_title,
)
from bandweave.planning.machines.hardware import (
    GIB,
    PROCESSORS,
    Hardware,
    find_hardware,
    hardware_names,
)
from bandweave.planning.machines.hardware_names import hardware_matcher
from bandweave.planning.machines.links import find_link, link_matches, link_names, link_title

KINDS = ("machines", "links", "models", "engines")
_WIDTH = 80
_UNKNOWN = "-"


def show_list(kind: str, words: str, *, as_json: bool) -> None:
    """What is known of a kind; with words only what has all of them, or is meant by them.

    ``ValueError`` with near names where that is nothing."""
    names = _NAMES[kind](words)
    described = [_DESCRIBED[kind](name) for name in names]
    if as_json:
        output.print_json({kind: described})
        return
    headings, cells, note = _SHOWN[kind]
    output.print_table(headings, [cells(one) for one in described])
    output.print_text(textwrap.fill(note, _WIDTH, break_on_hyphens=False))


def _machines(words: str) -> Sequence[str]:
    if not words:
        return _different(hardware_names())
    # A size picks one machine: what is meant comes before what only has the words.
    found = hardware_matcher().containing(words)
    return _different(found) if found else [find_hardware(words).name]


def _different(names: Sequence[str]) -> list[str]:
    """Without second names of one machine."""
    titles: dict[str, str] = {}
    for name in names:
        titles.setdefault(find_hardware(name).title, name)
    return list(titles.values())


def _machine(name: str) -> dict[str, Any]:
    found: Hardware = find_hardware(name)
    return {
        "name": found.name,
        "title": found.title,
        "kind": found.kind,
        "memory_gib": [option / GIB for option in found.memory_options_bytes],
        "bytes_per_s": found.bytes_per_s,
        "flop_per_s": dict(found.flop_per_s),
        "watts": found.measured_watts or found.watts,
        "prices": [
            {"kind": price.kind, "usd": price.usd, "date": price.date, "source": price.source}
            for price in found.prices
        ],
        "confidence": found.confidence,
        "source": found.source,
    }


def _machine_cells(one: Mapping[str, Any]) -> list[str]:
    flops = one["flop_per_s"]
    most = flops.get("fp16") or flops.get("fp32")
    sizes = [f"{size:g}" for size in one["memory_gib"]]
    prices = {price["kind"]: f"${price['usd']:,.0f}" for price in one["prices"]}
    return [
        one["name"],
        sizes[0] if len(sizes) == 1 else f"{sizes[0]}-{sizes[-1]}",
        figures.figure(one["bytes_per_s"] / 1e9),
        _UNKNOWN if most is None else figures.figure(most / 1e12),
        _UNKNOWN if one["watts"] is None else figures.figure(one["watts"]),
        prices.get("new", prices.get("launch", _UNKNOWN)),
        prices.get("used", _UNKNOWN),
    ]


def _links(words: str) -> Sequence[str]:
    return link_matches(words) if words else link_names()


def _link(name: str) -> dict[str, Any]:
    link = find_link(name)
    return {
        "name": link.name,
        "title": link_title(link.name),
        "latency_s": link.latency_s.likely,
        "bytes_per_s": link.bytes_per_s.likely,
        "source": link.source,
    }


def _link_cells(one: Mapping[str, Any]) -> list[str]:
    return [
        one["name"],
        figures.seconds(one["latency_s"]),
        output.size(one["bytes_per_s"]) + "/s",
        textwrap.shorten(one["title"], 38, placeholder=" ..."),
    ]


def _models(words: str) -> Sequence[str]:
    everything = [*model_names(), *variant_names()]
    if not words:
        return everything
    return model_matches(words) or [find_model(words)]


def _model(name: str) -> dict[str, Any]:
    model = known_model(name)
    return {
        "name": name,
        "parameters": model.total_parameters,
        "read_parameters": model.read_parameters,
        "context": model.context_length,
        "sizes_of": variant_names().get(name),
        "runs_on_bandweave": model.runs_on_bandweave,
        "architecture": model.architecture,
    }


def _model_cells(one: Mapping[str, Any]) -> list[str]:
    return [
        one["name"],
        figures.parameters(one["parameters"]),
        figures.parameters(one["read_parameters"]),
        f"{one['context']}",
        "runs" if one["runs_on_bandweave"] else "planned for",
    ]


def _engines(words: str) -> Sequence[str]:
    names = (*software_names(), BANDWEAVE_NAME)
    texts = {name: f"{name} {software_title(name)}".lower() for name in names}
    found = [name for name in names if all(word in texts[name] for word in words.lower().split())]
    return found or [find_software(words).name]


def _engine(name: str) -> dict[str, Any]:
    if name == BANDWEAVE_NAME:
        kinds = [kind for kind in PROCESSORS if kind in engine_classes(name)] or list(PROCESSORS)
        return {"name": name, "title": name, "kinds": kinds, "beside_cards": False,
                "splits": "tensor, pipeline", "source": "this project"}  # fmt: skip
    software = find_software(name)
    return {
        "name": name,
        "title": software.title,
        "kinds": list(software.on),
        "beside_cards": bool(software.beside_host),
        "splits": _splits(software),
        "source": software.source,
    }


def _splits(software: Software) -> str:
    """How it divides a model, within a machine or between machines."""
    ways = {"tensor": bool(software.tensor),
            "pipeline": bool(software.inside_traits or software.between_traits)}  # fmt: skip
    return ", ".join(way for way, there in ways.items() if there)


def _engine_cells(one: Mapping[str, Any]) -> list[str]:
    kinds = [*one["kinds"], *(["cards beside memory"] if one["beside_cards"] else [])]
    words = textwrap.shorten(", ".join(kinds), 38, placeholder=" ...")
    return [one["name"], one["splits"] or _UNKNOWN, words]


_NAMES: Mapping[str, Callable[[str], Sequence[str]]] = {
    "machines": _machines, "links": _links, "models": _models, "engines": _engines,
}  # fmt: skip
_DESCRIBED: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "machines": _machine, "links": _link, "models": _model, "engines": _engine,
}  # fmt: skip
_SHOWN: Mapping[str, tuple[list[str], Callable[[Mapping[str, Any]], list[str]], str]] = {
    "machines": (
        ["name", "GB", "GB/s", "TFLOP/s", "W", "new", "used"],
        _machine_cells,
        "GB: the memory that it is sold with, in GiB; NAME-SIZE picks one. TFLOP/s: dense, 16 bits "
        "where there are such. new: at launch, or lately; --json has dates and sources. Other "
        "words for a name are understood, too: 'Mac Studio M3 Ultra 512', 'EPYC 9575F', '4090'.",
    ),
    "links": (
        ["name", "latency", "rate", "what"],
        _link_cells,
        "Latency and rate: one way, software included, the most likely value.",
    ),
    "models": (
        ["name", "parameters", "read a token", "context", "bandweave"],
        _model_cells,
        "Names of the hub and of Ollama are understood, too: 'Qwen/Qwen3-8B', 'llama3.1:70b'. "
        "planned for: bandweave does not run it yet.",
    ),
    "engines": (
        ["name", "splits", "runs on"],
        _engine_cells,
        "--engine takes the names. cards beside memory: it computes on cards and on the processor "
        "beside them, MACHINE with CARD. --json has all kinds of hardware, and sources.",
    ),
}
