"""``bandweave cache``: shows and empties the packed weights on disk. Knows no models."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import click

from bandweave.cli import output
from bandweave.cli.options import json_option
from bandweave.environment import read_environment


@click.command("cache", short_help="Show or empty the packed weights on disk.")
@click.option("--clear", is_flag=True, help="Forget them all.")
@json_option
def command(clear: bool, as_json: bool) -> None:
    """Shows what is kept of models that were packed before, so that they start again at once.

    BANDWEAVE_CACHE names the folder, or is `off`. What was used longest ago makes room for more.
    """
    from bandweave.weights.panel_cache import PanelCache

    folder = read_environment().cache
    if folder is None:
        raise ValueError("the cache is off; unset BANDWEAVE_CACHE to use one")
    cache = PanelCache(folder)
    cache.folder.check()
    freed = cache.clear() if clear else 0
    models: dict[tuple[str, str], int] = defaultdict(int)
    for entry in cache.entries():
        models[entry.model, entry.weight_format] += entry.num_bytes
    found: dict[str, Any] = {
        "folder": str(folder),
        "quota_bytes": cache.folder.quota_bytes,
        "bytes": sum(models.values()),
        "freed_bytes": freed,
        "models": [
            {"model": model, "format": name, "bytes": size}
            for (model, name), size in sorted(models.items())
        ],
    }
    if as_json:
        output.print_json(found)
        return
    if clear:
        print(f"freed {freed / 1e9:.2f} GB")
    print(f"{folder}: {found['bytes'] / 1e9:.2f} of {cache.folder.quota_bytes / 1e9:.0f} GB")
    for model in found["models"]:
        print(f"  {model['bytes'] / 1e9:7.2f} GB  {model['format']:4}  {model['model']}")
