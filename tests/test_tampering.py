"""A man in the middle of control connections and links: whatever he flips, repeats, reorders, cuts,
drops, sends back or adds, no byte of it is believed."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from bandweave import _native
from bandweave.executors.executor import Step, StepError
from bandweave.handshake.encryption import ALWAYS
from bandweave.handshake.handshake import HandshakeError, connect
from bandweave.handshake.listener import Listener
from bandweave.mesh.channel import Channel
from bandweave.mesh.sealing import RECORD_BYTES, Opener, Sealer
from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.node_group import NodeGroup
from tests.helpers.connections import LOCAL, SECRET, hello
from tests.helpers.linked_nodes import (
    HIGH_KEYS,
    LOW_KEYS,
    STEP,
    LinkedNodes,
    add_sealed,
    frame,
    link_nodes,
    loopback,
    step_payload,
)
from tests.helpers.random_model import ODD_SPECS, random_source
from tests.helpers.reference_nodes import Book
from tests.helpers.tampering import FLIP, HOWS, Between, Proxy, Tampering
from tests.helpers.workers import WorkerProcess

SPEC = ODD_SPECS["ten_heads_of_8"]
SOURCE = random_source(SPEC, 8)
TOKENS = [3, 1, 4, 1, 5]
MESSAGES = 5
PATIENCE = 0.4  # for what was dropped on the way


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


# Control connections


def converse(tampering: Tampering) -> str:
    """A handshake and some messages each way in turn, so that a piece is one message, through the
    proxy; how it ended. Asserts that each side believed a beginning of what the other said, and
    all of it only on a connection that nobody altered."""
    sent = {side: [{"from": side, "number": n} for n in range(MESSAGES)] for side in ("a", "b")}
    heard: dict[str, list[object]] = {"a": [], "b": []}
    errors: list[str] = []

    def talk(channel: Channel, own: str) -> None:
        try:
            for message in sent[own]:
                if own == "b":
                    heard[own].append(channel.receive(PATIENCE))
                channel.send(message, timeout=2)
                if own == "a":
                    heard[own].append(channel.receive(PATIENCE))
        except OSError as error:
            errors.append(f"{type(error).__name__}: {error}")
        channel.close()

    with (
        Listener(LOCAL, SECRET, session="s", node=0, timeout=1) as listener,
        Proxy(listener.address, tampering.change) as proxy,
    ):
        own = hello(purpose="control", node=3)
        try:
            made = connect(proxy.address, SECRET, own, encryption=ALWAYS, timeout=0.8)
        except HandshakeError as error:
            return f"refused: {error}"
        assert made.hello == hello(node=0)
        there = listener.get_control(2)
        assert there.hello == own
        far = Channel(there.socket, "the connector", keys=there.keys)
        thread = threading.Thread(target=talk, args=(far, "b"))
        thread.start()
        talk(made.channel("the acceptor"), "a")
        thread.join()
    for side, other in (("a", "b"), ("b", "a")):
        assert heard[side] == sent[other][: len(heard[side])]
    whole = all(len(one) == MESSAGES for one in heard.values())
    assert whole or errors
    # A connection that ends in its handshake is made anew, by who connects.
    assert not (whole and proxy.pairs[-1].altered), tampering
    return "whole" if whole else "; ".join(errors)


@pytest.mark.parametrize("forward", [True, False])
def test_nothing_altered_is_believed_of_a_control_connection(forward: bool) -> None:
    """Of its handshake (two pieces each way) and of what follows."""
    cases = [
        Tampering(how=how, seed=seed, at=seed, forward=forward) for how in HOWS for seed in range(6)
    ]
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(converse, cases))
    assert all(case.done for case in cases)
    said = "\n".join(ends)
    assert said.count("was tampered with or is damaged: what came is not what was sent") > 15
    assert "refused: " in said


def test_an_untouched_conversation_is_whole() -> None:
    assert converse(Tampering(how=FLIP, seed=0, at=1000)) == "whole"


def test_a_tampered_control_connection_ends_the_session_and_names_the_node() -> None:
    """As a command meets it: the worker's node does not obey, and the command does not believe."""
    with WorkerProcess() as worker:
        host, _, port = worker.address.rpartition(":")
        for forward in (True, False):
            tampering = Tampering(how=FLIP, seed=1, at=1000, forward=forward)
            with (
                Proxy((host, int(port)), tampering.change) as proxy,
                HostLauncher(
                    [f"127.0.0.1:{proxy.address[1]}"], SECRET, encryption=ALWAYS
                ) as launcher,
            ):
                handles = launcher.start(1)
                group = NodeGroup(launcher, handles, stall_seconds=1.0)
                group.send(0, {"type": "echo", "text": "here"})
                assert group.receive(lambda: 0)[1]["text"] == "here"
                tampering.at = tampering._seen  # the next piece
                group.send(0, {"type": "echo", "text": "there"})
                with pytest.raises(StepError) as caught:
                    group.receive(lambda: 0)
                assert "was tampered with or is damaged" in str(caught.value)
                assert handles[0].name in str(caught.value)


# Links


def one_step() -> Step:
    return Book(num_sequences=1, pages_each=1).step([(0, TOKENS)])


def tamper_link(tampering: Tampering, stall_seconds: float) -> tuple[LinkedNodes, list[Between]]:
    """Two nodes, one link, and somebody in it; the lower node is the near end."""
    between: list[Between] = []

    def link(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
        left, near = loopback()
        far, right = loopback()
        add_sealed(a, high, left, LOW_KEYS)
        add_sealed(b, low, right, HIGH_KEYS)
        between.append(Between(near, far, tampering.change))

    return link_nodes(SPEC, SOURCE, 2, link=link, stall_seconds=stall_seconds), between


def compute(tampering: Tampering, right: bytes) -> dict[int, str]:
    """One step on both nodes; the error of each that failed. Asserts that an answer is right."""
    nodes, between = tamper_link(tampering, 0.7)
    answers: list[bytes] = []

    def run(step: Step) -> object:
        answers.append(nodes.node(0).run(step, nodes.embeddings[step.tokens]).tobytes())
        return None

    nodes.run = run  # type: ignore[method-assign]
    errors = nodes.run_all(one_step(), once=True)
    for one in between:
        one.close()
    assert all(answer == right for answer in answers)
    assert 0 in errors or answers
    return errors


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("forward", [True, False])
def test_nothing_altered_is_believed_of_a_link(how: str, forward: bool) -> None:
    right = link_nodes(SPEC, SOURCE, 1).run(one_step()).tobytes()
    cases = [Tampering(how=how, seed=seed, at=seed, forward=forward) for seed in range(5)]
    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(lambda case: compute(case, right), cases))
    reached = [errors for case, errors in zip(cases, ends, strict=True) if case.done]
    assert len(reached) >= 3
    assert (
        sum(map(bool, reached)) >= len(reached) - 1
    )  # its last piece may be one that nobody reads
    if how == FLIP:
        ends = (0, 1) if forward else (1, 0)
        sentence = (
            f"the link from node {ends[0]} to node {ends[1]} was tampered with or is damaged: what "
            "came is not what was sent"
        )
        assert sum(sentence in errors.values() for errors in reached) >= len(reached) - 1


def test_links_that_nobody_tampers_with_give_the_answer() -> None:
    alone = link_nodes(SPEC, SOURCE, 1).run(one_step())
    for link in ("sealed", "sealed-chacha20"):
        for count in (2, 3):
            nodes = link_nodes(SPEC, SOURCE, count, link=link)
            threads = [threading.Thread(target=nodes.node(node).follow) for node in range(1, count)]
            for thread in threads:
                thread.start()
            assert nodes.run(one_step()).tobytes() == alone.tobytes()
            for thread in threads:
                thread.join(timeout=30)
            assert nodes.node(0).bill(decode=True)["sealing"] > 0 or (
                nodes.node(0).bill(decode=False)["sealing"] > 0
            )


def test_records_are_the_same_in_both_languages(stack: ExitStack) -> None:
    """A node's first step, sealed here; what it answers, opened here."""
    nodes = link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=2.0, sealed=True)
    stack.callback(nodes.close)
    sock = nodes.sockets[0, 1]
    sock.sendall(Sealer(LOW_KEYS.send).seal(frame(STEP, step_payload(TOKENS), node=0)))

    def follow() -> None:
        with pytest.raises(StepError):
            nodes.node(1).follow()

    thread = threading.Thread(target=follow)
    thread.start()
    opener, plain, piece = Opener(LOW_KEYS.receive), b"", b""
    while len(plain) < 32:
        piece = sock.recv(opener.wanted, socket.MSG_WAITALL)
        plain += opener.open(piece)
    assert plain[:2] == (0x3357).to_bytes(2, "little")
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_flipped_bit_in_any_byte_of_a_record_is_named(stack: ExitStack) -> None:
    whole = frame(STEP, step_payload(TOKENS), node=0)
    record, rng = Sealer(LOW_KEYS.send).seal(whole), random.Random(1)
    for place in [*range(24), *rng.sample(range(24, len(record)), 16), len(record) - 1]:
        nodes = link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=5.0, sealed=True)
        stack.callback(nodes.close)
        changed = bytearray(record)
        changed[place] ^= 1 << rng.randrange(8)
        nodes.sockets[0, 1].sendall(changed)
        start = time.monotonic()
        with pytest.raises(StepError) as caught:
            nodes.node(1).follow()
        assert str(caught.value) == (
            "the link from node 0 to node 1 was tampered with or is damaged: what came is not what "
            "was sent"
        )
        assert time.monotonic() - start < 4.0


@pytest.mark.parametrize(
    "bytes_sent",
    [frame(STEP, step_payload(TOKENS), node=0), Sealer(HIGH_KEYS.send).seal(b"x" * 99), bytes(500)],
    ids=["plain", "of the other direction", "zeros"],
)
def test_what_was_not_sealed_for_a_link_is_not_read(bytes_sent: bytes, stack: ExitStack) -> None:
    nodes = link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=5.0, sealed=True)
    stack.callback(nodes.close)
    nodes.sockets[0, 1].sendall(bytes_sent)
    with pytest.raises(StepError, match="was tampered with or is damaged"):
        nodes.node(1).follow()


def test_a_record_that_stops_in_the_midst_is_a_stall(stack: ExitStack) -> None:
    """A node waits for a step as long as it takes, but not for the rest of one."""
    nodes = link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=0.5, sealed=True)
    stack.callback(nodes.close)
    record = Sealer(LOW_KEYS.send).seal(frame(STEP, step_payload(TOKENS), node=0))
    nodes.sockets[0, 1].sendall(record[:-1])
    start = time.monotonic()
    with pytest.raises(StepError, match="node 0 made no progress"):
        nodes.node(1).follow()
    assert 0.3 < time.monotonic() - start < 5


def test_records_that_come_in_any_pieces_open(stack: ExitStack) -> None:
    """What is in them is refused for what it is."""
    payload = random.Random(3).randbytes(3 * RECORD_BYTES)
    record = Sealer(LOW_KEYS.send).seal(frame(STEP, payload, node=0))
    for size in (1, 19, 20, 21, 4000, len(record)):
        nodes = link_nodes(SPEC, SOURCE, 2, played=[0], stall_seconds=5.0, sealed=True)
        stack.callback(nodes.close)
        sock = nodes.sockets[0, 1]

        def send(sock: socket.socket = sock, size: int = size) -> None:
            with contextlib.suppress(OSError):  # refused meanwhile
                for first in range(0, len(record), size):
                    sock.sendall(record[first : first + size])

        thread = threading.Thread(target=send)
        thread.start()
        with pytest.raises(StepError, match="more than any step of this model needs"):
            nodes.node(1).follow()
        nodes.executors[1] = None  # closes its link
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=30)
        assert not thread.is_alive()
