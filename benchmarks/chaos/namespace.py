"""Functions that run in a network namespace. Needs root."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


def inside(name: str, function: Callable[[], Any]) -> Any:
    """What a function gives that runs in the namespace of that name, in a thread of its own: a
    thread that has entered another network does not come back."""
    results: list[Any] = []
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{name}") as namespace:
                if libc.setns(namespace.fileno(), _NEW_NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            results.append(function())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
