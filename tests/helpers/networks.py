"""Networks of one's own: namespaces joined by cables, and ports that lead elsewhere."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from benchmarks.chaos.namespace import inside


def run(*command: str) -> None:
    """Skips the test where the system does not allow it."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr.decode().strip()}")


@dataclass(frozen=True, kw_only=True)
class End:
    """One end of a cable: a namespace of its own, the interface there, and its addresses."""

    name: str
    interface: str
    address: str
    link_local: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Before a command that is to run there."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *command: str) -> None:
        run(*self.prefix, *command)

    def inside(self, function: Callable[[], Any]) -> Any:
        """What a function gives that runs in this network, in a thread of its own."""
        return inside(self.name, function)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[End, End]]:
    """Two networks and the cable between them; each knows its interface by another name."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    tag = f"bw{secrets.token_hex(3)}"
    ends = tuple(
        End(
            name=f"{tag}{letter}",
            interface=f"{tag}{letter}{interface}",
            address=f"10.213.9.{number}",
            link_local=f"fe80::{number}",
        )
        for letter, interface, number in (("a", "left", 1), ("b", "rite", 2))
    )
    one, two = ends
    try:
        for end in ends:
            run("ip", "netns", "add", end.name)
        run(
            "ip", "link", "add", one.interface, "netns", one.name,
            "type", "veth", "peer", "name", two.interface, "netns", two.name,
        )  # fmt: skip
        for end in ends:
            device = ("dev", end.interface)
            end.run("ip", "addr", "add", f"{end.address}/24", *device)
            with contextlib.suppress(pytest.skip.Exception):  # a system without IPv6
                end.run("ip", "addr", "add", f"{end.link_local}/64", *device, "nodad")
            end.run("ip", "link", "set", end.interface, "up")
            end.run("ip", "link", "set", "lo", "up")
        yield one, two
    finally:
        for end in ends:
            subprocess.run(["ip", "netns", "del", end.name], check=False, capture_output=True)


@contextlib.contextmanager
def forwarded(listening: socket.socket, to: tuple[str, int], connect: Callable) -> Iterator[None]:
    """Passes on what comes at a listening socket, as the port of a container that is published by
    a process. ``connect`` makes the connections onward."""
    opened: list[socket.socket] = []

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                opened.append(near)
                far = connect(to)
                opened.append(far)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for sock in opened:
            sock.close()


@contextlib.contextmanager
def filtered_hosts() -> Iterator[tuple[End, End]]:
    """Two hosts each of which has a table of packet filters, ``inet cable``, that is empty yet."""
    if shutil.which("nft") is None:
        pytest.skip("needs nft")
    with two_hosts() as ends:
        for end in ends:
            end.run("nft", "add table inet cable")
        yield ends
