"""``bandweave synth``: a checkpoint of random weights, for measuring without a download."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from bandweave.cli import output
from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.options import json_option
from bandweave.shown import printable

#: Sizes that may differ from the shape's, and what each is.
_SIZES = {
    "layers": "Layers. Default, as of all sizes: SHAPE's.",
    "hidden": "Numbers of a hidden state.",
    "heads": "Query heads.",
    "kv_heads": "Heads of keys and values.",
    "head_dim": "Numbers of a head.",
    "intermediate": "Columns of a dense MLP.",
    "experts": "Routed experts of a layer.",
    "experts_per_token": "Experts that a token goes to.",
    "expert_intermediate": "Columns of an expert.",
    "vocab": "Tokens that the model knows.",
    "context": "Positions that the model was made for.",
}


def _size_options(function: Any) -> Any:
    for name, words in reversed(_SIZES.items()):
        option = "--" + name.replace("_", "-")
        function = click.option(option, type=click.IntRange(1), metavar="N", help=words)(function)
    return function


@click.command("synth", short_help="Write a model of random weights, to measure with.")
@click.argument("shape", required=False)
@click.argument("directory", metavar="DIR", required=False, type=click.Path(path_type=Path))
@click.option("--list", "show_list", is_flag=True, help="Show the shapes there are, and exit.")
@_size_options
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), default=0, metavar="N",
              help="The seed of the weights. Default 0.")  # fmt: skip
@click.option("--dtype", type=click.Choice(("bf16", "f16", "f32")), default="bf16", metavar="DTYPE",
              help="bf16, f16 or f32, as stored. Default bf16.")  # fmt: skip
@json_option
def command(
    shape: str | None,
    directory: Path | None,
    show_list: bool,
    seed: int,
    dtype: str,
    as_json: bool,
    **sizes: int | None,
) -> None:
    """Writes a model with the sizes of SHAPE and random weights into DIR, which must be new or
    empty.

    It talks nonsense at the speed of the real one. Single sizes can be changed, to shrink it; what
    must follow them (groups of experts, KV heads, dense layers before mixtures) does, and is said.
    """
    with interrupts_held():
        from bandweave.synth.model import synthesise
        from bandweave.synth.shapes import find_shape

    if show_list:
        _list(as_json)
        return
    if shape is None or directory is None:
        raise click.UsageError("name a shape and a directory; --list shows the shapes")
    found = find_shape(shape, **{name: sizes[name] for name in _SIZES})
    with _progress(f"writing {printable(directory)}") as on_progress:
        written = synthesise(found, directory, seed, dtype, on_progress)
    stored = sum(file.stat().st_size for file in written.glob("*.safetensors"))
    if as_json:
        output.print_json({"path": str(written), "weight_file_bytes": stored, "seed": seed,
                           "dtype": dtype, "notes": list(found.notes),
                           "config": found.config()})  # fmt: skip
    else:
        for note in found.notes:
            output.say(f"so that the sizes fit together, {note}")
        output.say(f"wrote {printable(written)} ({output.size(stored)})")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    if not output.is_terminal():
        yield None
        return
    from bandweave.cli.progress import loading_bar

    with loading_bar(what) as bar:
        yield bar.update


def _list(as_json: bool) -> None:
    from bandweave.synth.shapes import find_shape, shape_names

    shapes = [find_shape(name) for name in shape_names()]
    if as_json:
        output.print_json({"shapes": {shape.name: shape.config() for shape in shapes}})
        return
    headings = ["shape", "layers", "hidden", "heads", "KV heads", "intermediate", "experts",
                "vocab"]  # fmt: skip
    sizes = ("layers", "hidden", "heads", "kv_heads", "intermediate", "experts", "vocab")
    rows = [[shape.name, *(str(shape.size(size) or "-") for size in sizes)] for shape in shapes]
    output.print_table(headings, rows)
