"""``bandweave join``: makes this machine a part of a cluster, in the background."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import click

from bandweave.cli import output
from bandweave.cli.options import cache_folder, json_option, usable_isa, usable_threads
from bandweave.cli.worker import (
    MEMBER_LISTEN,
    encryption_remarks,
    require_encryption_option,
)

F = TypeVar("F", bound=Callable[..., Any])

_SECONDS = 30.0
_FIRST_SECONDS = 15.0  # in which a head that is there has answered
_MOST_TOKEN_BYTES = 4096


def worker_options(function: F) -> F:
    """What a worker in the background is told."""
    options = (
        click.option("--worker-listen", default=MEMBER_LISTEN, metavar="HOST:PORT",
                     show_default=True,
                     help="Where the worker of this machine listens; port 0 takes any free one."),
        click.option("--models", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
                     help="Where to look for copies of models. May be given several times. Others "
                          "come from machines that have them."),
        click.option("--threads", type=click.IntRange(1, 1024), metavar="T",
                     help="Threads to compute with at most. Default: one for each processor."),
        require_encryption_option,
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@click.command("join", short_help="Make this machine a part of a cluster.")
@click.argument("head")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE",
              help="The cluster's secret. Default: standard input, as the line of `bandweave up` "
                   "gives it.")  # fmt: skip
@click.option("--advertise", metavar="HOST:PORT",
              help="The address by which others reach the worker, if it is none of this "
                   "machine's.")  # fmt: skip
@click.option("--ray", "ray_address", metavar="ADDRESS",
              help="Join the Ray cluster at ADDRESS, which places the worker here.")  # fmt: skip
@worker_options
@click.option("--foreground", is_flag=True, hidden=True)
@click.option("--placed-by", default="", hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
@json_option
def command(
    head: str,
    token_file: Path | None,
    advertise: str | None,
    ray_address: str | None,
    worker_listen: str,
    models: tuple[Path, ...],
    threads: int | None,
    require_encryption: bool,
    foreground: bool,
    placed_by: str,
    ready_fd: int | None,
    as_json: bool,
) -> None:
    """Starts a worker in the background that joins the cluster of the head at HEAD (HOST:PORT).

    It dials again, with growing pauses, when the head goes. `bandweave leave` ends it; so does
    `bandweave down` at the head. `bandweave worker --join` does the same in the foreground.
    """
    from bandweave.mesh.address import format_address, parse_address

    head = format_address(parse_address(head))
    if foreground:
        assert token_file is not None
        _run(
            head, token_file, advertise, worker_listen, models, threads, require_encryption,
            placed_by, ready_fd,
        )  # fmt: skip
        return
    if ray_address is not None and require_encryption:
        raise ValueError(
            "Ray places the worker of this machine as the head says: give --require-encryption to "
            "`bandweave up --ray` there"
        )
    from bandweave.membership.records import cluster_folder, find_record

    folder = cluster_folder(make=True)
    # What Ray places here belongs to Ray's own membership.
    for role in ("worker",) if placed_by else ("worker", "ray"):
        record = find_record(folder, role)
        if record is not None:
            where = record.head or record.address
            raise ValueError(
                f"this machine has joined the cluster of the head at {where} already; `bandweave "
                "leave` ends that"
            )
    token = token_file if token_file is not None else _token_from_input(folder)
    if ray_address is not None:
        from bandweave.membership.ray_processes import join_ray

        join_ray(folder, ray_address, token, head=head, cpus=threads)
        output.say(f"joined the Ray cluster at {ray_address}, which places a worker here; "
                   "`bandweave leave` ends it")  # fmt: skip
        return
    said = start_worker(
        folder, head, token, listen=worker_listen, advertise=advertise, models=models,
        threads=threads, require_encryption=require_encryption, placed_by=placed_by,
    )  # fmt: skip
    if as_json:
        output.print_json({"head": head, "addresses": said["addresses"]})
        return
    output.say(f"joined the cluster of the head at {head}, as {', '.join(said['addresses'])}; "
               "`bandweave leave` ends it")  # fmt: skip


def start_worker(
    folder: Path,
    head: str,
    token: Path,
    *,
    listen: str,
    advertise: str | None = None,
    models: tuple[Path, ...] = (),
    threads: int | None = None,
    require_encryption: bool = False,
    placed_by: str = "",
) -> dict[str, Any]:
    """A worker in the background that has joined; what it said of itself. ``BackgroundError`` where
    it does not come up, or the head does not take it."""
    from bandweave.membership.background import start

    arguments = ["join", head, "--foreground", "--token-file", str(token.resolve()),
                 "--worker-listen", listen]  # fmt: skip
    for root in models:
        if not root.expanduser().is_dir():
            raise ValueError(f"--models {root}: there is no such folder")
        arguments += ["--models", str(root.expanduser().resolve())]
    if advertise is not None:
        arguments += ["--advertise", advertise]
    if threads is not None:
        arguments += ["--threads", str(threads)]
    if require_encryption:
        arguments.append("--require-encryption")
    if placed_by:
        arguments += ["--placed-by", placed_by]
    _, said = start(
        arguments, folder / "worker.log", seconds=_SECONDS, environment=dict(os.environ)
    )
    return said


def _run(
    head: str,
    token: Path,
    advertise: str | None,
    listen: str,
    models: tuple[Path, ...],
    threads: int | None,
    require_encryption: bool,
    placed_by: str,
    ready_fd: int | None,
) -> None:
    """The worker itself."""
    from bandweave.handshake.secret import read_secret
    from bandweave.membership.announcer import Announcer
    from bandweave.membership.background import say_ready
    from bandweave.membership.member_worker import run_member
    from bandweave.membership.own_record import own_record
    from bandweave.membership.records import cluster_folder

    folder = cluster_folder(make=True)
    remarks = encryption_remarks(require_encryption)
    secret = read_secret(token, remarks.append)

    def begin(announcer: Announcer) -> None:
        trouble = announcer.wait(_FIRST_SECONDS)
        if trouble:
            raise ConnectionError(f"could not join the head at {head}: {trouble}")
        background = ready_fd is not None
        joined.enter_context(
            own_record(folder, "worker", token=token, background=background, head=head)
        )
        say_ready(ready_fd, addresses=announcer.describe().addresses)

    with ExitStack() as joined:
        run_member(
            listen, secret, models, join=head, advertise=advertise, threads=usable_threads(threads),
            cache=cache_folder(), isa=usable_isa(None), encrypted=require_encryption,
            placed_by=placed_by, ends=True, remarks=remarks, on_announced=begin,
        )  # fmt: skip


def _token_from_input(folder: Path) -> Path:
    """Keeps the secret that is piped in, for this user alone."""
    from bandweave.handshake.secret import read_secret
    from bandweave.membership.records import write_private

    if sys.stdin.isatty():
        raise ValueError(
            "the cluster's secret is missing: type the line that `bandweave up` printed, which "
            "pipes it in, or give --token-file"
        )
    content = sys.stdin.buffer.read(_MOST_TOKEN_BYTES + 1)
    if not content.strip():
        raise ValueError(
            "no secret came on standard input; type the line that `bandweave up` printed, or give "
            "--token-file"
        )
    path = folder / "joined-token"
    write_private(path, content.strip() + b"\n")
    read_secret(path)  # says what is wrong with it
    return path
