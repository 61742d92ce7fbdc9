"""``bandweave pull``: brings a model of the hub here, all of it or the part that one node holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import click

from bandweave.cli import output
from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.options import json_option
from bandweave.shown import printable, shown

OnProgress = Callable[[int, int], None]


@click.command("pull", short_help="Download a model of the Hugging Face hub.")
@click.argument("model")
@click.option(
    "--part",
    metavar="I/N",
    help="Fetch only what node I of N equal nodes reads, for a machine that will be that node.",
)
@json_option
def command(model: str, part: str | None, as_json: bool) -> None:
    """Downloads MODEL, which is org/name at huggingface.co, and checks its files.

    org/name:REVISION is another branch, tag or commit; org/name:Q4_K_M or org/name/FILE.gguf one of
    several GGUF files. What is here already is kept, also after an interruption. `bandweave run
    org/name` works without it, and then fetches what its nodes read.
    """
    with interrupts_held():
        from bandweave.hub.resolve import hub_name_of

    name = hub_name_of(model)
    words = f"downloading {printable(model)}"
    if part is not None:
        rank, nodes = _part(part)
        found = _pull_part(model, rank, nodes, words)
    else:
        from bandweave.hub.pull import pull

        with _progress(words) as on_progress:
            pulled = pull(name, on_progress)
        found = {
            "model": model,
            "repo": pulled.repo,
            "commit": pulled.commit,
            "path": str(pulled.path),
            "bytes": pulled.num_bytes,
            "fetched_bytes": pulled.fetched_bytes,
            "seconds": pulled.seconds,
            "checked": list(pulled.checked),
            "unchecked": list(pulled.unchecked),
        }
    found["run"] = f"bandweave run {model}"
    if as_json:
        output.print_json(found)
        return
    fetched, seconds = found["fetched_bytes"], found["seconds"]
    rate = f" in {output.duration(seconds)}, {output.size(fetched / seconds)}/s" if fetched else ""
    output.say(f"{found['path']}: {output.size(found['bytes'])}, {output.size(fetched)} new{rate}")
    if found.get("checked"):
        output.say(f"{output.count(len(found['checked']), 'file')} compared with the hub's SHA-256")
    if part is not None:
        output.say("the rest comes when a node reads it")
    output.say(f"run it: {found['run']}")


def _part(text: str) -> tuple[int, int]:
    """``2/3``: the rank from 0, and the nodes."""
    from bandweave.run_options import MAX_NODES

    one, _, all_ = text.partition("/")
    if one.isascii() and all_.isascii() and one.isdigit() and all_.isdigit() and len(text) < 12:
        rank, nodes = int(one), int(all_)
        if 1 <= rank <= nodes <= MAX_NODES:
            return rank - 1, nodes
    raise ValueError(f"--part {shown(text)} is none; write the node's number and how many, as 1/2")


def _pull_part(model: str, rank: int, nodes: int, words: str) -> dict[str, Any]:
    """Fetches what one node reads."""
    import time

    from bandweave.checkpoints.folder import Folder
    from bandweave.engine.share_reading import read_share
    from bandweave.hub.resolve import resolve_model
    from bandweave.hub.store import record_of

    started = time.monotonic()
    with output.status(f"asking the hub for {printable(model)}"):
        path = resolve_model(model, output.say)
    with Folder.open(path) as folder, _progress(words) as on_progress:
        num_bytes = read_share(folder, rank, nodes, on_progress)
        fetched = folder.fetched_bytes
    record = record_of(path)
    return {
        "model": model,
        "repo": "" if record is None else record[0].repo,
        "commit": "" if record is None else record[0].commit,
        "path": str(path),
        "part": f"{rank + 1}/{nodes}",
        "bytes": num_bytes,
        "fetched_bytes": fetched,
        "seconds": time.monotonic() - started,
    }


@contextlib.contextmanager
def _progress(words: str) -> Iterator[OnProgress]:
    if not output.is_terminal():
        yield lambda done, total: None
        return
    from bandweave.cli.progress import loading_bar

    with loading_bar(words) as bar:
        yield bar.update
