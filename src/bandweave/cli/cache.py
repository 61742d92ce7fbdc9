"""``bandweave cache``: shows and empties what bandweave keeps: packed weights, and downloads."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bandweave.cli import output
from bandweave.cli.options import json_option
from bandweave.environment import read_environment
from bandweave.shown import printable

if TYPE_CHECKING:
    from bandweave.hub.store import Download, Store
    from bandweave.weights.panel_cache import PanelCache


@click.group("cache", short_help="Show or empty what is kept: packed weights, downloads.",
             invoke_without_command=True)  # fmt: skip
@click.option("--clear", is_flag=True, help="Forget all packed weights.")
@json_option
@click.pass_context
def command(context: click.Context, clear: bool, as_json: bool) -> None:
    """Shows what is kept of models that were packed before, so that they start again at once, and
    what has been downloaded of the hub.

    BANDWEAVE_CACHE names the folder of packed weights, or is `off`; what was used longest ago makes
    room for more. Downloads lie in the folder `hub` there, or where BANDWEAVE_DOWNLOADS says, and
    stay until they are removed.
    """
    if context.invoked_subcommand is not None:
        if clear:
            raise click.UsageError("--clear goes alone; `cache remove MODEL` forgets one model")
        if as_json:
            raise click.UsageError(f"write --json behind {context.invoked_subcommand}")
        return
    freed = 0
    if clear:
        freed = _packed(required=True).clear()  # type: ignore[union-attr]
    _show(freed, as_json, cleared=clear)


@command.command("list", short_help="Show what is kept.")
@json_option
def list_command(as_json: bool) -> None:
    """Shows packed weights and downloads by model."""
    _show(0, as_json)


@command.command("trim", short_help="Bring packed weights under their limit.")
@json_option
def trim_command(as_json: bool) -> None:
    """Forgets the packed weights that were used longest ago, until the rest is within the quota and
    half of what the disk has free. Downloads stay; `cache remove` removes them."""
    cache = _packed(required=True)
    assert cache is not None
    before = sum(entry.num_bytes for entry in cache.entries())
    cache.trim()
    _show(before - sum(entry.num_bytes for entry in cache.entries()), as_json, cleared=True)


@command.command("remove", short_help="Remove a model's downloads and packed weights.")
@click.argument("model")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove_command(model: str, yes: bool, as_json: bool) -> None:
    """Removes what is kept of MODEL: org/name, with :COMMIT for that one alone, or a folder, of
    which only packed weights are removed. Files of other programs stay."""
    store, cache = _store(), _packed()
    downloads = _named(store, model)
    folders = {str(one.path) for one in downloads}
    own = os.path.realpath(Path(model).expanduser())
    entries = [
        entry
        for entry in (cache.entries() if cache is not None else [])
        if entry.model in (model, own) or any(_inside(entry.model, one) for one in folders)
    ]
    if not downloads and not entries:
        raise ValueError(f"nothing is kept of {printable(model)}; `bandweave cache` lists what is")
    size = sum(one.here_bytes - one.linked_bytes for one in downloads)
    size += sum(entry.num_bytes for entry in entries)
    if not yes:
        _ask(f"Remove {output.size(size)} of {printable(model)}?")
    freed = sum(store.remove(one) for one in downloads) if store is not None else 0
    for entry in entries:
        entry.path.unlink(missing_ok=True)
        freed += entry.num_bytes
    if as_json:
        output.print_json({"model": model, "freed_bytes": freed})
    else:
        output.say(f"freed {output.size(freed)}")


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here; --yes removes without a question")
    if not click.confirm(question, err=True):
        raise click.Abort


def _show(freed: int, as_json: bool, *, cleared: bool = False) -> None:
    cache, store = _packed(), _store()
    models: dict[tuple[str, str], int] = defaultdict(int)
    for entry in cache.entries() if cache is not None else ():
        models[_model_name(entry.model), entry.weight_format] += entry.num_bytes
    downloads = store.downloads() if store is not None else []
    found: dict[str, Any] = {
        "folder": None if cache is None else str(cache.folder.path),
        "quota_bytes": None if cache is None else cache.folder.quota_bytes,
        "bytes": sum(models.values()),
        "freed_bytes": freed,
        "models": [
            {"model": model, "format": name, "bytes": size}
            for (model, name), size in sorted(models.items())
        ],
        "downloads_folder": None if store is None else str(store.path),
        "downloads_bytes": sum(one.here_bytes - one.linked_bytes for one in downloads),
        "downloads": [_download_json(one) for one in downloads],
    }
    if as_json:
        output.print_json(found)
        return
    if cleared:
        print(f"freed {freed / 1e9:.2f} GB")
    if cache is None:
        print("packed weights: off (BANDWEAVE_CACHE)")
    else:
        quota = cache.folder.quota_bytes
        print(f"{cache.folder.path}: {found['bytes'] / 1e9:.2f} of {quota / 1e9:.0f} GB")
    for model in found["models"]:
        print(f"  {model['bytes'] / 1e9:7.2f} GB  {model['format']:4}  {model['model']}")
    if store is not None and downloads:
        print(f"{store.path}: {found['downloads_bytes'] / 1e9:.2f} GB downloaded")
    for one in downloads:
        share = "whole" if one.whole else f"{100 * one.here_bytes // max(1, one.num_bytes)} %"
        linked = " (linked)" if one.linked_bytes else ""
        print(
            f"  {one.here_bytes / 1e9:7.2f} GB  {share:5}  {one.record.repo}  "
            f"{one.record.commit[:12]}{linked}"
        )


def _download_json(one: Download) -> dict[str, Any]:
    return {
        "model": one.record.repo,
        "commit": one.record.commit,
        "files": list(one.record.starts),
        "path": str(one.path),
        "bytes": one.here_bytes,
        "linked_bytes": one.linked_bytes,
        "whole_bytes": one.num_bytes,
        "whole": one.whole,
        "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.used_at)),
    }


def _model_name(model: str) -> str:
    """The hub's name for a folder of its, else the folder."""
    from bandweave.hub.store import record_of

    found = record_of(Path(model)) if model.startswith("/") else None
    if found is None:
        return model
    record, start = found
    return f"{record.repo}/{start}" if start else record.repo


def _named(store: Store | None, model: str) -> list[Download]:
    """The downloads that a name means: all commits of a repository, or one."""
    from bandweave.hub.names import parse_name

    name = parse_name(model)
    if store is None or name is None:
        return []
    return [
        one
        for one in store.downloads()
        if one.record.repo.lower() == name.repo.lower()
        and (not name.revision or one.record.commit == store.known_commit(name))
    ]


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


def _packed(*, required: bool = False) -> PanelCache | None:
    """The cache of packed weights; None where it is off. ``ValueError`` where it is required."""
    from bandweave.weights.panel_cache import PanelCache

    folder = read_environment().cache
    if folder is None:
        if required:
            raise ValueError("the cache is off; unset BANDWEAVE_CACHE to use one")
        return None
    cache = PanelCache(folder)
    try:
        cache.folder.check()
    except PermissionError as error:
        raise ValueError(
            f"the cache of packed weights cannot be read: {error.filename}: {error.strerror}; "
            "set BANDWEAVE_CACHE to a folder of your own"
        ) from error
    return cache


def _store() -> Store | None:
    from bandweave.hub.store import check_store

    downloads = read_environment().downloads
    return None if downloads is None else check_store(downloads)
