"""``bandweave worker``: offers this machine as a node, to commands that name it in --hosts or to
those of the cluster that it joins."""

from __future__ import annotations

import os
from pathlib import Path

import click

from bandweave.cli import output
from bandweave.cli.options import cache_folder, usable_isa, usable_threads
from bandweave.shown import printable

MEMBER_LISTEN = "0.0.0.0:7101"

require_encryption_option = click.option(
    "--require-encryption", is_flag=True,
    help="Refuse commands and nodes of other machines that do not encrypt.",
)  # fmt: skip


@click.command("worker", short_help="Offer this machine as a node.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen, for example 0.0.0.0:9000; port 0 takes any free one.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The secret that only those have who may use this worker.",
)
@click.option(
    "--models",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to look for copies of models, besides their path at the controller. May "
    "be given several times.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="T",
    help="Threads to compute with at most. Default: what the command asks for, else one for each "
    "processor. Give it where several workers, or other work, share this machine.",
)
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    help="The address by which other nodes reach this machine, if not the one that the "
    "controller was given.",
)
@click.option("--join", metavar="HOST:PORT",
              help="Join the cluster of the head there, and serve its commands alone. --listen is "
                   "then 0.0.0.0:7101 where it is not given.")  # fmt: skip
@require_encryption_option
@click.option("--once", is_flag=True, help="Serve one session and end.")
@click.option("--make-token", type=click.Path(path_type=Path), metavar="FILE",
              help="Write a new secret to FILE, readable by you alone, and exit.")  # fmt: skip
def command(
    listen: str | None,
    token_file: Path | None,
    models: tuple[Path, ...],
    threads: int | None,
    advertise: str | None,
    join: str | None,
    require_encryption: bool,
    once: bool,
    make_token: Path | None,
) -> None:
    """Serves as one node for commands on other machines, one after the other.

    With --join nobody needs a list of machines: the worker announces itself to a head, and dials
    again when that goes. Every machine needs the same token file; copies of models come from
    machines that have them. What leaves a machine is encrypted, unless the command says
    --no-encrypt.
    """
    if make_token is not None:
        if listen is not None or token_file is not None:
            raise click.UsageError("--make-token goes alone; start the worker afterwards")
        _make_token(make_token)
        return
    if listen is None and join is not None:
        listen = MEMBER_LISTEN
    if listen is None:
        raise click.UsageError("--listen is missing; give HOST:PORT, for example 0.0.0.0:9000")
    if token_file is None:
        raise click.UsageError(
            "--token-file is missing; `bandweave worker --make-token FILE` writes one"
        )

    from bandweave.handshake.secret import read_secret

    remarks = encryption_remarks(require_encryption)
    secret = read_secret(token_file, remarks.append)
    asked = usable_threads(threads)
    if join is not None:
        from bandweave.membership.member_worker import run_member

        stopped = run_member(
            listen, secret, models, join=join, once=once, advertise=advertise, threads=asked,
            cache=cache_folder(), isa=usable_isa(None), encrypted=require_encryption,
            remarks=remarks,
        )  # fmt: skip
    else:
        from bandweave.nodes.worker import run_worker

        stopped = run_worker(
            listen, secret, models, once=once, advertise=advertise, threads=asked,
            cache=cache_folder(), isa=usable_isa(None), encrypted=require_encryption,
            remarks=remarks,
        )  # fmt: skip
    if stopped:
        raise KeyboardInterrupt  # as everywhere, its exit status says so


def encryption_remarks(required: bool) -> list[str]:
    """What is said at the start where this machine cannot encrypt; ``ValueError`` where it must."""
    from bandweave.mesh.sealing import MissingLibrary, library

    try:
        library()
    except MissingLibrary as error:
        if required:
            raise
        return [f"commands of other machines will be refused: {error}"]
    return []


def _make_token(path: Path) -> None:
    from bandweave.handshake.secret import make_secret

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ValueError(
            f"{printable(path)} exists already; use it, or name another file"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(make_secret() + b"\n")
    except BaseException as error:
        path.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    output.say(f"wrote {printable(path)}; copy it to every machine and start there")
    output.say(f"  bandweave worker --listen 0.0.0.0:9000 --token-file {printable(path)}")
