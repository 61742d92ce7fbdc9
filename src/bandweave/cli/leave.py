"""``bandweave leave``: this machine leaves the cluster that it joined."""

from __future__ import annotations

import click

from bandweave.cli import output


@click.command("leave", short_help="Let this machine leave its cluster.")
def command() -> None:
    """Ends the worker that `bandweave join` or `bandweave up` started on this machine.

    Models that run on it go on with the machines that are left. A head that runs here goes on, too;
    `bandweave down` ends it.
    """
    from bandweave.membership.ray_processes import end_ray
    from bandweave.membership.records import cluster_folder, end_record, find_record, read_record

    folder = cluster_folder()
    worker, ray = find_record(folder, "worker"), read_record(folder, "ray")
    if worker is None and ray is None:
        end_record(folder, "worker")  # forgets one that has ended by itself
        raise ValueError("this machine has joined no cluster")
    if worker is not None and not worker.background:
        raise ValueError(
            f"the worker of this machine runs in the foreground (process "
            f"{worker.processes[0].pid}); end it where it was started"
        )
    if ray is not None and find_record(folder, "head") is not None:
        raise ValueError("the head of the cluster and of Ray run here; `bandweave down` ends them")
    # Ray first, which would start a worker that has ended again.
    stuck = [*end_ray(folder), *end_record(folder, "worker")]
    if stuck:
        raise OSError(f"the system does not let these processes end: {', '.join(map(str, stuck))}")
    record = worker or ray
    assert record is not None
    output.say(f"left the cluster of the head at {record.head}")
