"""How long two pinned nodes of one machine take to add up one row of grid values.

Runs the native executor on a program that holds nothing but exchanges: the opening of a step and
``all_reduce_add`` over and over. A step with many of them less a step with none, over their
number, is one exchange: encode, send, receive, check, add, and add to the residual. Knows
programs and sockets; knows no models.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time

import numpy as np

from bandweave import _native
from bandweave.executors.executor import ExecutorOptions, Step
from bandweave.executors.native import NativeExecutor
from bandweave.host.machine import usable_cpus
from bandweave.mesh.sealing import AES
from bandweave.mesh.shared import share_memory
from bandweave.nodes.libcrypto import load_libcrypto
from bandweave.programs.program import Buffer, Op, Program, View
from bandweave.weights.packed import Weights

WIDTH = 2048
_EXCHANGES = 64  # of a step
_NAMES = ("node 0", "node 1")
_SECONDS = 120.0
_ARRAY = np.zeros(1, np.int32)


def measure(transport: str, width: int = WIDTH, steps: int = 400) -> list[float]:
    """Seconds of one exchange of ``width`` values, for each of ``steps`` steps; ``transport`` is
    ``"tcp"`` (loopback), ``"sealed"`` (the same, encrypted) or ``"shared"`` (memory)."""
    cpus = usable_cpus()
    if len(cpus) < 2:
        raise ValueError(f"{len(cpus)} usable processor; two pinned nodes need 2")
    empty = _steps(transport, 0, width, steps, cpus)
    full = _steps(transport, _EXCHANGES, width, steps, cpus)
    rest = float(np.median(empty))
    return [(seconds - rest) / _EXCHANGES for seconds in full]


def compare(width: int, steps: int, rounds: int) -> dict[str, float]:
    """Median seconds of an exchange over loopback, plain and encrypted in turn, and what the latter
    is dearer by: the median of the rounds' differences."""
    found: dict[str, list[float]] = {"tcp": [], "sealed": []}
    for number in range(rounds):
        for transport in sorted(found, reverse=number % 2 == 0):
            found[transport].append(float(np.median(measure(transport, width, steps))))
    plain, sealed = (np.array(found[transport]) for transport in ("tcp", "sealed"))
    return {
        "plain_seconds": float(np.median(plain)),
        "sealed_seconds": float(np.median(sealed)),
        "dearer_seconds": float(np.median(sealed - plain)),
    }


def _steps(
    transport: str, exchanges: int, width: int, steps: int, cpus: tuple[int, ...]
) -> list[float]:
    """Seconds of each step on node 0; node 1 is a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.exchange", "--follow", str(port)]
        command += ["--width", str(width), "--exchanges", str(exchanges), "--cpu", str(cpus[1])]
        command += ["--transport", transport]
        follower = subprocess.Popen(command)
        try:
            server.settimeout(_SECONDS)
            link, _ = server.accept()
            ends = _node(0, link, transport, exchanges, width, cpus[0])
            seconds = _lead(*ends, width, steps)
            follower.wait(timeout=_SECONDS)
        finally:
            follower.kill()
            follower.wait()
    return seconds


def _lead(
    executor: NativeExecutor, exchange: _native.Exchange, width: int, steps: int
) -> list[float]:
    step = Step(
        tokens=_ARRAY,
        slots=_ARRAY,
        positions=_ARRAY,
        wants_logits=np.zeros(1, np.bool_),
        page_tables=np.zeros((1, 1), np.int32),
    )
    embeddings = np.zeros((1, width), np.float32)
    seconds = []
    for _ in range(steps + steps // 4):
        start = time.perf_counter()
        executor.run(step, embeddings)
        seconds.append(time.perf_counter() - start)
    exchange.leave()
    return seconds[-steps:]


def _follow(port: int, transport: str, exchanges: int, width: int, cpu: int) -> None:
    link = socket.create_connection(("127.0.0.1", port))
    executor, _ = _node(1, link, transport, exchanges, width, cpu)
    while executor.follow() == "ran":
        pass


def _node(
    node: int,
    link: socket.socket,
    transport: str,
    exchanges: int,
    width: int,
    cpu: int,
    cipher: str = AES,
) -> tuple[NativeExecutor, _native.Exchange]:
    exchange = _native.Exchange(node, _NAMES, 1, 5.0, True)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = 1 - node
    if transport == "shared":
        memory = share_memory(node, {peer: link}, _native.shared_transport_bytes(), _SECONDS)
        exchange.add_shared(peer, link.detach(), memory[peer], node < peer)
    elif transport == "sealed":
        load_libcrypto()
        keys = (b"0" * 32, b"1" * 32)  # of the two directions
        exchange.add_sealed(peer, link.detach(), cipher, keys[node], keys[peer])
    else:
        exchange.add_tcp(peer, link.detach())
    weights = Weights(arena=_native.Arena(64), matrices={}, vectors={})
    options = ExecutorOptions(num_pages=1, max_pages=1, max_rows=1, cpus=(cpu,))
    program = _program(node, exchanges, width)
    return NativeExecutor(program, weights, options, exchange), exchange


def _program(node: int, exchanges: int, width: int) -> Program:
    x = View(buffer="x", offset=0, width=width)
    grid = View(buffer="grid", offset=0, width=width)
    group = (0, 1)
    first = Op(kind="embed", name="embed", outputs=(x,), attributes={"tag": 1, "group": group})
    adds = [
        Op(
            kind="all_reduce_add",
            name=f"reduce {number}",
            inputs=(grid, x),
            outputs=(x,),
            attributes={"tag": 2 + number, "group": group, "contributors": group},
        )
        for number in range(exchanges)
    ]
    return Program(
        node=node,
        num_nodes=2,
        hidden_size=width,
        vocab_size=1,
        buffers={
            "x": Buffer(name="x", width=width),
            "grid": Buffer(name="grid", width=width, dtype="grid"),
        },
        weights={},
        vectors={},
        ops=(first, *adds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=("tcp", "sealed", "shared"), default="tcp")
    parser.add_argument("--compare", type=int, metavar="ROUNDS",
                        help="plain and encrypted TCP in turn, so often")  # fmt: skip
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--follow", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--exchanges", type=int, default=_EXCHANGES, help=argparse.SUPPRESS)
    parser.add_argument("--cpu", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.follow:
        _follow(
            arguments.follow,
            arguments.transport,
            arguments.exchanges,
            arguments.width,
            arguments.cpu,
        )
        return
    if arguments.compare:
        compared = compare(arguments.width, arguments.steps, arguments.compare)
        json.dump({"width": arguments.width, **compared}, sys.stdout)
        print()
        return
    seconds = measure(arguments.transport, arguments.width, arguments.steps)
    json.dump({"width": arguments.width, "exchange_seconds": seconds}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
