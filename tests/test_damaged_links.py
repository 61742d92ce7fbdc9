"""A flipped bit on the way is an error that names the link, wherever in a frame it is."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from bandweave import _native
from bandweave.executors.executor import Step, StepError
from tests.helpers.damage import FrameRelay
from tests.helpers.linked_nodes import (
    ABORT,
    BYE,
    DATA,
    HEADER,
    PROGRESS,
    STEP,
    LinkedNodes,
    frame,
    link_nodes,
    read_frame,
    step_payload,
)
from tests.helpers.random_model import ODD_SPECS, random_source
from tests.helpers.reference_nodes import Book

SPEC = ODD_SPECS["ten_heads_of_8"]
SOURCE = random_source(SPEC, 8)
STAGED_SPEC = ODD_SPECS["qk_norm_window"]
STAGED_SOURCE = random_source(STAGED_SPEC, 8)
TOKENS = [3, 1, 4, 1, 5]
FRAMES = {
    "step": frame(STEP, step_payload(TOKENS), node=0),
    "data": frame(DATA, random.Random(1).randbytes(300), node=0),
    "progress": frame(PROGRESS, node=0, op=1, part=1),
    "abort": frame(ABORT, b"node 0 has had enough", node=0),
    "bye": frame(BYE, node=0),
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def one_step(tokens: list[int] = TOKENS) -> Step:
    return Book(num_sequences=1, pages_each=1).step([(0, tokens)])


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damage(sender: int, receiver: int) -> str:
    return (
        f"the link from node {sender} delivers damaged data to node {receiver} "
        "(a checksum is wrong): check its cables, adapters and switches"
    )


@pytest.mark.parametrize("kind", FRAMES)
def test_a_flipped_bit_in_any_byte_is_named(kind: str, stack: ExitStack) -> None:
    whole, rng = FRAMES[kind], random.Random(kind)
    # Every byte of the header, and some of the payload.
    places = [*range(HEADER.size), *rng.sample(range(len(whole)), min(16, len(whole)))]
    for place in places:
        nodes = link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=5.0)
        stack.callback(nodes.close)
        nodes.sockets[0, 1].sendall(flipped(whole, 8 * place + rng.randrange(8)))
        start = time.monotonic()
        with pytest.raises(StepError) as caught:
            nodes.node(1).follow()
        assert str(caught.value) == damage(0, 1), place
        assert time.monotonic() - start < 4.0


def relayed(
    stack: ExitStack, spec: Any, source: Any, *, sender: int, receiver: int, kind: int, number: int,
    seed: int, **options: Any,
) -> LinkedNodes:  # fmt: skip
    """Three nodes; of the frames of a kind from sender to receiver, the one with that number has
    bits flipped."""
    rng, seen = random.Random(seed), 0

    def change(found: int, whole: bytearray) -> None:
        nonlocal seen
        if found != kind:
            return
        if seen == number:
            bit = rng.randrange(8 * len(whole))
            whole[bit // 8] ^= 1 << bit % 8
        seen += 1

    def link(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
        if {low, high} == {sender, receiver}:
            stack.callback(FrameRelay(a, b, (low, high), sender, change).close)
        else:
            _native.join_locally(a, b)

    nodes = link_nodes(spec, source, 3, link=link, stall_seconds=20.0, **options)
    stack.callback(nodes.close)
    return nodes


@pytest.mark.parametrize("wire", ["exact", "bf16", "q8"])
@pytest.mark.parametrize("way", [{}, {"hop_bytes": 0, "overlap_rows": 2}])
@pytest.mark.parametrize(("sender", "receiver"), [(1, 0), (0, 2), (2, 1)])
def test_a_damaged_sum_is_no_answer(
    sender: int, receiver: int, way: dict[str, int], wire: str, stack: ExitStack
) -> None:
    """Values, tags of blocks, headers: whatever the bit belonged to."""
    for number in range(3):
        nodes = relayed(
            stack, SPEC, SOURCE, sender=sender, receiver=receiver, kind=DATA, number=number,
            seed=number, wire=wire, **way,
        )  # fmt: skip
        errors = nodes.run_all(one_step())
        assert errors[receiver] == damage(sender, receiver)
        assert sorted(errors) == [0, 1, 2]
        assert set(errors.values()) == {damage(sender, receiver)}  # all are told why


@pytest.mark.parametrize(("sender", "receiver"), [(0, 1), (1, 2), (2, 0)])
def test_a_damaged_row_of_a_stage_is_no_answer(
    sender: int, receiver: int, stack: ExitStack
) -> None:
    nodes = relayed(
        stack, STAGED_SPEC, STAGED_SOURCE, stages=3, sender=sender, receiver=receiver, kind=DATA,
        number=0, seed=sender,
    )  # fmt: skip
    assert nodes.run_all(one_step())[receiver] == damage(sender, receiver)


def test_a_damaged_step_is_not_run(stack: ExitStack) -> None:
    """Its tokens and positions are only looked at where it says how many there are."""
    for seed in range(8):
        nodes = relayed(stack, SPEC, SOURCE, sender=0, receiver=1, kind=STEP, number=0, seed=seed)
        errors = nodes.run_all(one_step())
        assert errors[1] == errors[0] == damage(0, 1)


def test_links_that_damage_nothing_give_the_answer(stack: ExitStack) -> None:
    alone = link_nodes(SPEC, SOURCE, 1).run(one_step())
    nodes = relayed(stack, SPEC, SOURCE, sender=0, receiver=1, kind=DATA, number=-1, seed=0)
    threads = [threading.Thread(target=nodes.node(node).follow) for node in (1, 2)]
    for thread in threads:
        thread.start()
    assert nodes.run(one_step()).tobytes() == alone.tobytes()
    for thread in threads:
        thread.join(timeout=30)


def test_what_nodes_send_has_right_checksums(stack: ExitStack) -> None:
    """As the standard computes them, byte by byte; ``read_frame`` looks at each."""
    nodes = link_nodes(SPEC, SOURCE, 2, played=[1], stall_seconds=0.5)
    stack.callback(nodes.close)
    sock, kinds = nodes.sockets[1, 0], []

    def read() -> None:
        while ABORT not in kinds:
            kinds.append(read_frame(sock)[0])

    thread = threading.Thread(target=read)
    thread.start()
    with pytest.raises(StepError, match="made no progress"):
        nodes.run(one_step())
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert {STEP, DATA, ABORT} <= set(kinds)


def test_memory_is_no_wire(stack: ExitStack) -> None:
    """Payloads that never leave memory carry no checksum: what reads one must not look at it."""
    exact = link_nodes(SPEC, SOURCE, 2, link="local")
    over_wire = link_nodes(SPEC, SOURCE, 2, link="pair")
    answers = []
    for nodes in (exact, over_wire):
        thread = threading.Thread(target=nodes.node(1).follow)
        thread.start()
        answers.append(nodes.run(one_step()))
        thread.join(timeout=30)
    assert np.array_equal(*answers)


@pytest.mark.parametrize("seed", range(6))
def test_an_emulated_link_tells_damage_to_its_own_records(seed: int, stack: ExitStack) -> None:
    """It puts the time and the size before what it carries: a bit of any of them."""
    rng, flips = random.Random(seed), [False]
    near_ends: list[socket.socket] = []

    def link(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
        left, near = socket.socketpair()
        far, right = socket.socketpair()
        a.add_emulated(high, left.detach(), 1e-4, 1e9)
        b.add_emulated(low, right.detach(), 1e-4, 1e9)
        near_ends.extend((near, far))

        def carry(source: socket.socket, target: socket.socket, damages: bool) -> None:
            try:
                while data := bytearray(source.recv(1 << 16)):
                    if damages and not flips[0]:
                        flips[0] = True
                        bit = rng.randrange(8 * 16)  # the first record's header
                        data[bit // 8] ^= 1 << bit % 8
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        threading.Thread(target=carry, args=(near, far, True), daemon=True).start()
        threading.Thread(target=carry, args=(far, near, False), daemon=True).start()

    nodes = link_nodes(SPEC, SOURCE, 2, link=link, stall_seconds=20.0)
    start = time.monotonic()
    errors = nodes.run_all(one_step())
    for end in near_ends:
        end.close()
    assert errors[1] == damage(0, 1)
    assert errors[0] in (damage(0, 1), "node 1 closed its connection to node 0")
    assert time.monotonic() - start < 15
