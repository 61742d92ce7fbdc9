"""A switch whose cables take their time: a process that passes frames between namespaces, each some
milliseconds after it came. For systems whose kernel delays none by itself.

Run as a program: ``DELAY_SECONDS NAMESPACE:INTERFACE ...``; it prints a line once all are joined.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import select
import struct
import sys
import time

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME = 65536


def open_tap(namespace: str, interface: str) -> int:
    """A new interface in a namespace; what is sent there can be read here."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        with open(f"/run/netns/{namespace}") as there:
            if libc.setns(there.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", interface.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        return descriptor
    finally:
        libc.setns(own, _CLONE_NEWNET)
        os.close(own)


def main(delay: float, ends: list[str]) -> None:
    """Passes every frame on to all others, or to the one that has the address."""
    taps = [open_tap(*end.split(":")) for end in ends]
    known: dict[bytes, int] = {}
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    print("joined", flush=True)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, tap, frame = heapq.heappop(waiting)
            try:
                os.write(tap, frame)
            except OSError:  # a full queue drops it, as a switch does; or the end is down
                continue
        left = None if not waiting else max(0.0, waiting[0][0] - now)
        for tap in select.select(taps, [], [], left)[0]:
            try:
                frame = os.read(tap, _FRAME)
            except OSError:
                continue
            known[frame[6:12]] = tap
            target = known.get(frame[:6])
            for other in taps if target is None else [target]:
                if other != tap:
                    number += 1
                    due = time.monotonic() + delay
                    heapq.heappush(waiting, (due, number, other, frame))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
