"""The head's process: the door, and who places workers, until a signal comes. Knows no models."""

from __future__ import annotations

import contextlib
from pathlib import Path
from queue import SimpleQueue

from bandweave.cli import output
from bandweave.cli.remarks import remark


def run_head(
    listen: str,
    advertise: str | None,
    token: Path,
    ray_address: str | None,
    models: tuple[Path, ...],
    threads: int | None,
    require_encryption: bool,
    ready_fd: int | None,
) -> None:
    """Runs in the foreground; ``ready_fd`` where it was started for the background. ``models``,
    ``threads`` and ``require_encryption``: of workers that Ray places."""
    from bandweave.cli.up import reachable
    from bandweave.handshake.secret import read_secret
    from bandweave.membership.background import say_ready
    from bandweave.membership.door import Door
    from bandweave.membership.own_record import own_record
    from bandweave.membership.records import cluster_folder
    from bandweave.mesh.address import format_address, is_unspecified
    from bandweave.nodes.waiting import take

    folder = cluster_folder(make=True)
    secret = read_secret(token, remark)
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(
            Door(listen, secret, advertise=advertise or "", log=output.say, option="--listen")
        )
        stack.callback(door.take_down)  # once nobody places workers any more
        where = advertise or reachable(door.address)
        if ray_address is not None:
            from bandweave.membership.ray_placing import Placing

            stack.enter_context(
                Placing(
                    door, where, ray_address, token=token, models=models, threads=threads,
                    require_encryption=require_encryption, log=output.say,
                )
            )  # fmt: skip
        background = ready_fd is not None
        stack.enter_context(
            own_record(folder, "head", token=token, background=background, address=where)
        )
        output.say(f"the head listens at {where}")
        # From this machine itself, whatever others know it by.
        host, port = door.address
        near = format_address(("127.0.0.1" if is_unspecified(host) else host, port))
        say_ready(ready_fd, address=where, near=near, ray=ray_address)
        take(SimpleQueue[None]())  # until a signal ends it
