"""The catalogue of hardware and links, and what users may write in their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.planning.costs.efficiency import LIMIT_ENGINES, bandweave_rates, factors, limit_rates
from bandweave.planning.machines.hardware import find_hardware, hardware_names
from bandweave.planning.machines.hardware_text import hardware_from_text, hardware_from_toml
from bandweave.planning.machines.links import (
    find_link,
    link_from_text,
    link_names,
    link_shares_port,
)
from bandweave.planning.machines.quantities import quantity
from bandweave.planning.machines.rates import CASES


@pytest.mark.parametrize("name", hardware_names())
def test_every_entry_can_be_planned_with(name: str) -> None:
    hardware = find_hardware(name)
    assert hardware.source and hardware.confidence
    assert 1e9 < hardware.bytes_per_s < 1e13
    assert 1e9 <= hardware.memory_bytes <= 7e12
    for flops in hardware.flop_per_s.values():
        assert 1e10 < flops < 2e16
    limit = limit_rates(hardware)
    reality = bandweave_rates(hardware)
    assert limit.memory_bytes <= hardware.memory_bytes
    assert factors(LIMIT_ENGINES[hardware.kind], hardware.kind)
    for case in CASES:
        assert 0 < limit.weight_rate("q4", case) <= 2 * hardware.bytes_per_s
        assert limit.compute_rate("q4", 512, case) > 0
    if hardware.cpu_cores is None and not hardware.is_card:
        assert name.startswith("m5-ultra") and reality is None  # cores not published yet
        return
    assert reality is not None
    if hardware.cpu_bytes_per_s is not None:
        assert hardware.cpu_bytes_per_s <= hardware.bytes_per_s
        assert reality.weight_rate("q4", "likely") < hardware.cpu_bytes_per_s
    if hardware.is_card:
        assert hardware.host is not None and reality.name == hardware.host


def test_known_figures() -> None:
    studio = find_hardware("m3-ultra-512")
    assert studio.memory_bytes == 512 << 30
    assert studio.bytes_per_s == 819e9
    assert studio.flop_per_s["fp32"] == 28.4e12
    assert find_hardware("M3 Ultra 96GB").memory_bytes == 96 << 30
    assert find_hardware("m3-ultra-256").price_usd is None  # the price is that of 512 GB
    # Dense figures: the data sheets' 1979, 4000 and 20 000 are sparse, or count FP4.
    assert find_hardware("h100").flop_per_s["fp16"] == 989e12
    assert find_hardware("b200").flop_per_s["fp4"] == 9000e12
    assert find_hardware("b200").sparse_factor == 2
    assert find_hardware("rtx-5090").flop_per_s["fp16"] == 209.5e12
    # Channels x MT/s x 8 bytes.
    assert find_hardware("epyc-7702-8ch").bytes_per_s == pytest.approx(8 * 3200e6 * 8)
    assert find_hardware("epyc-9755-12ch").bytes_per_s == pytest.approx(12 * 6400e6 * 8)
    assert find_hardware("desktop-ddr5-5600").bytes_per_s == pytest.approx(2 * 5600e6 * 8)
    # Two sockets are no faster than one for an engine that does not place its memory.
    one, two = (bandweave_rates(find_hardware(name)) for name in ("epyc-7702-8ch", "epyc-7702-2s"))
    assert one is not None and two is not None
    assert one.weight_rate("q4", "likely") == two.weight_rate("q4", "likely")


def test_every_apple_chip_has_both_sizes() -> None:
    names = set(hardware_names())
    for generation, sizes in {
        "m1": "7c 8c", "m1-pro": "14c 16c", "m1-max": "24c 32c", "m1-ultra": "48c 64c",
        "m2": "8c 10c", "m2-pro": "16c 19c", "m2-max": "30c 38c", "m2-ultra": "60c 76c",
        "m3": "8c 10c", "m3-pro": "14c 18c", "m3-max": "30c 40c", "m3-ultra": "60c 80c",
        "m4": "8c 10c", "m4-pro": "16c 20c", "m4-max": "32c 40c",
        "m5": "8c 10c", "m5-pro": "16c 20c", "m5-max": "32c 40c",
    }.items():  # fmt: skip
        assert {generation, *(f"{generation}-{size}" for size in sizes.split())} <= names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m3-ultra-513", "does not come with 513 GB"),
        ("epyc-7703-8ch", "did you mean epyc-77"),
        ("gpu", "no hardware is called 'gpu'"),
        ("memory=1GB", "lacks bandwidth="),
        ("bandwidth=1GB/s", "lacks memory="),
        ("bandwidth=204,memory=256GB", "bandwidth is '204'"),
        ("bandwidth=-1GB/s,memory=1GB", "bandwidth is '-1GB/s'"),
        ("bandwidth=1GB/s,memory=1GB,colour=red", "'colour' is no field"),
        ("bandwidth=1GB/s,memory=1GB,kind=car", "kind 'car'"),
        ("bandwidth=1GB/s,memory", "'memory' in"),
    ],
)
def test_hardware_that_is_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hardware_from_text(text)


def test_described_hardware() -> None:
    text = "bandwidth=204GB/s,memory=256GB,flops=4TFLOPS,watts=280,price=1500,name=old"
    hardware = hardware_from_text(text)
    assert (hardware.name, hardware.bytes_per_s, hardware.memory_bytes) == ("old", 204e9, 256 << 30)
    assert hardware.flop_per_s == {"fp32": 4e12, "fp16": 4e12}
    assert (hardware.watts, hardware.price_usd) == (280, 1500)
    assert bandweave_rates(hardware) is not None
    assert limit_rates(hardware).memory_bytes < 256e9
    files = hardware_from_toml(
        '[box]\nbandwidth = "1.2 TB/s"\nmemory = "96 GiB"\nkind = "geforce"\nfp16 = "200 TFLOP/s"\n'
    )
    assert files["box"].bytes_per_s == 1.2e12
    assert files["box"].memory_bytes == 96 << 30
    assert bandweave_rates(files["box"]) is None  # nobody said what it sits in
    for wrong in ("[box", "box = 3", "[box]\nbandwidth = 'fast'\nmemory = '1GB'"):
        with pytest.raises(ValueError):
            hardware_from_toml(wrong)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("204GB/s", "B/s", 204e9), ("80Gbit/s", "B/s", 1e10), ("80 gbps", "B/s", 1e10),
        ("204 GB", "B/s", 204e9), ("1.5TiB", "B", 1.5 * 2**40), ("512GB", "B", 512e9),
        ("300us", "s", 3e-4), ("1.5 ms", "s", 1.5e-3), ("28TFLOPS", "FLOP/s", 28e12),
        ("1 PFLOP/s", "FLOP/s", 1e15), ("250W", "W", 250), (1500, "USD", 1500),
    ],
)  # fmt: skip
def test_quantities(text: object, unit: str, value: float) -> None:
    assert quantity(text, unit, what="it") == pytest.approx(value)


@given(st.text(max_size=12), st.sampled_from(["B", "B/s", "FLOP/s", "W", "USD", "s"]))
def test_any_text_is_a_quantity_or_a_clear_error(text: str, unit: str) -> None:
    try:
        assert quantity(text, unit, what="it") > 0
    except ValueError as error:
        assert str(error).startswith("it is ")


@pytest.mark.parametrize("name", link_names())
def test_links(name: str) -> None:
    link = find_link(name)
    assert link.source
    assert 1e-7 < link.latency_s.low <= link.latency_s.likely <= link.latency_s.high < 0.1
    assert 1e6 < link.bytes_per_s.low <= link.bytes_per_s.high < 1e12
    assert link_shares_port(name) in (True, False)


def test_link_text() -> None:
    assert find_link("tb5").name == find_link("Thunderbolt 5").name == "thunderbolt-5-tcp"
    assert find_link("10GbE").name == "ethernet-10g"
    link = link_from_text("latency=300us,bandwidth=80Gbit/s,message=2us")
    assert (link.latency_s.likely, link.bytes_per_s.likely) == (3e-4, 1e10)
    for text, message in (
        ("tb6", "did you mean"), ("latency=1us", "lacks bandwidth="),
        ("latency=1,bandwidth=1GB/s", "latency is '1'"), ("speed=1,bandwidth=1GB/s", "speed=1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            link_from_text(text)
