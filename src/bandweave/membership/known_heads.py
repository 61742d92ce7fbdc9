"""Which head is meant, and the secret of its cluster, as far as this machine knows them.

Knows the records of what runs in the background here; connects to nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bandweave.handshake.secret import read_secret
from bandweave.membership.records import cluster_folder, find_record


def head_and_secret(
    where: str,
    token_file: Path | None,
    remark: Callable[[str], None] = lambda sentence: None,
) -> tuple[str, bytes]:
    """The head at ``where``, or the one that is up on this machine, or that it has joined, where
    that is empty; and its secret. ``remark`` hears what is odd about the file of that.
    ``ValueError`` where there is none, or no secret is known."""
    records = cluster_folder()
    head = find_record(records, "head")
    joined = find_record(records, "worker")
    address = where
    if not address:
        if head is None and joined is None:
            raise ValueError(
                "no cluster is up on this machine, and this machine has joined none: `bandweave "
                "up` starts one, `bandweave join` joins one, and --cluster HOST:PORT names its head"
            )
        address = head.address if head is not None else joined.head if joined is not None else ""
    if token_file is not None:
        return address, read_secret(token_file, remark)
    for record in (head, joined):
        if record is not None and address in (record.address, record.head):
            return address, read_secret(record.token_file)
    raise ValueError(
        f"the head at {address} has a secret, which this machine does not know: give --token-file"
    )
