"""Cable: two network namespaces of this machine, joined by a link of a given delay and rate.

A veth pair with ``tc netem`` where the kernel has it, else ``relay.py`` between two TUN devices.
Needs root and iproute2. Whatever was made is removed, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.contestant import ROOT

_ADDRESSES = ("10.213.9.1", "10.213.9.2")
_DEVICE = "cable"
_MTU = 9000
_PORT = 7399
_PINGS = 300
_SECONDS = 60.0
_PING = """\
import socket, statistics, sys, time
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if count == 0:
    server = socket.create_server((address, port))
    print("ready", flush=True)
    link, _ = server.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := link.recv(64):
        link.sendall(data)
else:
    link = socket.create_connection((address, port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        link.sendall(b"x" * 32)
        link.recv(64)
        times.append(time.perf_counter() - start)
    print(1e6 * statistics.median(times[count // 10:]))
"""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A kind of link: the round trip of a small message, its jitter, the rate."""

    name: str
    round_trip_us: float = 0.0
    jitter_us: float = 0.0
    gbit: float = 100.0


@dataclass(frozen=True, kw_only=True)
class Cable:
    """A link that is there. ``by``: what delays its packets."""

    link: Link
    names: tuple[str, str]
    by: str
    addresses: tuple[str, str] = _ADDRESSES

    def inside(self, end: int) -> tuple[str, ...]:
        """What stands before a command that shall run at one end."""
        return ("ip", "netns", "exec", self.names[end])

    def round_trip_us(self) -> float:
        """The median round trip of a small message over TCP, as measured."""
        command = [sys.executable, "-c", _PING, self.addresses[1], str(_PORT)]
        with subprocess.Popen(
            [*self.inside(1), *command, "0"], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                done = subprocess.run(
                    [*self.inside(0), *command, str(_PINGS)],
                    check=True, capture_output=True, text=True, timeout=_SECONDS,
                )  # fmt: skip
            finally:
                server.kill()
        return float(done.stdout)


def why_not() -> str:
    """Why no cable can be laid here; empty where one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is missing"
    probe = f"bw{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", probe], check=False, capture_output=True).returncode:
        return "this system allows no network namespaces"
    _ip("netns", "del", probe)
    return ""


@contextlib.contextmanager
def lay(link: Link) -> Iterator[Cable]:
    """A cable whose measured round trip comes as close to the link's as this machine can."""
    with _pair() as names:
        if not link.round_trip_us:
            _veth(names)
            yield Cable(link=link, names=names, by="veth")
            return
        _veth(names)
        plain = Cable(link=link, names=names, by="veth").round_trip_us()
        if _netem(names, link, (link.round_trip_us - plain) / 2):
            yield Cable(link=link, names=names, by="netem")
            return
        for name in names[:1]:
            _ip("-n", name, "link", "del", _DEVICE)  # its peer goes with it
        delay = 0.0
        with _relay(names, link, delay):
            own = Cable(link=link, names=names, by="relay").round_trip_us()
        delay = max(0.0, (link.round_trip_us - own) / 2)
        with _relay(names, link, delay):
            yield Cable(link=link, names=names, by="relay")


@contextlib.contextmanager
def _pair() -> Iterator[tuple[str, str]]:
    tag = f"bw{secrets.token_hex(3)}"
    names = (f"{tag}a", f"{tag}b")
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _veth(names: tuple[str, str]) -> None:
    _ip("link", "add", _DEVICE, "netns", names[0], "mtu", str(_MTU),
        "type", "veth", "peer", "name", _DEVICE, "netns", names[1], "mtu", str(_MTU))  # fmt: skip
    _configure(names)


def _configure(names: tuple[str, str]) -> None:
    for name, own, other in zip(names, _ADDRESSES, reversed(_ADDRESSES), strict=True):
        _ip("-n", name, "addr", "add", f"{own}/32", "peer", other, "dev", _DEVICE)
        _ip("-n", name, "link", "set", _DEVICE, "up", "mtu", str(_MTU))


def _netem(names: tuple[str, str], link: Link, delay_us: float) -> bool:
    """Whether ``tc netem`` now delays both ends."""
    if shutil.which("tc") is None:
        return False
    for name in names:
        command = ["tc", "-n", name, "qdisc", "add", "dev", _DEVICE, "root", "netem",
                   "delay", f"{max(0.0, delay_us):.0f}us"]  # fmt: skip
        command += [f"{link.jitter_us:.0f}us"] if link.jitter_us else []
        command += ["rate", f"{link.gbit * 1000:.0f}mbit", "limit", "10000"]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return False
    return True


@contextlib.contextmanager
def _relay(names: tuple[str, str], link: Link, delay_us: float) -> Iterator[None]:
    for name in names:
        _ip("-n", name, "tuntap", "add", "mode", "tun", "name", _DEVICE)
    _configure(names)
    command = [sys.executable, "-m", "benchmarks.relay", *names, "--device", _DEVICE]
    command += ["--delay-us", str(delay_us), "--gbit", str(link.gbit)]
    command += ["--jitter-us", str(link.jitter_us)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise OSError("the software cable (benchmarks/relay.py) did not start")
            yield
        finally:
            process.kill()
            process.wait()
            for name in names:
                subprocess.run(["ip", "-n", name, "link", "del", _DEVICE], check=False,
                               capture_output=True)  # fmt: skip


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from error
