"""The native exchange: the same bytes over every link, and every failure has a name and an end."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from bandweave.engine.executor import Step, StepError
from tests.helpers.linked_nodes import (
    BYE,
    DATA,
    HEADER,
    LINKS,
    PROGRESS,
    STEP,
    LinkedNodes,
    frame,
    link_nodes,
    read_frame,
    step_payload,
)
from tests.helpers.random_model import (
    F32,
    ODD_SPECS,
    MemorySource,
    random_source,
    random_tensors,
    tiny_spec,
)
from tests.helpers.reference_nodes import Book, ReferenceNodes

SPEC = ODD_SPECS["ten_heads_of_8"]
SOURCE = random_source(SPEC, 8)
BLOCK = 64  # grid values that share a width on the wire
TOKENS = [3, 1, 4, 1, 5]


def one_step(tokens: list[int] = TOKENS) -> Step:
    return Book(num_sequences=1, pages_each=1).step([(0, tokens)])


def scaled(changes: dict[str, np.float32 | F32]) -> MemorySource:
    """The source with some tensors multiplied."""
    tensors = random_tensors(SPEC, 8)
    return MemorySource(
        tensors={
            name: (values * changes[name] if name in changes else values).astype(np.float32)
            for name, values in tensors.items()
        }
    )


# --- the same bytes ---


def output_rows(rows: range, factor: float) -> F32:
    factors = np.ones((SPEC.hidden_size, 1), np.float32)
    factors[rows.start : rows.stop] = factor
    return factors


WIDE = {
    "none": scaled({}),
    "a row": scaled({"layers.1.down_proj": output_rows(range(70, 71), 1e6)}),
    "most": scaled({f"layers.{i}.{name}": np.float32(1e5) for i in range(3)
                    for name in ("o_proj", "down_proj")}),
}  # fmt: skip


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("wide", WIDE)
def test_wide_sums_cross_unchanged(wide: str, link: str) -> None:
    alone = link_nodes(SPEC, WIDE[wide], 1).run(one_step())
    nodes = link_nodes(SPEC, WIDE[wide], 3, link=link)
    logits: list[F32] = []
    threads = [threading.Thread(target=nodes.node(node).follow) for node in (1, 2)]
    for thread in threads:
        thread.start()
    logits.append(nodes.run(one_step()))
    for thread in threads:
        thread.join(timeout=30)
    assert logits[0].tobytes() == alone.tobytes()
    # All six sums of 5 rows of 80 values in blocks of 64, to two nodes, as int32 or as int64.
    sent = nodes.node(1).bill(decode=True)["activation_bytes"]
    blocks = -(-len(TOKENS) * SPEC.hidden_size // BLOCK)
    narrow = 2 * 6 * (HEADER.size + 8 + blocks * BLOCK * 4)
    extra = sent - narrow
    assert extra % (2 * BLOCK * 4) == 0
    most = 2 * 6 * blocks * BLOCK * 4
    assert {"none": extra == 0, "a row": 0 < extra <= most / 6, "most": extra == most}[wide]


def test_wide_sums_are_those_of_the_reference() -> None:
    with ReferenceNodes(
        SPEC, WIDE["most"], weight_format="f32", kv_dtype="f32", num_pages=1
    ) as reference:
        expected = reference.run(one_step())
    assert link_nodes(SPEC, WIDE["most"], 1).run(one_step()).tobytes() == expected.tobytes()


@pytest.mark.parametrize("spin", [False, True])
@pytest.mark.parametrize("link", LINKS)
def test_frames_larger_than_any_buffer_get_through(link: str, spin: bool) -> None:
    spec = tiny_spec(hidden_size=4000, intermediate_size=64, num_layers=1, vocab_size=64)
    source = random_source(spec, 1)
    step = one_step([i % 64 for i in range(60)])  # sums of 960 KB
    alone = link_nodes(spec, source, 1, weight_format="q4").run(step)
    nodes = link_nodes(spec, source, 2, link=link, spin=spin, weight_format="q4")
    thread = threading.Thread(target=nodes.node(1).follow)
    thread.start()
    assert nodes.run(step).tobytes() == alone.tobytes()
    thread.join(timeout=30)


# --- numbers out of range ---


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("name", "factor", "message"),
    [
        ("layers.1.down_proj", 1e9, "layers.1.down_proj: a sum is not finite or too large for "),
        ("layers.2.o_proj", 1e12, "layers.2.o_proj: a sum is not finite or too large for the gri"),
        ("layers.1.up_proj", 1e38, "layers.1.down_proj: a"),
        ("layers.1.k_proj", 1e38, "layers.1.attention.kv: a key or value is not finite in the KV"),
        ("norm", 1e38, "lm_head: a"),
    ],
)
def test_numbers_out_of_range_fail_the_step_on_every_node(
    name: str, factor: float, message: str, count: int, link: str
) -> None:
    scale = {name: np.float32(factor)}
    if factor == 1e38:  # beyond float32 with the values that it meets
        scale[name.replace("up_proj", "gate_proj")] = np.float32(factor)
    nodes = link_nodes(SPEC, scaled(scale), count, link=link, weight_format="f32")
    errors = nodes.run_all(one_step())
    assert sorted(errors) == list(range(count)), errors
    for error in errors.values():
        assert error.startswith(message), errors


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight_format", ["f32", "q4"])
def test_embeddings_that_are_not_finite_name_the_first_layer(
    weight_format: str, value: float
) -> None:
    nodes = link_nodes(SPEC, SOURCE, 3, weight_format=weight_format)
    nodes.embeddings = nodes.embeddings.copy()
    nodes.embeddings[TOKENS[0], 7] = value
    errors = nodes.run_all(one_step())
    assert sorted(errors) == [0, 1, 2]
    assert all(error.startswith("layers.0.") for error in errors.values()), errors


# --- peers that go or stall ---


def test_a_peer_that_closes_within_a_step_is_named_on_all_others() -> None:
    nodes = link_nodes(SPEC, SOURCE, 3, played=[2])

    def close() -> None:
        assert read_frame(nodes.sockets[2, 0])[0] == STEP
        for sock in nodes.sockets.values():
            sock.close()

    thread = threading.Thread(target=close)
    thread.start()
    errors = nodes.run_all(one_step())
    thread.join()
    assert sorted(errors) == [0, 1]
    for error in errors.values():
        assert error.startswith("node 2 closed its connection to node "), errors


@pytest.mark.parametrize("link", LINKS)
def test_a_node_that_never_follows_is_named_in_time(link: str) -> None:
    nodes = link_nodes(SPEC, SOURCE, 3, link=link, stall_seconds=0.5)
    start = time.monotonic()
    errors = nodes.run_all(one_step(), quiet=[2])
    took = time.monotonic() - start
    assert sorted(errors) == [0, 1]
    for error in errors.values():
        assert error.startswith("node 2 made no progress for "), errors
    assert 0.5 <= took < 2.5


def test_a_stalled_stage_is_named_by_the_node_that_waits_for_it_at_second_hand() -> None:
    spec = ODD_SPECS["qk_norm_window"]
    nodes = link_nodes(spec, random_source(spec, 8), 3, stages=3, stall_seconds=0.5)
    start = time.monotonic()
    errors = nodes.run_all(one_step(), quiet=[1])
    assert sorted(errors) == [0, 2]
    for error in errors.values():
        assert error.startswith("node 1 made no progress for "), errors
    assert time.monotonic() - start < 4.0


def test_node_0_that_stalls_within_a_step_is_named() -> None:
    nodes = link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=0.4)
    nodes.sockets[0, 1].sendall(frame(STEP, step_payload(TOKENS), node=0))
    with pytest.raises(StepError, match="^node 0 made no progress for 0"):
        nodes.node(1).follow()


def played_by(act: Callable[[socket.socket], None]) -> tuple[str, float]:
    """Node 0's error, and after how long, where ``act`` plays node 1 once the step is open."""
    nodes = link_nodes(SPEC, SOURCE, 2, played=[1], stall_seconds=0.6)
    sock = nodes.sockets[1, 0]

    def play() -> None:
        assert read_frame(sock)[0] == STEP
        act(sock)

    thread = threading.Thread(target=play)
    thread.start()
    start = time.monotonic()
    with pytest.raises(StepError) as caught:
        nodes.run(one_step())
    took = time.monotonic() - start
    thread.join()
    return str(caught.value), took


def report(sock: socket.socket, marks: list[int]) -> None:
    for mark in marks:
        sock.sendall(frame(PROGRESS, node=1, op=mark))
        time.sleep(0.1)


def test_a_slow_node_that_reports_progress_is_waited_for() -> None:
    def act(sock: socket.socket) -> None:
        report(sock, list(range(1, 16)))
        sock.close()

    error, took = played_by(act)
    assert error == "node 1 closed its connection to node 0"
    assert took >= 1.4


def test_reports_without_progress_do_not_put_off_a_stall() -> None:
    def act(sock: socket.socket) -> None:
        report(sock, [1] * 25)
        sock.close()

    error, took = played_by(act)
    assert error.startswith("node 1 made no progress for ")
    assert took < 2.0


# --- frames that make no sense ---

FOREIGN = "node 1 sent a frame that does not belong to this mesh"
WRONG_FROM_1: dict[str, tuple[bytes, str]] = {
    "garbage": (bytes(range(7, 207)), FOREIGN),
    "zeros": (bytes(64), FOREIGN),
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", FOREIGN),
    "magic": (frame(DATA, node=1, magic=1), FOREIGN),
    "generation": (frame(DATA, node=1, generation=2), FOREIGN),
    "sender": (frame(DATA, node=0), FOREIGN),
    "oversized": (frame(DATA, node=1, size=(1 << 30) + 1), FOREIGN),
    "most oversized": (frame(DATA, node=1, size=(1 << 32) - 1), FOREIGN),
    "kind": (frame(9, b"x", node=1), "node 1 sent a frame of an unknown kind"),
    "step": (frame(DATA, b"x", node=1, step=2, op=6), "node 1 is at step 2 operation 6 while "),
    "operation": (frame(DATA, b"x", node=1, op=9999), "node 1 is at step 1 operation 9999 while "),
    "a step": (frame(STEP, step_payload([1]), node=1), "node 1 is at step 1 operation 0 while "),
    "goodbye": (frame(BYE, node=1), "node 1 closed its connection to node 0"),
}


@pytest.mark.parametrize("wrong", WRONG_FROM_1)
def test_wrong_frames_fail_the_step(wrong: str) -> None:
    data, message = WRONG_FROM_1[wrong]

    def act(sock: socket.socket) -> None:
        sock.sendall(data)
        time.sleep(0.2)

    error, took = played_by(act)
    assert error.startswith(message)
    assert took < 0.5


@pytest.mark.parametrize("size", [0, 100, 5 * 80 * 8 + 7])
def test_a_sum_of_the_wrong_size_is_refused(size: int) -> None:
    def act(sock: socket.socket) -> None:
        while True:  # the embedding rows, then the first sum
            kind, step, op, _ = read_frame(sock)
            if kind == DATA and op:
                break
        sock.sendall(frame(DATA, bytes([4]) * 8 + bytes(size), node=1, step=step, op=op))

    error, _ = played_by(act)
    assert error.startswith("layers.0.o_proj.reduce: node 1 sent ")


WRONG_FROM_0: dict[str, tuple[bytes, str]] = {
    "garbage": (bytes(range(7, 207)), "node 0 sent a frame that does not belong to this mesh"),
    "data first": (frame(DATA, b"x", node=0), "node 0 sent data before it opened a step"),
    "empty": (frame(STEP, node=0), "node 0 opened a step with a header that makes no sense"),
    "short": (
        frame(STEP, step_payload(TOKENS)[:-4], node=0),
        "node 0 opened a step with a header that makes no sense",
    ),
    "rows": (
        frame(STEP, np.array([1 << 30, 1, 1, 0], np.int32).tobytes(), node=0),
        "node 0 opened a step with a header that makes no sense",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_FROM_0)
def test_wrong_steps_are_refused_by_followers(wrong: str) -> None:
    data, message = WRONG_FROM_0[wrong]
    nodes = link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=0.5)
    nodes.sockets[0, 1].sendall(data)
    with pytest.raises(StepError, match=f"^{message}"):
        nodes.node(1).follow()


def test_steps_with_random_faults_never_crash_or_hang_a_follower() -> None:
    rng = random.Random(1)
    whole = frame(STEP, step_payload(TOKENS), node=0)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 5])):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        nodes = follower()
        sock = nodes.sockets[0, 1]
        sock.sendall(data + frame(DATA, bytes(4 * 80 * 5), node=0)[: rng.choice([0, 40, 5000])])
        sock.close()
        try:
            while nodes.node(1).follow() == "ran":
                pass
        except StepError as error:
            assert str(error)


def follower() -> LinkedNodes:
    return link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=0.5)


# --- followers ---


@pytest.mark.parametrize("link", LINKS)
def test_a_follower_is_woken_by_its_descriptor_and_goes_on(link: str) -> None:
    nodes = link_nodes(SPEC, SOURCE, 2, link=link)
    reading, writing = os.pipe()
    timer = threading.Timer(0.2, lambda: os.write(writing, b"x"))
    timer.start()
    start = time.monotonic()
    assert nodes.node(1).follow(reading) == "woken"
    assert 0.1 < time.monotonic() - start < 2.0
    assert nodes.node(1).follow(reading) == "woken"
    os.read(reading, 1)
    assert nodes.run_all(one_step()) == {}
    timer.join()
    exchange = nodes.exchanges[0]
    assert exchange is not None
    exchange.leave()
    assert nodes.node(1).follow(reading) == "left"
    os.close(reading)
    os.close(writing)


def test_a_follower_sees_that_node_0_has_gone() -> None:
    nodes = follower()
    timer = threading.Timer(0.1, nodes.sockets[0, 1].close)
    timer.start()
    assert nodes.node(1).follow() == "left"
    timer.join()


def test_reasons_to_give_up_reach_every_peer() -> None:
    nodes = link_nodes(SPEC, SOURCE, 3)
    exchange = nodes.exchanges[2]
    assert exchange is not None
    exchange.abort("node 2 has had enough")
    errors = nodes.run_all(one_step(), quiet=[2])
    assert errors == {0: "node 2 has had enough", 1: "node 2 has had enough"}
