"""Emulated links: as slow as they say, and in no other way different."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from bandweave import _native
from bandweave.executors.executor import Step, StepError
from bandweave.planning.profile.emulation import EmulatedLink, emulated_link
from bandweave.planning.profile.link_profile import LinkProfile, LinkTime
from tests.helpers.command import Outcome, bandweave
from tests.helpers.linked_nodes import LinkedNodes, link_nodes, slow_link
from tests.helpers.random_model import random_source, tiny_spec
from tests.helpers.reference_nodes import Book

SPEC = tiny_spec()
SOURCE = random_source(SPEC, 8)
TOKENS = [3, 1, 4, 1, 5]
# Two sums a layer, each a way after the one before; node 0 owns all of so small a vocabulary.
WAYS = 2 * SPEC.num_layers


def one_step() -> Step:
    return Book(num_sequences=1, pages_each=1).step([(0, TOKENS)])


def timed(nodes: LinkedNodes, steps: int) -> tuple[bytes, float]:
    """The logits of a step, and the seconds of the quickest of several."""
    follower = threading.Thread(target=_follow, args=(nodes,), daemon=True)
    follower.start()
    logits, seconds = b"", []
    for _ in range(steps):
        start = time.monotonic()
        logits = nodes.run(one_step()).tobytes()
        seconds.append(time.monotonic() - start)
    exchange = nodes.exchanges[0]
    assert exchange is not None
    exchange.leave()
    follower.join(timeout=30)
    return logits, min(seconds)


def _follow(nodes: LinkedNodes) -> None:
    while nodes.node(1).follow() == "ran":
        pass


@pytest.mark.parametrize("spin", [True, False])
@pytest.mark.parametrize("latency", [1e-3, 6e-3])  # less and more than a node spins
def test_a_step_takes_as_long_as_its_ways(latency: float, spin: bool) -> None:
    alone = link_nodes(SPEC, SOURCE, 1).run(one_step()).tobytes()
    nodes = link_nodes(SPEC, SOURCE, 2, link=slow_link(latency), spin=spin)
    logits, seconds = timed(nodes, 5)
    assert logits == alone
    assert seconds >= WAYS * latency
    # Frames that nobody noticed would each be slept over for up to 50 ms.
    assert seconds < WAYS * latency + 0.1


def test_a_narrow_link_takes_its_time_for_bytes() -> None:
    rate = 1e5
    nodes = link_nodes(SPEC, SOURCE, 2, link=slow_link(0.0, rate))
    _, seconds = timed(nodes, 2)
    sums = 2 * SPEC.num_layers * len(TOKENS) * SPEC.hidden_size * 4
    assert seconds >= sums / rate


def test_whoever_does_not_emulate_is_refused() -> None:
    """A peer that speaks frames without times ends the step, and nothing waits for ever."""

    def half(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
        left, right = socket.socketpair()
        a.add_emulated(high, left.detach(), 1e-3, 1e9)
        b.add_tcp(low, right.detach())

    nodes = link_nodes(SPEC, SOURCE, 2, link=half)
    errors = nodes.run_all(one_step())
    assert sorted(errors) == [0, 1]


@pytest.mark.parametrize(("latency", "rate"), [(-1.0, 1e9), (0.0, 0.0), (float("nan"), 1e9)])
def test_links_that_cannot_be(latency: float, rate: float) -> None:
    with pytest.raises(ValueError, match="latency"):
        EmulatedLink(name="none", latency_seconds=latency, bytes_per_s=rate)
    exchange = _native.Exchange(0, ["node 0", "node 1"], 1, 1.0, False)
    with pytest.raises(ValueError, match="latency"):
        exchange.add_emulated(1, -1, latency, rate)


def test_a_peer_that_ends_is_noticed() -> None:
    nodes = link_nodes(SPEC, SOURCE, 2, link=slow_link(1e-3))
    leaver = nodes.exchanges[1]
    assert leaver is not None
    leaver.leave()
    with pytest.raises(StepError, match="node 1 closed its connection"):
        nodes.run(one_step())


def test_the_profile_behind_a_link_is_later_by_latency_and_bytes() -> None:
    times = tuple(
        LinkTime(
            payload_bytes=size, wire_seconds=1e-6, wait_seconds=2e-6, other_seconds=3e-6, spread=0.1
        )
        for size in (100, 1_000_000)
    )
    own = LinkProfile(transport="tcp", times=times)
    link = EmulatedLink(name="slow", latency_seconds=1e-4, bytes_per_s=1e9)
    first, second = link.behind(own).times
    assert first.wait_seconds == pytest.approx(2e-6 + 1e-4 + 1e-7)
    assert second.wait_seconds == pytest.approx(2e-6 + 1e-4 + 1e-3)
    assert (first.wire_seconds, first.other_seconds) == (1e-6, 3e-6)


def test_links_by_name_and_by_figures() -> None:
    assert emulated_link("tb4") == emulated_link("thunderbolt-4-tcp")
    assert emulated_link("latency=300us,bandwidth=10Gbit/s") == EmulatedLink(
        name="latency=300us,bandwidth=10Gbit/s", latency_seconds=3e-4, bytes_per_s=1.25e9
    )


def ask(*more: str) -> Outcome:
    question = ("run", "demo", "--prompt", "What is 17 + 25?", "--max-tokens", "8", "--json")
    return bandweave(*question, *more)


def test_the_answer_over_a_slow_link_is_the_same() -> None:
    alone = ask().json
    slow = ask("--nodes", "3", "--emulate-link", "latency=2ms,bandwidth=1Gbit/s").json
    assert slow["logits_digest"] == alone["logits_digest"]
    assert slow["plan"]["emulated_link"]["latency_seconds"] == 2e-3
    assert alone["plan"]["emulated_link"] is None
    timing = slow["timing"]
    # Of every token: five layers' sums and the best token's way; the rest may overlap.
    assert timing["decode_seconds"] / timing["decode_tokens"] >= 11 * 2e-3


def test_bad_figures_are_told() -> None:
    done = ask("--nodes", "2", "--emulate-link", "latency=1ms")
    assert done.status == 2 and "bandwidth" in done.err
