"""What is left of memory: no published configuration is refused, and what to raise is said."""

from __future__ import annotations

import pytest
from benchmarks.calibration.measurements import (
    Measurement,
    deployment_of,
    measurements,
    workload_of,
)

from bandweave.models.known_models import known_model
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.efficiency import factors, rates_from_factors
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.hardware import GIB, find_hardware
from bandweave.planning.machines.hardware_text import hardware_from_text
from bandweave.planning.machines.links import find_link
from bandweave.planning.machines.memory import (
    granted_bytes,
    installed_bytes,
    memory_remark,
    usable_bytes,
)
from bandweave.planning.search.columns import Machines, limit_setup
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import find_plans


def fits(row: Measurement) -> bool:
    """Whether a published row fits: in equal shares, or else in those that the planner finds, since
    engines give the last of several cards fewer layers for the head's sake."""
    node = rates_from_factors(row.hardware, factors(row.engine, row.hardware.kind), row.engine)
    deployment = deployment_of(row, node, find_engine(row.engine))
    asked = [workload_of(row, prefill=prefill) for prefill in (False, True)]
    if all(capacity(deployment, each).fits for each in asked):
        return True
    question = Question(
        model=row.model, weights=row.weights, context=max(1, row.context), streams=row.streams,
        prompt=max(1, min(row.prompt, row.context)), answer=64, objective="decode",
    )  # fmt: skip
    links = (find_link(row.link or "pcie-4"),)
    machines = Machines(hardware=(row.hardware,) * row.devices, links=links)
    return find_plans(question, limit_setup(machines)) is not None


def test_every_published_configuration_fits() -> None:
    rows = measurements()
    assert len(rows) > 350
    refused = {row.id: (row.hardware.name, row.devices, row.model.name, row.weights.name)
               for row in rows if not fits(row)}  # fmt: skip
    assert not refused


@pytest.mark.parametrize(
    ("model", "format_name", "machine", "count", "context"),
    [
        # Measured, and once refused (benchmarks/calibration/measured.csv).
        ("llama-3-70b", "gguf-q4_k_m", "rtx-3090", 2, 512),
        ("llama-3-70b", "bf16", "rtx-3090", 6, 512),
        ("llama-3-8b", "bf16", "rtx-4080", 1, 512),
        ("gpt-oss-20b", "gguf-mxfp4", "rtx-3060", 1, 128),
        # What people run.
        ("llama-3.3-70b", "gguf-q6_k", "rtx-5090", 2, 4096),
        ("deepseek-r1", "q4", "m3-ultra-512", 1, 4096),
        ("deepseek-r1", "gguf-q4_k_m", "epyc-7702-8ch-512", 1, 4096),
        ("gpt-oss-120b", "gguf-mxfp4", "strix-halo-128", 1, 8192),
        ("qwen3-235b-a22b", "gguf-q4_k_m", "m2-ultra-192", 1, 8192),
        ("llama-3.1-8b", "gguf-q4_k_m", "raspberry-pi-5-8", 1, 512),
    ],
)
def test_what_runs_fits(
    model: str, format_name: str, machine: str, count: int, context: int
) -> None:
    hardware = find_hardware(machine)
    question = Question(
        model=known_model(model), weights=find_format(format_name), context=context, streams=1,
        prompt=min(512, context), answer=64, objective="decode",
    )  # fmt: skip
    setup = limit_setup(Machines(hardware=(hardware,) * count, links=(find_link("pcie-4"),)))
    assert find_plans(question, setup) is not None


def test_memory_is_sold_in_gib() -> None:
    assert find_hardware("rtx-3090").memory_bytes == 24 * GIB
    assert find_hardware("m3-ultra-512").memory_bytes == 512 * GIB
    assert hardware_from_text("bandwidth=204GB/s,memory=256GB").memory_bytes == 256 * GIB
    assert hardware_from_text("bandwidth=204GB/s,memory=256GiB").memory_bytes == 256 * GIB


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        # What programs were told is free: CUDA on idle cards, macOS with the limit raised.
        ("rtx-3090", 23.0, 23.7), ("rtx-3060", 11.3, 11.8), ("rtx-5090", 30.8, 31.4),
        ("l4", 21.3, 22.2), ("h100", 77.5, 79.3), ("m3-ultra-512", 460, 505),
        ("dgx-spark", 105, 118), ("raspberry-pi-4", 5.6, 7.3), ("m1-16", 12, 15),
    ],
)  # fmt: skip
def test_what_is_left(name: str, least: float, most: float) -> None:
    hardware = find_hardware(name)
    assert least <= usable_bytes(hardware, on_processor=False) / GIB <= most
    assert installed_bytes(hardware) <= hardware.memory_bytes


def test_what_has_to_be_raised() -> None:
    studio = find_hardware("m3-ultra-512")
    assert granted_bytes(studio) == 384 * GIB
    assert memory_remark(studio, 380 * GIB) == ""
    remark = memory_remark(studio, 400 * GIB)
    assert "384 of 512 GiB" in remark and "iogpu.wired_limit_mb=" in remark
    limit = int(remark.split("iogpu.wired_limit_mb=")[1].split("`")[0])
    assert 400 * 1024 < limit < 512 * 1024
    assert granted_bytes(find_hardware("m1-16")) == 16 * GIB * 2 // 3
    assert "ttm.pages_limit" in memory_remark(find_hardware("strix-halo-128"), 70 * GIB)
    card = find_hardware("rtx-3060")
    assert "display" in memory_remark(card, 11 * GIB)
    assert memory_remark(card, 8 * GIB) == ""
    assert memory_remark(find_hardware("h100"), 79 * GIB) == ""
    assert memory_remark(find_hardware("epyc-9354-12ch"), 1400 * GIB) == ""


def test_a_changed_memory_is_believed() -> None:
    changed = hardware_from_text("a40,memory=96GB")
    assert installed_bytes(changed) == 96 * GIB
    assert installed_bytes(find_hardware("a40")) == 46068 << 20
