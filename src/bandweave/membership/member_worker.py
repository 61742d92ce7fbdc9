"""A worker that is a member of a cluster: it announces itself to a head and serves its controllers.

Knows no models.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from bandweave.membership.announcer import Announcer
from bandweave.mesh.address import Address, format_address
from bandweave.nodes.log import Log
from bandweave.nodes.worker import Worker, advertised


def run_member(
    listen: Address | str,
    secret: bytes,
    model_roots: Sequence[Path | str] = (),
    *,
    join: Address | str,
    advertise: Address | str | None = None,
    threads: int | None = None,
    cache: str = "",
    isa: str = "",
    encrypted: bool = False,
    placed_by: str = "",
    ends: bool = False,
    once: bool = False,
    log: Callable[[str], None] | None = None,
    remarks: Sequence[str] = (),
    serve: str | None = None,
    on_announced: Callable[[Announcer], None] = lambda announcer: None,
) -> bool:
    """As ``run_worker``, for the head at ``join``, which is dialled for as long as the worker runs.
    ``encrypted``: as ``Worker``'s; ``placed_by``, ``ends``: as in ``Machine``; ``on_announced`` may
    wait for the head, and ends the worker by what it raises. ``ValueError`` as there."""
    said = log or Log("worker")
    place = advertised(advertise)
    options = {} if serve is None else {"serve": serve}
    with Worker(
        listen,
        secret,
        model_roots,
        advertise=place,
        threads=threads,
        cache=cache,
        isa=isa,
        encrypted=encrypted,
        log=said,
        **options,
    ) as worker:
        announcer = Announcer(
            worker,
            join,
            secret,
            advertise=place,
            threads=threads,
            placed_by=placed_by,
            ends=ends,
            log=said,
            on_end=_end,
        )
        worker.loyalty = announcer.admit
        try:
            said(f"listening on {format_address(worker.address)}")
            for remark in remarks:
                said(remark)
            announcer.start()
            on_announced(announcer)
            worker.serve_one()
            while not once:
                worker.serve_one()
        except KeyboardInterrupt:
            said("stopped")
            return True
        finally:
            announcer.close()
    return False


def _end() -> None:
    """Ends this process as whoever stops a worker by hand would."""
    os.kill(os.getpid(), signal.SIGTERM)
