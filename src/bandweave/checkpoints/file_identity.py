"""FileIdentity: tells whether a file is the very one that was read before, and still as it was.

Size and time of writing do not: `touch`, `cp -p`, images and stores set times, and fine-tunes of
one model have one size. No program can set the time of an inode's last change (ctime), so that it
tells an untouched file, together with the inode and its device. Git trusts the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import astuple, dataclass
from typing import Self

# A file that is written in the very moment in which it is read may not change its times any more:
# clocks of file systems go by steps of up to 10 ms.
_SETTLED_NS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class FileIdentity:
    """Of a file as it was when it was opened; ``settled``: it had been left alone for a moment."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    settled: bool

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """From what the system says of an open file."""
        return cls(
            device=status.st_dev,
            inode=status.st_ino,
            size=status.st_size,
            modified_ns=status.st_mtime_ns,
            changed_ns=status.st_ctime_ns,
            settled=status.st_ctime_ns + _SETTLED_NS < time.time_ns(),
        )

    def key(self, header_sha256: bytes) -> str:
        """64 hexadecimal digits that no other file has, nor this one once it was written to; empty
        for a file that has not settled."""
        if not self.settled:
            return ""
        text = json.dumps([*astuple(self)[:-1], header_sha256.hex()])
        return hashlib.sha256(text.encode()).hexdigest()
