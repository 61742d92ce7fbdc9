"""``bandweave dump``: a model, packed for one node, in one file that needs no Python to run; or
what each node would compute, as text."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import click

from bandweave.cli import output
from bandweave.cli.options import json_option, parse_shares
from bandweave.shown import printable


@click.command("dump", short_help="Write a model into one file for bandweave-runner.")
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--text", is_flag=True, help="Print what each node computes; write no file.")
@click.option("--shares", metavar="3,2,1", help="With --text: one node for each number.")
@click.option(
    "--stages", type=click.IntRange(1, 1024), metavar="S", help="With --text: pipeline stages."
)
@click.option(
    "--format",
    "weight_format",
    default="q4",
    metavar="FORMAT",
    help="Weights: q4, q8, mxfp4, nf4, ulaw4, bf16, f32, or stored. Default q4.",
)
@click.option(
    "--kv",
    "kv_format",
    default="f16",
    metavar="FORMAT",
    help="Keys and values in memory: f16 or f32. Default f16.",
)
@click.option(
    "--context",
    type=int,
    metavar="N",
    help="Tokens of prompt and answer. Default: the model's, at most 4096.",
)
@json_option
def command(
    model: str,
    file: Path | None,
    text: bool,
    shares: str | None,
    stages: int | None,
    weight_format: str,
    kv_format: str,
    context: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Writes MODEL, packed for one node, into FILE, which `bandweave-runner run FILE` runs. With
    --text, prints the operations of every node instead.

    The runner is a small C++ program without Python, for other processors, profilers and fuzzers.
    It goes on with token ids (`bandweave run --json` tells a prompt's) and gives the same bits.
    """
    from bandweave.checkpoints.folder import Folder
    from bandweave.engine.options import EngineOptions
    from bandweave.engine.placement import check_local_memory, resolve_context
    from bandweave.executors.dump import DUMP_VERSION, DumpOptions, write_dump
    from bandweave.hub.resolve import resolve_model
    from bandweave.models.registry import build_graph
    from bandweave.programs.split import make_split
    from bandweave.run_options import RunOptions
    from bandweave.serving.texts import end_tokens_of
    from bandweave.weights.loading import load_weights
    from bandweave.weights.stored_formats import node_program

    if text:
        if file is not None or as_json:
            raise ValueError("--text prints; leave out FILE and --json")
        _print_programs(model, shares, stages or 1)
        return
    if file is None:
        raise ValueError("name the FILE to write, or ask for --text")
    if shares is not None or stages is not None:
        raise ValueError("a dump is for one node; --shares and --stages go with --text")
    options = EngineOptions(
        run=RunOptions(weight_format=weight_format, kv_format=kv_format, context=context)
    )
    with Folder.open(resolve_model(model)) as folder:
        split = make_split(folder.spec, (Fraction(1),), stages=1)
        context = resolve_context(folder, options)
        check_local_memory(folder, split, options, context)
        program = node_program(folder, build_graph(folder.spec), split, 0, weight_format)
        weights = load_weights(program, folder, weight_format)
        size = write_dump(
            file,
            program,
            weights,
            folder,
            DumpOptions(
                weight_format=weight_format,
                kv_format=kv_format,
                context=context,
                max_rows=options.run.max_rows,
                end_tokens=end_tokens_of(folder),
            ),
        )
    if as_json:
        output.print_json({"path": str(file), "bytes": size, "version": DUMP_VERSION,
                           "format": weight_format, "kv_format": kv_format,
                           "context": context})  # fmt: skip
    else:
        output.say(f"wrote {printable(file)} ({output.size(size)}); run it with bandweave-runner")


def _print_programs(model: str, shares: str | None, stages: int) -> None:
    """What each node of a split computes in a step, operation by operation."""
    from bandweave.checkpoints.folder import Folder
    from bandweave.hub.resolve import resolve_model
    from bandweave.models.registry import build_graph
    from bandweave.programs.lowering import lower
    from bandweave.programs.split import make_split

    parts = (Fraction(1),) if shares is None else parse_shares(shares)
    with Folder.open(resolve_model(model), weights=False) as folder:
        split = make_split(folder.spec, parts, stages=stages)
        graph = build_graph(folder.spec)
        for node in range(len(parts)):
            click.echo(str(lower(graph, split, node)))
