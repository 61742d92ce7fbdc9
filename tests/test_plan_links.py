"""Links as they are: shared media, half duplex, ports that machines have, cables that reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bandweave.cli.plan.setup import parse_machines, parse_setup
from bandweave.models.known_models import known_model
from bandweave.planning.costs.deployment import Network
from bandweave.planning.costs.exchange import broadcast, exchange
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.hardware import find_hardware, hardware_names
from bandweave.planning.machines.links import find_link, link_from_text, link_names, link_needs
from bandweave.planning.machines.ports import links_between, most_cabled, ports_of
from bandweave.planning.search.columns import Machines, limit_setup
from bandweave.planning.search.doubt import cables_sentence, doubt_sentence
from bandweave.planning.search.explain import verdict_sentence
from bandweave.planning.search.layout import Question
from bandweave.planning.search.search import Answer, find_plans


def machines(text: str, *links: str) -> Machines:
    return parse_machines([text], links, {})


def answer(model: str, there: Machines, format_name: str = "q4") -> Answer:
    asked = Question(model=known_model(model), weights=find_format(format_name))
    found = find_plans(asked, limit_setup(there))
    assert found is not None
    return found


@pytest.mark.parametrize("nodes", [2, 3, 4, 8])
def test_a_shared_medium_carries_one_frame_at_a_time(nodes: int) -> None:
    link = link_from_text("latency=1ms,bandwidth=50MB/s,message=100us,shared=yes,crossings=2")
    network, size = Network(default=link), 16384.0
    pairs = nodes * (nodes - 1)
    one = exchange(network, range(nodes), size, "likely", two_step=False)
    assert one.bytes_s == pytest.approx(pairs * 2 * size / 50e6)
    assert one.latency_s == pytest.approx(1e-3 + pairs * 2 * 100e-6)
    # On a switch of the same figures all send at once.
    switched = Network(default=replace(link, channel="", crossings=1, half_duplex=False))
    beside = exchange(switched, range(nodes), size, "likely", two_step=False)
    assert beside.bytes_s == pytest.approx((nodes - 1) * size / 50e6)
    sent = broadcast(network, 0, range(nodes), size, "likely")
    assert sent.bytes_s == pytest.approx((nodes - 1) * 2 * size / 50e6)


def test_only_the_pairs_on_the_medium_share_it() -> None:
    air = link_from_text("latency=1ms,bandwidth=50MB/s,shared=yes")
    cable = link_from_text("latency=20us,bandwidth=5GB/s")
    network = Network(default=cable, links={(0, 1): air, (2, 3): air})
    mixed = exchange(network, (0, 1, 2, 3), 1e6, "likely", two_step=False)
    assert mixed.bytes_s == pytest.approx(4 * 1e6 / 50e6)
    alone = exchange(network, (0, 2), 1e6, "likely", two_step=False)
    assert alone.bytes_s == pytest.approx(1e6 / 5e9)


def test_half_duplex_carries_what_comes_too() -> None:
    full, half = (
        link_from_text(f"latency=20us,bandwidth=1GB/s,duplex={way}") for way in ("full", "half")
    )
    times = [
        exchange(Network(default=link), (0, 1), 1e6, "likely", two_step=False).bytes_s
        for link in (full, half)
    ]
    assert times[1] == pytest.approx(2 * times[0])
    one_way = broadcast(Network(default=half), 0, (1,), 1e6, "likely")
    assert one_way.bytes_s == pytest.approx(times[0])


@pytest.mark.parametrize("link", ["wifi", "wifi-5", "powerline", "hub"])
def test_wifi_is_no_way_to_join_machines(link: str) -> None:
    found = answer("llama-3.1-70b", machines("8x laptop-ddr5-5600", link))
    assert found.best.kind == "one"
    assert "One machine is faster" in verdict_sentence(found)
    assert "adds up" in doubt_sentence(found)


def test_a_gain_that_a_slow_link_would_eat_is_doubted() -> None:
    joined = machines("2x desktop-ddr5-5600", "latency=100us,bandwidth=1GB/s")
    assert doubt_sentence(answer("llama-3.1-70b", joined)) == ""
    link = joined.links[0]
    unsure = replace(link, latency_s=replace(link.latency_s, high=20e-3))
    sentence = doubt_sentence(answer("llama-3.1-70b", replace(joined, links=(unsure,))))
    assert "not certain" in sentence


@pytest.mark.parametrize(
    ("on", "link"),
    [
        ("4x raspberry-pi-5", "ethernet-1g"),
        ("2x m3-ultra-512", "ethernet-10g"),
        ("m3-ultra-512 + raspberry-pi-5", "ethernet-1g"),
        ("2x m4-pro-64", "ethernet-1g"),
        ("2x strix-halo", "ethernet-2.5g"),
        ("2x dgx-spark", "ethernet-10g"),
        ("2x rtx-4090", "pcie-4"),
        ("2x h200", "nvlink-4"),
        ("rtx-4090 + m4-max-128", "ethernet-2.5g"),
    ],
)
def test_the_slowest_port_is_assumed(on: str, link: str) -> None:
    there = machines(on)
    assert [each.name for each in there.links] == [link]
    assert "assumed" in there.assumption


@pytest.mark.parametrize(
    ("on", "word", "link"),
    [
        ("2x m3-ultra-512", "thunderbolt", "thunderbolt-5-tcp"),
        ("m3-ultra-512 + m4-32", "Thunderbolt Bridge", "thunderbolt-4-tcp"),
        ("2x strix-halo", "usb4", "usb4-tcp"),
        ("2x m4-pro-64", "thunderbolt-rdma", "thunderbolt-5-rdma"),
        ("2x strix-halo", "usb4-rdma", "thunderbolt-4-rdma"),
        ("2x desktop-ddr4-3200", "40g", "ethernet-40g"),
        ("2x desktop-ddr4-3200", "5G", "ethernet-5g"),
        ("2x rtx-3090", "OCuLink", "oculink"),
        ("2x rtx-3090", "pcie4-x4", "pcie-4-x4"),
        ("2x rtx-3090", "egpu", "egpu-thunderbolt-4"),
    ],
)
def test_words_for_links(on: str, word: str, link: str) -> None:
    assert [each.name for each in machines(on, word).links] == [link]


@pytest.mark.parametrize(
    ("on", "link", "words"),
    [
        ("2x m4-32", "tb5-rdma", "no RDMA over Thunderbolt"),
        ("2x m4-32", "thunderbolt-rdma", "no RDMA over their cable"),
        ("2x strix-halo", "tb5-rdma", "no RDMA over Thunderbolt"),
        ("m3-ultra-512 + strix-halo", "tb5", "has USB4"),
        ("2x m3-ultra-512", "roce-100g", "macOS offers none"),
        ("2x m3-ultra-512", "usb4-rdma", "needs Linux"),
        ("2x m3-ultra-512", "pcie-4", "cards inside one machine"),
        ("2x dgx-spark", "thunderbolt", "no Thunderbolt or USB4 port"),
        ("2x raspberry-pi-5", "tb4", "no Thunderbolt or USB4 port"),
    ],
)
def test_links_that_machines_cannot_have(on: str, link: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        machines(on, link)
    assert words in str(caught.value)
    assert "they have" in str(caught.value) or "IP over the cable" in str(caught.value)


def test_a_compared_setup_gets_a_link_that_it_can_have() -> None:
    assert parse_setup("2x m4-max-128", ["tb5-rdma"], {}).links[0].name == "thunderbolt-5-rdma"
    other = parse_setup("2x dgx-spark", ["tb5-rdma"], {})
    assert other.links[0].name == "ethernet-10g" and other.assumption
    with pytest.raises(ValueError, match="no Thunderbolt"):
        parse_setup("2x dgx-spark over tb5-rdma", [], {})


def test_a_word_for_a_link_is_no_mistake_beside_one_machine() -> None:
    for on in ("m3-ultra-512", "dgx-spark"):
        assert machines(on, "thunderbolt").link_title == ""


def test_cables_reach_as_many_machines_as_there_are_sockets() -> None:
    there = machines("8x m4-pro-64", "tb5-rdma")
    assert most_cabled("thunderbolt-5-rdma", there.hardware) == 4
    found = answer("llama-3.1-70b", there, "bf16")
    for plan in (*found.plans, found.with_all):
        assert plan is not None and all(len(stage) <= 4 for stage in plan.layout.stages)
    assert "at most 4" in cables_sentence(there)
    assert most_cabled("ethernet-10g", there.hardware) is None
    assert cables_sentence(machines("4x m4-pro-64", "tb5-rdma")) == ""


def test_a_sweep_compares_what_machines_can_have() -> None:
    macs = links_between(machines("2x m3-ultra-512").hardware)
    assert {"thunderbolt-5-rdma", "thunderbolt-5-tcp", "ethernet-10g", "wifi-6"} <= {*macs}
    assert not {name for name in macs if link_needs(name) in ("bus", "nvlink", "host", "rdma")}
    cards = links_between(machines("2x rtx-3090").hardware)
    assert {"pcie-4", "pcie-4-x4", "oculink"} <= {*cards}
    assert not any(name.startswith(("thunderbolt", "wifi", "nvlink")) for name in cards)
    pis = links_between(machines("4x raspberry-pi-5").hardware)
    assert "ethernet-1g" in pis and not any("thunderbolt" in name or "usb4" in name for name in pis)


def test_every_machine_has_ports_and_every_link_says_what_it_needs() -> None:
    for name in hardware_names():
        assert find_link(ports_of(find_hardware(name)).ethernet)
    for name in link_names():
        assert link_needs(name)
        assert find_link(name).crossings in (1, 2)
        assert not find_link(name).channel or find_link(name).half_duplex


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency=1ms,bandwidth=1GB/s,crossings=2", "add shared=yes"),
        ("latency=1ms,bandwidth=1GB/s,shared=maybe", "must be no or yes"),
        ("latency=1ms,bandwidth=1GB/s,colour=red", "no field of a link"),
    ],
)
def test_mistakes_in_links(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        link_from_text(text)


def test_two_links_for_one_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="have a link already"):
        machines("2x m4-32", "1-2=10gbe", "2-1=wifi")
