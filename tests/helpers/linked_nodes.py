"""Native nodes linked one by one, by pipes or sockets, and a raw socket in the place of a node.

Unlike ``NativeNodes`` it lets a test leave a link out, hold its other end, and see each node fail.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bandweave import _native
from bandweave.checkpoints.source import TensorSource, widen
from bandweave.executors.executor import ExecutorOptions, Step, StepError
from bandweave.executors.native import NativeExecutor
from bandweave.mesh.sealing import AES, CHACHA, SEALS_A_KEY, Keys
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.nodes.libcrypto import load_libcrypto
from bandweave.programs.lowering import lower
from bandweave.programs.program import Buffer, Op, Program, View
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import Weights
from tests.helpers.crc32c import crc32c
from tests.helpers.random_model import F32

HEADER = struct.Struct("<HHHHIIIIII")  # native/exchange/frame.h, FrameHeader
MAGIC = 0x3357
STEP, DATA, PROGRESS, ABORT, BYE = 1, 2, 3, 4, 5
GENERATION = 1

LinkMaker = Callable[[_native.Exchange, _native.Exchange, int, int], None]


def frame(
    kind: int,
    payload: bytes = b"",
    *,
    node: int,
    step: int = 1,
    op: int = 0,
    part: int = 0,
    magic: int = MAGIC,
    generation: int = GENERATION,
    size: int | None = None,
) -> bytes:
    """A frame as node ``node`` would send it; ``size`` in the header may be a lie, but its
    checksums are right."""
    claimed = len(payload) if size is None else size
    fields = (magic, kind, node, part, generation, step, op, claimed, crc32c(payload))
    header = HEADER.pack(*fields, 0)[:-4]
    return header + struct.pack("<I", crc32c(header)) + payload


def local_link(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
    _native.join_locally(a, b)


def pair_link(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
    left, right = socket.socketpair()
    a.add_tcp(high, left.detach())
    b.add_tcp(low, right.detach())


def loopback() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    return left, right


def loopback_link(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
    left, right = loopback()
    a.add_tcp(high, left.detach())
    b.add_tcp(low, right.detach())


def slow_link(
    latency: float, bytes_per_s: float = 1e9
) -> Callable[[_native.Exchange, _native.Exchange, int, int], None]:
    def join(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
        left, right = loopback()
        a.add_emulated(high, left.detach(), latency, bytes_per_s)
        b.add_emulated(low, right.detach(), latency, bytes_per_s)

    return join


# Those of every sealed link here: of the lower node, and of the higher.
LOW_KEYS = Keys(send=b"l" * 32, receive=b"h" * 32)
HIGH_KEYS = Keys(send=b"h" * 32, receive=b"l" * 32)


def add_sealed(
    exchange: _native.Exchange, peer: int, sock: socket.socket, keys: Keys, cipher: str = AES,
    seals_a_key: int = SEALS_A_KEY,
) -> None:  # fmt: skip
    load_libcrypto()
    exchange.add_sealed(peer, sock.detach(), cipher, keys.send, keys.receive, seals_a_key)


def sealed_link(cipher: str = AES, seals_a_key: int = SEALS_A_KEY) -> LinkMaker:
    """Over TCP of loopback."""

    def join(a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
        left, right = loopback()
        add_sealed(a, high, left, LOW_KEYS, cipher, seals_a_key)
        add_sealed(b, low, right, HIGH_KEYS, cipher, seals_a_key)

    return join


class Relay:
    """A link of two nodes whose bytes pass through this process, which counts them by sender.
    ``pause``: seconds that each piece of at most ``most`` bytes takes."""

    def __init__(self, a: _native.Exchange, b: _native.Exchange, low: int, high: int) -> None:
        self.carried = {low: 0, high: 0}
        self.pause, self.most = 0.0, 1 << 16
        left, near = socket.socketpair()
        far, right = socket.socketpair()
        a.add_tcp(high, left.detach())
        b.add_tcp(low, right.detach())
        self._ends = (near, far)
        for source, target, sender in ((near, far, low), (far, near, high)):
            threading.Thread(target=self._pass, args=(source, target, sender), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, sender: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(self.most):
                self.carried[sender] += len(data)
                if self.pause:
                    time.sleep(self.pause)
                target.sendall(data)

    def close(self) -> None:
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
            end.close()


LINKS: dict[str, LinkMaker] = {
    "sealed": sealed_link(),
    "sealed-chacha20": sealed_link(CHACHA, 6),
    "local": local_link,
    "pair": pair_link,
    "loopback": loopback_link,
    "emulated": slow_link(200e-6, 1e8),
}


@dataclass(kw_only=True)
class LinkedNodes:
    """Executors and exchanges by node; those of a node that a test plays itself are None."""

    executors: list[NativeExecutor | None]
    exchanges: list[_native.Exchange | None]
    sockets: dict[tuple[int, int], socket.socket]  # (played node, other): the played node's end
    embeddings: F32

    def close(self) -> None:
        """Closes the raw sockets; the nodes' own ends close with them."""
        for sock in self.sockets.values():
            sock.close()

    def node(self, node: int) -> NativeExecutor:
        executor = self.executors[node]
        assert executor is not None
        return executor

    def run(self, step: Step) -> F32:
        return self.node(0).run(step, self.embeddings[step.tokens])

    def run_all(
        self, step: Step, *, quiet: Sequence[int] = (), once: bool = False
    ) -> dict[int, str]:
        """Runs a step on every node but the quiet ones; the error of each that failed.

        Followers go on until they fail or node 0 leaves, or follow ``once``.
        """
        errors: dict[int, str] = {}

        def follow(executor: NativeExecutor) -> None:
            while executor.follow() == "ran" and not once:
                pass

        def guarded(node: int, work: Callable[[], object]) -> None:
            try:
                work()
            except StepError as error:
                errors[node] = str(error)

        threads = []
        for node, executor in enumerate(self.executors):
            if executor is None or node in quiet:
                continue
            work = partial(follow, executor) if node else partial(self.run, step)
            threads.append(threading.Thread(target=guarded, args=(node, work), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        return errors


def link_nodes(
    spec: ModelSpec,
    source: TensorSource,
    count: int,
    *,
    link: str | LinkMaker = "pair",
    stages: int = 1,
    played: Sequence[int] = (),
    weight_format: str = "f32",
    stall_seconds: float = 10.0,
    spin: bool = False,
    sealed: bool = False,
    **more: Any,
) -> LinkedNodes:
    """``count`` nodes in equal shares; the ``played`` ones are raw sockets, at the other ends of
    ``sealed`` links. ``more`` goes to ``ExecutorOptions``."""
    names = [f"node {node}" for node in range(count)]
    exchanges = [
        None if node in played else _native.Exchange(node, names, GENERATION, stall_seconds, spin)
        for node in range(count)
    ]
    sockets: dict[tuple[int, int], socket.socket] = {}
    for high in range(count):
        for low in range(high):
            a, b = exchanges[low], exchanges[high]
            if a is not None and b is not None:
                make = LINKS[link] if isinstance(link, str) else link
                make(a, b, low, high)
                continue
            for node, peer, exchange in ((low, high, a), (high, low, b)):
                if exchange is not None:
                    own, others = socket.socketpair()
                    if sealed:
                        add_sealed(exchange, peer, own, LOW_KEYS if exchange is a else HIGH_KEYS)
                    else:
                        exchange.add_tcp(peer, own.detach())
                    others.settimeout(10)
                    sockets[peer, node] = others
    graph, split = build_graph(spec), make_split(spec, [1] * count, stages=stages)
    executors: list[NativeExecutor | None] = []
    for node, exchange in enumerate(exchanges):
        if node in played:
            executors.append(None)
            continue
        program = lower(graph, split, node)
        weights = load_weights(program, source, weight_format)
        options = ExecutorOptions(
            num_pages=4, max_pages=4, kv_format="f32", spin=spin, max_rows=128, **more
        )
        executors.append(NativeExecutor(program, weights, options, exchange if count > 1 else None))
    table = widen(source.read("embed_tokens", Range(start=0, stop=spec.vocab_size)))
    return LinkedNodes(executors=executors, exchanges=exchanges, sockets=sockets, embeddings=table)


def circle(count: int, *, stall_seconds: float) -> LinkedNodes:
    """Nodes each of whose programs begins by receiving from the next: none can ever go on."""
    names = [f"node {node}" for node in range(count)]
    exchanges = [
        _native.Exchange(node, names, GENERATION, stall_seconds, False) for node in range(count)
    ]
    for high in range(count):
        for low in range(high):
            pair_link(exchanges[low], exchanges[high], low, high)
    x = View(buffer="x", offset=0, width=64)
    options = ExecutorOptions(num_pages=1, max_pages=1)
    executors: list[NativeExecutor | None] = []
    for node, exchange in enumerate(exchanges):
        peers = ((node + 1) % count,)
        receive = Op(kind="recv", name="recv", outputs=(x,), attributes={"tag": 1, "peers": peers})
        program = Program(
            node=node,
            num_nodes=count,
            hidden_size=64,
            vocab_size=64,
            buffers={"x": Buffer(name="x", width=64)},
            weights={},
            vectors={},
            ops=(receive,),
        )
        weights = Weights(arena=_native.Arena(64), matrices={}, vectors={})
        executors.append(NativeExecutor(program, weights, options, exchange))
    return LinkedNodes(
        executors=executors,
        exchanges=list(exchanges),
        sockets={},
        embeddings=np.zeros((64, 64), np.float32),
    )


def read_frame(sock: socket.socket) -> tuple[int, int, int, bytes]:
    """The next frame that is no progress: kind, step, op and payload."""
    while True:
        head = _exactly(sock, HEADER.size)
        _, kind, _, _, _, step, op, size, payload_sum, header_sum = HEADER.unpack(head)
        payload = _exactly(sock, size)
        assert (header_sum, payload_sum) == (crc32c(head[:-4]), crc32c(payload))
        if kind != PROGRESS:
            return kind, step, op, payload


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        more = sock.recv(size - len(parts))
        if not more:
            raise ConnectionError("the node has closed its end")
        parts += more
    return bytes(parts)


def step_payload(tokens: Sequence[int]) -> bytes:
    """A step of one new sequence on page 0, as node 0 sends it; the last row wants logits."""
    rows = len(tokens)
    words = [rows, 1, 1, 0, *tokens, *([0] * rows), *range(rows), *([0] * (rows - 1)), 1, 0]
    return np.array(words, np.int32).tobytes()
