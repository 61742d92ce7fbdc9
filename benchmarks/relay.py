"""A cable in software: carries packets between two network namespaces, late and at a limited rate.

For kernels without ``tc netem``. Each end is a TUN device in its namespace; this process reads a
packet here, holds it as long as the cable would, and writes it there. Packets keep their order.
Knows packets; knows nothing of what they carry.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_LARGEST = 65536
_SLEEP_SLACK = 20e-6  # the last of a wait is polled: sleeping is no more exact than this


def open_tun(namespace: str, device: str) -> int:
    """The descriptor of a TUN device that exists in a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    inside = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(inside, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
    finally:
        os.close(inside)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
    return descriptor


class Direction:
    """Packets on their way from one descriptor to another. Times in seconds."""

    def __init__(self, target: int, *, delay: float, jitter: float, bytes_per_s: float) -> None:
        self._target = target
        self._delay, self._jitter, self._rate = delay, jitter, bytes_per_s
        self._generator = random.Random(0)
        self._free_at = self._last_due = 0.0
        self._waiting: deque[tuple[float, bytes]] = deque()

    def take(self, packet: bytes, now: float) -> None:
        """A packet enters the cable."""
        self._free_at = max(self._free_at, now) + len(packet) / self._rate
        extra = self._generator.gauss(0.0, self._jitter) if self._jitter else 0.0
        due = self._free_at + max(0.0, self._delay + extra)
        self._last_due = due = max(due, self._last_due)
        self._waiting.append((due, packet))

    def give(self, now: float) -> None:
        """Packets whose time has come leave it."""
        while self._waiting and self._waiting[0][0] <= now:
            packet = self._waiting.popleft()[1]
            with contextlib.suppress(BlockingIOError):  # a full queue loses it, as cables do
                os.write(self._target, packet)

    @property
    def next_due(self) -> float:
        return self._waiting[0][0] if self._waiting else float("inf")


def carry(ends: tuple[int, int], directions: tuple[Direction, Direction]) -> None:
    """Carries packets both ways for ever; ``directions[i]`` takes what comes from ``ends[i]``."""
    while True:
        left = min(direction.next_due for direction in directions) - time.monotonic()
        if left > _SLEEP_SLACK:
            wait = None if left == float("inf") else (left - _SLEEP_SLACK)
            select.select(ends, [], [], wait)
        for end, direction in zip(ends, directions, strict=True):
            while True:
                try:
                    packet = os.read(end, _LARGEST)
                except BlockingIOError:
                    break
                direction.take(packet, time.monotonic())
        for direction in directions:
            direction.give(time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("namespaces", nargs=2)
    parser.add_argument("--device", required=True, help="the TUN device, of one name in both")
    parser.add_argument("--delay-us", type=float, default=0.0, help="one way")
    parser.add_argument("--jitter-us", type=float, default=0.0, help="standard deviation")
    parser.add_argument("--gbit", type=float, default=100.0)
    arguments = parser.parse_args()
    ends = tuple(open_tun(namespace, arguments.device) for namespace in arguments.namespaces)
    if hasattr(os, "sched_setscheduler"):
        # A cable does not wait for a processor; polling nodes must not hold it up.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    first, second = (
        Direction(
            target,
            delay=arguments.delay_us / 1e6,
            jitter=arguments.jitter_us / 1e6,
            bytes_per_s=arguments.gbit * 1e9 / 8,
        )
        for target in reversed(ends)
    )
    print("ready", flush=True)
    sys.stdout.close()
    carry((ends[0], ends[1]), (first, second))


if __name__ == "__main__":
    main()
