"""``bandweave up``: starts the head of a cluster, and prints the line with which others join."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from bandweave.cli import output
from bandweave.cli.join import start_worker, worker_options
from bandweave.cli.options import json_option

LISTEN = "0.0.0.0:7100"
_SECONDS = 20.0


@click.command("up", short_help="Start a cluster here, for others to join.")
@click.option("--listen", default=LISTEN, metavar="HOST:PORT", show_default=True,
              help="Where machines join; port 0 takes any free one.")  # fmt: skip
@click.option("--advertise", metavar="HOST:PORT",
              help="The address by which other machines reach this head, if --listen does not say "
                   "it.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE",
              help="The cluster's secret. Default: one of its own.")  # fmt: skip
@click.option("--no-worker", is_flag=True,
              help="Use this machine for the head alone, and for no part of a model.")  # fmt: skip
@click.option("--ray", "ray_address", is_flag=False, flag_value="", metavar="[ADDRESS]",
              help="Let Ray place and restart the workers: a Ray cluster that is started here, or "
                   "the one at ADDRESS, KubeRay's too ('auto' where this machine is a part of "
                   "it). pip install 'bandweave[cluster]'.")  # fmt: skip
@worker_options
@click.option("--foreground", is_flag=True,
              help="Run the head in this process until Ctrl-C, without a worker: for systemd and "
                   "containers.")  # fmt: skip
@click.option("--ready-fd", type=int, hidden=True)
@json_option
def command(
    listen: str,
    advertise: str | None,
    token_file: Path | None,
    no_worker: bool,
    ray_address: str | None,
    worker_listen: str,
    models: tuple[Path, ...],
    threads: int | None,
    require_encryption: bool,
    foreground: bool,
    ready_fd: int | None,
    as_json: bool,
) -> None:
    """Starts the head of a cluster in the background, and a worker on this machine.

    It prints the one line that makes other machines join. Then `bandweave serve MODEL --cluster`
    (`run` and `chat` too) uses all that have joined, `bandweave status` shows them, and `bandweave
    down` ends what was started.
    """
    from bandweave.membership.records import cluster_folder, find_record

    folder = cluster_folder(make=True)
    if (head := find_record(folder, "head")) is not None:
        raise ValueError(
            f"a cluster is up on this machine already, at {head.address}; `bandweave down` ends it"
        )
    joined = find_record(folder, "worker")
    if joined is not None and not foreground:  # it is another cluster's, and not ours to end
        raise ValueError(
            f"this machine has joined the cluster of the head at {joined.head}; `bandweave leave` "
            "ends that first"
        )
    own_token = token_file is None
    token = token_file or _token(folder)
    if foreground and ray_address == "":
        raise ValueError(
            "in the foreground nothing else is started: give --ray the ADDRESS of a Ray cluster, "
            "or auto on one of its machines"
        )
    if require_encryption and foreground and ray_address is None:
        raise ValueError(
            "--require-encryption is for workers, and in the foreground none is started; give it "
            "to those that join: `bandweave worker --join ... --require-encryption`"
        )
    if foreground:
        from bandweave.cli.head import run_head

        run_head(
            listen, advertise, token, ray_address, models, threads, require_encryption, ready_fd
        )
        return
    from bandweave.membership.background import start

    own_ray = ""
    arguments = ["up", "--foreground", "--listen", listen, "--token-file", str(token.resolve())]
    if advertise is not None:
        arguments += ["--advertise", advertise]
    if ray_address is not None:
        from bandweave.membership.ray_processes import start_ray_head

        if not ray_address:
            ray_address = start_ray_head(folder, token, listen, cpus=0 if no_worker else threads)
            own_ray = ray_address
        arguments += ["--ray", ray_address]
        arguments += [word for root in models for word in ("--models", str(root))]
        if threads is not None:
            arguments += ["--threads", str(threads)]
        if require_encryption:
            arguments.append("--require-encryption")
    try:
        _, said = start(
            arguments, folder / "head.log", seconds=_SECONDS, environment=dict(os.environ)
        )
        address = str(said["address"])
        if not no_worker and ray_address is None:
            start_worker(
                folder,
                str(said["near"]),
                token,
                listen=worker_listen,
                models=models,
                threads=threads,
                require_encryption=require_encryption,
            )
    except BaseException:
        from bandweave.cli.down import take_down

        take_down(folder)
        raise
    line = join_line(
        address, token, own_token, ray=own_ray,
        require_encryption=require_encryption and ray_address is None,
    )  # fmt: skip
    ray_bytes = _ray_bytes(folder) if own_ray else None
    if as_json:
        output.print_json({"head": address, "join": line, "token_file": str(token),
                           "ray": ray_address, "ray_bytes": ray_bytes})  # fmt: skip
        return
    output.say(f"The head of a new cluster listens at {address}. On every other machine:")
    output.say()
    output.print_text(line)
    output.say()
    output.say("Then here: bandweave serve MODEL --cluster. `bandweave status` shows who has "
               "joined.")  # fmt: skip
    if ray_bytes is not None:
        output.say(f"Ray takes {output.size(ray_bytes)} of memory here while it is idle.")
    elif ray_address is not None:
        output.say(f"The machines of the Ray cluster at {ray_address} join by themselves, as soon "
                   "as Ray has room on them.")  # fmt: skip


def _ray_bytes(folder: Path) -> int | None:
    from bandweave.membership.ray_processes import ray_memory_bytes
    from bandweave.membership.records import find_record

    record = find_record(folder, "ray")
    return None if record is None else ray_memory_bytes(record)


def join_line(
    address: str, token: Path, own_token: bool, *, ray: str = "", require_encryption: bool = False
) -> str:
    """What is typed on other machines. A secret that nobody has copied there is in it: it never
    stands on a command line that others see, since the shell itself writes it into the pipe."""
    words = f"bandweave join {address}"
    if ray:
        words += f" --ray {ray}"
    if require_encryption:
        words += " --require-encryption"
    if own_token:
        return f"echo {token.read_text().strip()} | {words}"
    return f"{words} --token-file {token}"


def _token(folder: Path) -> Path:
    """This cluster's own secret: made once, and kept."""
    from bandweave.handshake.secret import make_secret
    from bandweave.membership.records import write_private

    path = folder / "token"
    if not path.exists():
        write_private(path, make_secret() + b"\n")
    return path


def reachable(address: tuple[str, int]) -> str:
    """How others reach what listens there: the address of the interface that leads furthest."""
    from bandweave.mesh.address import format_address, is_unspecified
    from bandweave.mesh.interfaces import own_hosts

    host, port = address
    if not is_unspecified(host):
        return format_address(address)
    hosts = [one for one in own_hosts() if ":" not in one or host == "::"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing: the system only looks for the way
            leading = sock.getsockname()[0]
        except OSError:
            leading = ""
    chosen = leading if leading in hosts else (hosts or ["127.0.0.1"])[0]
    return format_address((chosen, port))
