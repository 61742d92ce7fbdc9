"""The record of this process itself, for as long as it runs in a role."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bandweave.membership.records import Record, remove_record, running, write_record


@contextlib.contextmanager
def own_record(
    folder: Path, role: str, *, token: Path, background: bool, address: str = "", head: str = ""
) -> Iterator[None]:
    """A record of this process, for as long as this lasts; see ``Record``."""
    write_record(
        folder,
        Record(
            role=role,
            address=address,
            head=head,
            token_file=str(token.resolve()),
            log=str(folder / f"{role}.log") if background else "",
            background=background,
            scratch="",
            processes=(running(os.getpid()),),
        ),
    )
    try:
        yield
    finally:
        remove_record(folder, role, os.getpid())
