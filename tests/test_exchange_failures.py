"""The native exchange among peers that die, stall or talk nonsense: every failure has a name and
an end."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bandweave import _native
from bandweave.checkpoints.source import TensorSource
from bandweave.executors.executor import Step, StepError
from tests.helpers.linked_nodes import (
    ABORT,
    BYE,
    DATA,
    HEADER,
    LINKS,
    PROGRESS,
    STEP,
    LinkedNodes,
    Relay,
    circle,
    frame,
    link_nodes,
    read_frame,
    slow_link,
    step_payload,
)
from tests.helpers.random_model import ODD_SPECS, random_source, tiny_spec
from tests.helpers.reference_nodes import Book

SPEC = ODD_SPECS["ten_heads_of_8"]
SOURCE = random_source(SPEC, 8)
TOKENS = [3, 1, 4, 1, 5]


def one_step() -> Step:
    return Book(num_sequences=1, pages_each=1).step([(0, TOKENS)])


Link = Callable[..., LinkedNodes]


@pytest.fixture
def linked() -> Iterator[Link]:
    """``link_nodes`` whose raw sockets are closed in the end; by default on SPEC and SOURCE."""
    with ExitStack() as stack:

        def linked(count: int, source: TensorSource = SOURCE, **options: Any) -> LinkedNodes:
            nodes = link_nodes(options.pop("spec", SPEC), source, count, **options)
            stack.callback(nodes.close)
            return nodes

        yield linked


# --- peers that go or stall ---


def test_a_peer_that_closes_within_a_step_is_named_on_all_others(linked: Link) -> None:
    nodes = linked(3, played=[2])

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
def test_a_node_that_never_follows_is_named_in_time(linked: Link, link: str) -> None:
    nodes = linked(3, link=link, stall_seconds=0.5)
    start = time.monotonic()
    errors = nodes.run_all(one_step(), quiet=[2])
    took = time.monotonic() - start
    assert sorted(errors) == [0, 1]
    for error in errors.values():
        assert error.startswith("node 2 made no progress for "), errors
    assert 0.5 <= took < 4.0


def test_a_stalled_stage_is_named_by_the_node_that_waits_for_it_at_second_hand(
    linked: Link,
) -> None:
    spec = ODD_SPECS["qk_norm_window"]
    nodes = linked(3, random_source(spec, 8), spec=spec, stages=3, stall_seconds=0.5)
    start = time.monotonic()
    errors = nodes.run_all(one_step(), quiet=[1])
    assert sorted(errors) == [0, 2]
    for error in errors.values():
        assert error.startswith("node 1 made no progress for "), errors
    assert time.monotonic() - start < 4.0


def test_a_slow_stage_is_waited_for_by_those_who_wait_for_it_at_second_hand(
    linked: Link,
) -> None:
    """Nodes 0 and 2 go on waiting while node 1 works, five times as long as the bound."""
    spec = ODD_SPECS["qk_norm_window"]
    nodes = linked(3, random_source(spec, 8), spec=spec, stages=3, stall_seconds=0.4, played=[1])

    def work() -> None:
        for mark in range(1, 21):
            for peer in (0, 2):
                nodes.sockets[1, peer].sendall(frame(PROGRESS, node=1, op=mark))
            time.sleep(0.1)
        for peer in (0, 2):
            nodes.sockets[1, peer].close()

    thread = threading.Thread(target=work)
    thread.start()
    start = time.monotonic()
    errors = nodes.run_all(one_step())
    took = time.monotonic() - start
    thread.join()
    assert sorted(errors) == [0, 2]
    for error in errors.values():
        assert error.startswith("node 1 closed its connection to node "), errors
    assert took >= 1.9


def test_a_slow_stage_that_computes_is_waited_for(linked: Link) -> None:
    """Real nodes: every stage takes longer than the bound, in pieces that are shorter."""
    spec = tiny_spec(num_layers=36, hidden_size=256, intermediate_size=256, vocab_size=64)
    nodes = linked(
        3, random_source(spec, 1), spec=spec, stages=3, stall_seconds=1.0,
        weight_format="f32", isa="portable",
    )  # fmt: skip
    step = Book(num_sequences=1, pages_each=2).step([(0, list(range(40)))])
    start = time.monotonic()
    assert nodes.run_all(step, once=True) == {}
    if time.monotonic() - start < 3.5:
        pytest.skip("this processor is too fast to show anything")


@pytest.mark.parametrize("count", [2, 3, 5])
def test_nodes_that_wait_in_a_circle_time_out(count: int) -> None:
    """Each receives from the next: nobody works, however much they all report."""
    nodes = circle(count, stall_seconds=0.5)
    step = one_step()
    step = replace(step, wants_logits=np.zeros_like(step.wants_logits))  # none are made
    start = time.monotonic()
    errors = nodes.run_all(step)
    took = time.monotonic() - start
    assert sorted(errors) == list(range(count))
    for error in errors.values():
        assert "made no progress for " in error, errors
    assert 0.5 <= took < 3.0


def test_an_abort_of_a_node_that_nothing_is_due_from_is_heard(linked: Link) -> None:
    """Node 0 waits for node 2's logits while node 1, which owes it nothing, gives up."""
    spec = ODD_SPECS["qk_norm_window"]
    nodes = linked(3, random_source(spec, 8), spec=spec, stages=3, played=[1, 2])
    reason = b"node 1 has had enough"
    timer = threading.Timer(0.3, nodes.sockets[1, 0].sendall, [frame(ABORT, reason, node=1)])
    timer.start()
    start = time.monotonic()
    with pytest.raises(StepError, match="^node 1 has had enough$"):
        nodes.run(one_step())
    assert 0.2 < time.monotonic() - start < 1.0
    timer.join()


def test_waiting_to_send_to_a_node_that_is_ahead_is_no_busy_loop() -> None:
    """Node 1's message is here and more behind it, but node 1 does not read ours."""
    spec = tiny_spec(hidden_size=4000, intermediate_size=64, num_layers=1, vocab_size=64)
    nodes = link_nodes(spec, random_source(spec, 1), 2, played=[1], stall_seconds=1.0)
    sock = nodes.sockets[1, 0]
    step = Book(num_sequences=1, pages_each=1).step([(0, [i % 64 for i in range(60)])])

    def play() -> None:
        while True:  # up to the embedding rows; the sum that follows is never read
            kind, number, op, _ = read_frame(sock)
            if kind == DATA:
                break
        tags = bytes([4]) * (60 * 63 // 8 * 8 + 8)
        whole = frame(DATA, tags[:3784] + bytes(60 * 4000 * 4), node=1, step=number, op=6)
        with contextlib.suppress(OSError):
            sock.sendall(whole + frame(PROGRESS, node=1, op=1))

    thread = threading.Thread(target=play)
    thread.start()
    spent = time.process_time()
    with pytest.raises(StepError, match="made no progress"):
        nodes.run(step)
    assert time.process_time() - spent < 0.7
    thread.join()
    nodes.close()


def test_node_0_that_stalls_within_a_step_is_named(linked: Link) -> None:
    nodes = linked(2, played=[0], stall_seconds=0.4)
    nodes.sockets[0, 1].sendall(frame(STEP, step_payload(TOKENS), node=0))
    with pytest.raises(StepError, match="^node 0 made no progress for 0"):
        nodes.node(1).follow()


def played_by(
    linked: Link, act: Callable[[socket.socket], None], stall_seconds: float = 10.0
) -> tuple[str, float]:
    """Node 0's error, and after how long, where ``act`` plays node 1 once the step is open."""
    nodes = linked(2, played=[1], stall_seconds=stall_seconds)
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


def test_a_slow_node_that_reports_progress_is_waited_for(linked: Link) -> None:
    def act(sock: socket.socket) -> None:
        report(sock, list(range(1, 21)))
        sock.close()

    error, took = played_by(linked, act, stall_seconds=1.0)
    assert error == "node 1 closed its connection to node 0"
    assert took >= 1.9


def test_reports_without_progress_do_not_put_off_a_stall(linked: Link) -> None:
    def act(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            report(sock, [1] * 30)
        sock.close()

    error, took = played_by(linked, act, stall_seconds=0.5)
    assert error.startswith("node 1 made no progress for ")
    assert took < 2.5


# --- peers that send or take a byte now and then ---


def drip(sock: socket.socket, data: bytes, seconds: float) -> None:
    """Sends a byte at a time, as long as somebody listens."""
    with contextlib.suppress(OSError):
        for index in range(len(data)):
            sock.sendall(data[index : index + 1])
            time.sleep(seconds)
    sock.close()


@pytest.mark.parametrize("begun", [0, 20, HEADER.size, HEADER.size + 100])
def test_a_frame_that_comes_byte_by_byte_is_a_stall(linked: Link, begun: int) -> None:
    """Wherever in it the dripping begins."""
    whole = frame(DATA, bytes(2000), node=1, op=6)

    def act(sock: socket.socket) -> None:
        sock.sendall(whole[:begun])
        drip(sock, whole[begun : begun + 60], 0.1)

    error, took = played_by(linked, act, stall_seconds=0.5)
    assert error.startswith("node 1 made no progress for ")
    assert took < 3.0


def test_reports_do_not_fill_a_frame_that_lies_about_its_length(linked: Link) -> None:
    """They are taken for its payload; each of them says that node 1 works."""

    def act(sock: socket.socket) -> None:
        sock.sendall(frame(DATA, node=1, op=6, size=3000))
        with contextlib.suppress(OSError):
            report(sock, list(range(60)))
        sock.close()

    error, took = played_by(linked, act, stall_seconds=0.5)
    assert error.startswith("node 1 made no progress for ")
    assert took < 3.0


def test_a_step_that_comes_byte_by_byte_is_a_stall(linked: Link) -> None:
    """A follower waits for its next step without bound, but not for the rest of one."""
    nodes = linked(2, played=[0], stall_seconds=0.5)
    whole = frame(STEP, step_payload(TOKENS), node=0)
    thread = threading.Thread(target=drip, args=(nodes.sockets[0, 1], whole, 0.1))
    thread.start()
    start = time.monotonic()
    with pytest.raises(StepError, match="^node 0 made no progress for 0"):
        nodes.node(1).follow()
    assert time.monotonic() - start < 4.0
    nodes.executors[1] = None
    nodes.exchanges[1] = None  # closes the link, which ends the dripping
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_peer_that_takes_a_byte_now_and_then_is_a_stall() -> None:
    """Sums of 960 KB, of which the other end takes a byte every 50 ms."""
    spec = tiny_spec(hidden_size=4000, intermediate_size=64, num_layers=1, vocab_size=64)
    nodes = link_nodes(spec, random_source(spec, 1), 2, played=[1], stall_seconds=0.7)
    sock, done = nodes.sockets[1, 0], threading.Event()

    def take() -> None:
        with contextlib.suppress(OSError):
            while not done.wait(0.05) and sock.recv(1):
                pass

    thread = threading.Thread(target=take)
    thread.start()
    step = Book(num_sequences=1, pages_each=1).step([(0, [i % 64 for i in range(60)])])
    start = time.monotonic()
    with pytest.raises(StepError, match="^node 1 made no progress for "):
        nodes.run(step)
    assert time.monotonic() - start < 5.0
    done.set()
    thread.join(timeout=30)
    nodes.close()


def test_a_slow_link_is_no_stall() -> None:
    """10 Mbit/s and 100 ms, over which a sum of a prompt takes longer than the bound."""
    spec = tiny_spec(hidden_size=4000, intermediate_size=64, num_layers=1, vocab_size=64)
    source = random_source(spec, 1)
    step = Book(num_sequences=1, pages_each=2).step([(0, [i % 64 for i in range(120)])])
    alone = link_nodes(spec, source, 1, weight_format="q4").run(step)
    nodes = link_nodes(
        spec, source, 2, link=slow_link(0.1, 1.25e6), stall_seconds=1.0, weight_format="q4"
    )
    thread = threading.Thread(target=nodes.node(1).follow)
    thread.start()
    start = time.monotonic()
    assert nodes.run(step).tobytes() == alone.tobytes()
    assert time.monotonic() - start > 3.0  # of which each of the two sums takes half
    thread.join(timeout=30)


def test_messages_that_all_come_but_trickle_are_a_stall() -> None:
    """Each comes whole within the bound, and counts as work; a step of them takes many times as
    long as it usually does."""
    spec = tiny_spec(num_layers=12, vocab_size=64)
    relays: list[Relay] = []

    def join(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
        relays.append(Relay(a, b, low, high))

    nodes = link_nodes(spec, random_source(spec, 1), 2, link=join, stall_seconds=1.0)
    step, errors = one_step(), list[str]()

    def follow() -> None:
        try:
            while nodes.node(1).follow() == "ran":
                pass
        except StepError as error:
            errors.append(str(error))

    thread = threading.Thread(target=follow)
    thread.start()
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join, 30)
        stack.callback(relays[0].close)
        for _ in range(6):  # what is usual
            nodes.run(step)
        relays[0].pause = 0.2
        start = time.monotonic()
        # Each end sees the other as the slow one; who is first tells the other.
        with pytest.raises(StepError, match=r"^node [01] made no progress for \d\.\d s but for"):
            nodes.run(step)
        assert time.monotonic() - start < 4.0  # the whole step would take 24 messages of 0.2 s
    # The reason may trickle too long to be heard before the end of the connection.
    assert len(errors) == 1
    assert "made no progress" in errors[0] or "closed its connection" in errors[0]


def played_beside_a_quiet_one(linked: Link, *words: bytes) -> tuple[str, float]:
    """Node 0's error, and after how long, where node 1 says nothing and node 2 has sent its part
    of the first sum, and then says something else, before it ends the connection."""
    nodes = linked(3, played=[1, 2])
    sock = nodes.sockets[2, 0]

    def play() -> None:
        while read_frame(sock)[0] != DATA:
            pass
        sock.sendall(b"".join([frame(DATA, bytes(64), node=2, op=6), *words]))
        sock.close()

    thread = threading.Thread(target=play)
    thread.start()
    start = time.monotonic()
    with pytest.raises(StepError) as caught:
        nodes.run(one_step())
    took = time.monotonic() - start
    thread.join()
    return str(caught.value), took


def test_the_end_of_a_peer_is_seen_behind_what_it_has_sent(linked: Link) -> None:
    error, took = played_beside_a_quiet_one(linked)
    assert error == "node 2 closed its connection to node 0"
    assert took < 5.0  # half of the bound, for which node 1 would have been waited for


def test_a_peers_reason_is_heard_behind_what_it_has_sent(linked: Link) -> None:
    reason = frame(ABORT, b"node 2 has had enough", node=2)
    error, took = played_beside_a_quiet_one(linked, frame(PROGRESS, node=2, op=7), reason)
    assert error == "node 2 has had enough"
    assert took < 5.0


def test_a_peer_that_has_sent_its_part_tells_whom_it_waits_for(linked: Link) -> None:
    """Node 1, which waits for node 2 at first hand, blames whoever node 2 waits for."""
    nodes = linked(4, played=[1, 2, 3], stall_seconds=0.5)

    def play(node: int, waits_for: int) -> None:
        sock = nodes.sockets[node, 0]
        with contextlib.suppress(OSError):
            while read_frame(sock)[0] != DATA:
                pass
            if node == 2:
                sock.sendall(frame(DATA, bytes(64), node=2, op=6))
            for _ in range(40):
                sock.sendall(frame(PROGRESS, node=node, op=7, part=waits_for + 1))
                time.sleep(0.05)

    # Node 1 says that it waits for node 2, which has sent its part and waits for node 3.
    parts = ((1, 2), (2, 3), (3, -1))
    threads = [threading.Thread(target=play, args=part) for part in parts]
    for thread in threads:
        thread.start()
    with pytest.raises(StepError, match="^node 3 made no progress for "):
        nodes.run(one_step())
    nodes.close()
    for thread in threads:
        thread.join()


# --- frames that make no sense ---

FOREIGN = "node 1 sent a frame that does not belong to this mesh"
DAMAGED = "the link from node 1 delivers damaged data to node 0 "
TOO_LARGE = "node 1 sent a frame of "
WRONG_FROM_1: dict[str, tuple[bytes, str]] = {
    "garbage": (bytes(range(7, 207)), DAMAGED),
    "zeros": (bytes(64), DAMAGED),
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", DAMAGED),
    "magic": (frame(DATA, node=1, magic=1), FOREIGN),
    "generation": (frame(DATA, node=1, generation=2), FOREIGN),
    "sender": (frame(DATA, node=0), FOREIGN),
    "oversized": (frame(DATA, node=1, size=(1 << 30) + 1), TOO_LARGE),
    "most oversized": (frame(DATA, node=1, size=(1 << 32) - 1), TOO_LARGE),
    "larger than needed": (frame(DATA, node=1, size=1 << 20), TOO_LARGE),
    "another message": (frame(DATA, b"x", node=1, op=6, part=1), "node 1 is at step 1 operation 6"),
    "kind": (frame(9, b"x", node=1), "node 1 sent a frame of an unknown kind"),
    "step": (frame(DATA, b"x", node=1, step=2, op=6), "node 1 is at step 2 operation 6.0 while "),
    "operation": (
        frame(DATA, b"x", node=1, op=9999),
        "node 1 is at step 1 operation 9999.0 while ",
    ),
    "a step": (frame(STEP, step_payload([1]), node=1), "node 1 is at step 1 operation 0.0 while "),
    "goodbye": (frame(BYE, node=1), "node 1 closed its connection to node 0"),
    "no reason": (frame(ABORT, node=1), "node 1 gave up without a reason"),
    "waits for nobody": (
        frame(PROGRESS, node=1, part=3),
        "node 1 says that it waits for a node that does not exist",
    ),
    "waits for nobody at all": (
        frame(PROGRESS, node=1, part=0x8000),
        "node 1 says that it waits for a node that does not exist",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_FROM_1)
def test_wrong_frames_fail_the_step(linked: Link, wrong: str) -> None:
    data, message = WRONG_FROM_1[wrong]

    def act(sock: socket.socket) -> None:
        sock.sendall(data)
        time.sleep(0.2)

    error, took = played_by(linked, act)
    assert error.startswith(message)
    assert took < 5.0


@pytest.mark.parametrize("size", [0, 100, 5 * 80 * 8 + 7])
def test_a_sum_of_the_wrong_size_is_refused(linked: Link, size: int) -> None:
    def act(sock: socket.socket) -> None:
        while True:  # the embedding rows, then the first sum
            kind, step, op, _ = read_frame(sock)
            if kind == DATA and op:
                break
        sock.sendall(frame(DATA, bytes([4]) * 8 + bytes(size), node=1, step=step, op=op))

    error, _ = played_by(linked, act)
    assert error.startswith("layers.0.o_proj.reduce: node 1 sent ")


WRONG_FROM_0: dict[str, tuple[bytes, str]] = {
    "garbage": (bytes(range(7, 207)), "the link from node 0 delivers damaged data to node 1 "),
    "foreign": (
        frame(STEP, step_payload(TOKENS), node=0, generation=7),
        "node 0 sent a frame that does not belong to this mesh",
    ),
    "a later step": (
        frame(STEP, step_payload(TOKENS), node=0, step=2),
        "node 0 opened step 2 where step 1 was due",
    ),
    "odd": (
        frame(STEP, step_payload(TOKENS) + b"x", node=0),
        "node 0 opened a step with a header that makes no sense",
    ),
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
def test_wrong_steps_are_refused_by_followers(linked: Link, wrong: str) -> None:
    data, message = WRONG_FROM_0[wrong]
    nodes = linked(2, played=[0], stall_seconds=0.5)
    nodes.sockets[0, 1].sendall(data)
    with pytest.raises(StepError, match=f"^{message}"):
        nodes.node(1).follow()


def test_steps_with_random_faults_never_crash_or_hang_a_follower(linked: Link) -> None:
    rng = random.Random(1)
    whole = frame(STEP, step_payload(TOKENS), node=0)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 5])):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        nodes = follower(linked)
        sock = nodes.sockets[0, 1]
        sock.sendall(data + frame(DATA, bytes(4 * 80 * 5), node=0)[: rng.choice([0, 40, 5000])])
        sock.close()
        try:
            while nodes.node(1).follow() == "ran":
                pass
        except StepError as error:
            assert str(error)


def follower(linked: Link) -> LinkedNodes:
    return linked(2, played=[0], stall_seconds=0.5)


def test_a_follower_sees_that_node_0_has_gone(linked: Link) -> None:
    nodes = follower(linked)
    timer = threading.Timer(0.1, nodes.sockets[0, 1].close)
    timer.start()
    assert nodes.node(1).follow() == "left"
    timer.join()
