"""Which nodes leave a generation when they are asked to, and which hang."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bandweave.mesh.channel import Channel
from bandweave.messages import Alive, Left, Progress, encode
from bandweave.nodes.leaving import Leaving, await_left
from bandweave.nodes.node_handle import NodeHandle


class Told(NodeHandle):
    """A node that a test plays at ``far``."""

    def __init__(self, node: int, stack: ExitStack) -> None:
        ours, theirs = socket.socketpair()
        channel = Channel(ours, f"node {node}")
        super().__init__(node=node, name=f"node {node}", channel=channel, address=None)
        self.far = Channel(theirs, "the controller")
        stack.callback(self.channel.close)
        stack.callback(self.far.close)

    def alive(self) -> bool:
        return True

    def exit_reason(self) -> str | None:
        return None

    def wait(self, timeout: float | None = None) -> bool:
        return False

    def kill(self) -> None: ...


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_those_that_hang_hold_up_nobody(stack: ExitStack) -> None:
    """Whatever else they say; two of them are waited for at once."""
    leaves, silent, chatty, dead, late = (Told(node, stack) for node in range(5))
    leaves.far.send(encode(Alive(ids=(), tokens=(), progress=3)))
    leaves.far.send(encode(Left()))
    dead.far.close()
    over = threading.Event()

    def chat() -> None:
        while not over.wait(0.1):
            chatty.far.offer(encode(Alive(ids=(), tokens=(), progress=1)))

    talking = threading.Thread(target=chat)
    timer = threading.Timer(0.3, late.far.send, [encode(Left())])
    for thread in (talking, timer):
        thread.start()
    try:
        asked = [Leaving(one, 0.0, 2.0, False) for one in (silent, chatty, late, dead, leaves)]
        began = time.monotonic()
        left, hanging = await_left(asked)
        took = time.monotonic() - began
    finally:
        over.set()
        talking.join()
        timer.join()
    assert left == [late, leaves] and hanging == [silent, chatty, dead]
    assert took >= 1.9
    for one in asked[:2]:  # 2 s of silence, and half a second more for one that lives
        assert one.deadline <= began + 2.5


def test_the_bound_is_for_silence_and_not_for_loading(stack: ExitStack) -> None:
    node = Told(0, stack)
    now = time.monotonic()
    assert Leaving(node, 0.0, 5.0, False).deadline == pytest.approx(now + 5, abs=0.5)
    assert Leaving(node, 3.0, 5.0, False).deadline == pytest.approx(now + 2, abs=0.5)
    assert Leaving(node, 60.0, 5.0, False).deadline == pytest.approx(now + 1, abs=0.5)
    loads, hurries = (Leaving(node, 4.0, 5.0, loading) for loading in (True, False))
    before = loads.deadline
    time.sleep(0.1)
    node.far.send(encode(Progress(done=1, total=2)))
    while not node.channel.poll():
        time.sleep(0.01)
    assert not loads.has_left()
    assert loads.deadline > before + 3  # it has said something
    assert hurries.deadline == pytest.approx(before, abs=0.5)
