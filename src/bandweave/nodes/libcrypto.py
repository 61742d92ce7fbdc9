"""libcrypto: where a system has OpenSSL's library, with which links between nodes are sealed.

The native exchange opens it when the first link needs it, so that nobody needs its headers to
build, nor the library on one machine alone. Knows names and places of files.
"""

from __future__ import annotations

import ctypes.util
import sys
from collections.abc import Iterator

from bandweave import _native

_LINUX = ("libcrypto.so.3", "libcrypto.so.1.1")
# By whole paths: macOS ends a process that opens its own libcrypto.dylib.
_DARWIN = tuple(
    f"{prefix}/opt/{formula}/lib/libcrypto.{version}.dylib"
    for prefix in ("/opt/homebrew", "/usr/local", "/opt/local")
    for formula, version in (("openssl@3", "3"), ("openssl@1.1", "1.1"))
)
_REMEDY = {
    "darwin": "brew install openssl@3",
    "linux": "Debian, Ubuntu: apt install libssl3;  Fedora: dnf install openssl-libs",
}


def load_libcrypto() -> None:
    """Makes sealed links possible. ``ValueError`` with what to do where the library is missing."""
    for name in _candidates():
        if _native.load_libcrypto(name):
            return
    remedy = _REMEDY.get(sys.platform, "install OpenSSL 3")
    raise ValueError(
        "encryption between machines needs OpenSSL's libcrypto, and this machine has none: "
        f"{remedy}; on a network that you trust --no-encrypt goes without"
    )


def _candidates() -> Iterator[str]:
    yield from _DARWIN if sys.platform == "darwin" else _LINUX
    if sys.platform != "darwin" and (found := ctypes.util.find_library("crypto")):
        yield found
