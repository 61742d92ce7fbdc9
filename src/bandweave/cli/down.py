"""``bandweave down``: ends a cluster, as far as bandweave started it."""

from __future__ import annotations

from pathlib import Path

import click

from bandweave.cli import output


@click.command("down", short_help="End the cluster that `up` started here.")
def command() -> None:
    """Ends the head that `bandweave up` started, the worker on this machine, and the workers that
    `bandweave join` started elsewhere.

    Workers that somebody runs in the foreground (`bandweave worker --join`) go on and wait for
    another head; a Ray cluster that was there before goes on as it was. Nothing else is ended.
    """
    from bandweave.membership.records import any_alive, cluster_folder, find_record, read_record

    folder = cluster_folder()
    head = find_record(folder, "head")
    if head is not None and not head.background:
        raise ValueError(
            f"the head runs in the foreground (process {head.processes[0].pid}); end it where it "
            "was started"
        )
    if head is None and not any_alive(folder):
        stale = read_record(folder, "head") is not None
        take_down(folder)
        if stale:
            output.say("the head had ended already")
            return
        raise ValueError("no cluster is up on this machine")
    if head is None:
        raise ValueError(
            "no head runs on this machine; `bandweave leave` ends the worker that joined another's"
        )
    stuck = take_down(folder)
    if stuck:
        raise OSError(f"the system does not let these processes end: {', '.join(map(str, stuck))}")
    output.say(f"the cluster of the head at {head.address} is down")


def take_down(folder: Path) -> list[int]:
    """Ends all that was started in the background on this machine, the head first: it tells the
    others. The numbers of the processes that could not be ended."""
    from bandweave.membership.ray_processes import end_ray
    from bandweave.membership.records import end_record

    # Ray before the worker, which it would start again.
    return [*end_record(folder, "head"), *end_ray(folder), *end_record(folder, "worker")]
