"""``bandweave plan``: what a model would do on machines, before they are bought or loaded.

Knows options and what is printed; the answers come from ``planning``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bandweave.cli import output
from bandweave.cli.options import json_option
from bandweave.cli.plan.simulation_options import simulation_options

_SWEEPS = ("link", "nodes", "context", "format", "streams")


@click.command("plan", short_help="Predict how fast a model would be on given machines.")
@click.argument("words", nargs=-1, metavar="[MODEL]")
@click.option(
    "--list",
    "listed",
    type=click.Choice(("machines", "links", "models", "engines")),
    help="List what the planner knows; words in the place of MODEL choose by name.",
)
@click.option(
    "--on",
    "on",
    multiple=True,
    metavar="MACHINES",
    help="What it runs on: a machine by name, '2x m3-ultra-512', several with +, or a "
    "description like 'bandwidth=204GB/s,memory=256GB'. May be given several times.",
)
@click.option(
    "--link",
    "links",
    multiple=True,
    metavar="LINK",
    help="What joins them: tb5-rdma, ethernet-10g, ... or 'latency=30us,bandwidth=10Gbit/s'. "
    "If given several times, the quickest is chosen; '1-2=LINK' joins two machines.",
)
@click.option(
    "--engine",
    default="any",
    metavar="NAME",
    help="The software that runs it: llama.cpp, mlx, exo, vllm, sglang, ktransformers, "
    "ik_llama.cpp, distributed-llama or bandweave. Default: any, the quickest that exists.",
)
@click.option(
    "--hardware",
    multiple=True,
    metavar="FILE",
    help="Machines of your own, as TOML tables; or a field of a known one, "
    "'epyc-9755-12ch,price=12000'. May be given several times.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Machines that `bandweave probe` measured; --on then knows their names there, such as "
    "'here'.",
)
@click.option(
    "--format",
    "format_name",
    metavar="FORMAT",
    help="Weights: q4 (default), q8, bf16, fp8, gguf-q4_k_m, ..., or stored.",
)
@click.option(
    "--context",
    type=click.IntRange(1),
    metavar="N",
    help="Tokens in each stream's cache while decoding. Default: 4096, or what --prompt and "
    "--answer need.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 65536),
    default=1,
    metavar="N",
    help="Answers that are written at the same time. Default 1.",
)
@click.option(
    "--prompt",
    type=click.IntRange(1),
    metavar="N",
    help="Tokens of a prompt. Default 1024, or as many as the --context.",
)
@click.option(
    "--answer",
    type=click.IntRange(1),
    default=512,
    metavar="N",
    help="Tokens of an answer. Default 512.",
)
@click.option(
    "--users",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="N people or agents in conversations of --turns, each turn with a --prompt and an "
    "--answer.",
)
@click.option(
    "--turns",
    type=click.IntRange(1, 1000),
    default=1,
    metavar="N",
    help="Turns of each conversation. Default 1.",
)
@click.option(
    "--prefix",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Tokens that every conversation begins with: a system prompt, a repository. Default 0.",
)
@click.option(
    "--reuse",
    is_flag=True,
    help="The engine keeps what it has read of a conversation (a prefix cache).",
)
@click.option(
    "--objective",
    type=click.Choice(["decode", "prefill", "request"]),
    default="decode",
    help="What to optimise for. Default: decode.",
)
@click.option(
    "--compare",
    multiple=True,
    metavar="MACHINES",
    help="Another setup to compare with, such as '8x dgx-spark over roce-200g'. May be given "
    "several times.",
)
@click.option("--sweep", type=click.Choice(_SWEEPS), help="Speeds along a range of one thing.")
@click.option(
    "--chart",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Draw the answer, the sweep, what fits, or the simulation (.svg, .png, .pdf). Needs "
    "bandweave[charts].",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write the answer as one page with pictures, to keep or to send. Needs bandweave[charts].",
)
@click.option(
    "--claims",
    is_flag=True,
    help="Check what people say about linking two machines: docs/claims.md.",
)
@click.option(
    "--power-price",
    type=click.FloatRange(0),
    default=0.30,
    metavar="USD",
    help="The price of a kWh. Default 0.30.",
)
@click.option(
    "--simulate",
    is_flag=True,
    help="Play it through: queues, arrivals, failures. The options below are for this.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 256),
    default=1,
    metavar="N",
    help="Run N independent copies of the model, dividing the machines among them. Default 1.",
)
@click.option(
    "--arrivals",
    type=click.FloatRange(0),
    default=0.0,
    metavar="R",
    help="Requests per second (Poisson). Default 0: every place is always taken.",
)
@click.option(
    "--requests",
    type=click.IntRange(0, 1_000_000),
    default=0,
    metavar="N",
    help="End when N requests are answered. Default 0: when the time is over.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 1e6),
    default=60.0,
    metavar="S",
    help="Simulated time, unless --requests is given. Default 60.",
)
@click.option(
    "--uptime",
    type=click.FloatRange(1e-3),
    metavar="HOURS",
    help="Every machine fails after this many hours on average. Default: never.",
)
@simulation_options
@click.option(
    "--seed", type=int, default=0, metavar="N", help="Random seed of the simulation. Default 0."
)
@json_option
@click.pass_context
def command(invoked: click.Context, words: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Says how fast MODEL would be on machines, how best to split it, and why.

    MODEL is a known name (--list models shows them, --on alone what fits), org/name of the hub, a
    folder or a .gguf file.
    Every figure is a range, once for the quickest software that exists (or --engine), by name, and
    once for bandweave as it is today. 'EPYC with 2x rtx-4090' is one machine with cards in it.
    """
    model = " ".join(words) or None
    from bandweave.cli.plan.combination import refuse_ignored

    given = [
        name
        for name in values
        if invoked.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    refuse_ignored(given, model=model is not None, objective=values["objective"])
    if values["listed"]:
        from bandweave.cli.plan.list import show_list

        show_list(values["listed"], model or "", as_json=as_json)
        return
    from bandweave.cli.plan.setup import (
        named_format,
        parse_machines,
        parse_model,
        parse_setup,
        question_of,
    )

    if values["claims"]:
        from bandweave.cli.plan.claims import show_claims

        show_claims(as_json=as_json)
        return
    if not values["on"]:
        raise click.UsageError(
            'name the machines, for instance --on "2x m3-ultra-512" --link tb5-rdma'
        )
    _check_targets(values)
    own, probed = _own_machines(values)
    machines = parse_machines(values["on"], values["links"], own, values["engine"])
    if probed is not None:
        from bandweave.cli.plan.profile import with_measurements

        machines = with_measurements(machines, probed)
    setups = [
        machines,
        *(parse_setup(text, values["links"], own, values["engine"]) for text in values["compare"]),
    ]
    alone = all(len(each.hardware) == 1 for each in setups)
    if values["links"] and alone and values["sweep"] != "nodes":
        output.say("(one machine needs no link: --link changes nothing here)")
    if model is None:
        from bandweave.cli.plan.table import show_models

        show_models(machines, values, as_json=as_json)
        return
    shape = parse_model(model)
    # What a file's name says of its weights, its header says exactly.
    said = None if shape.stored_bytes_by_role else named_format(model)
    question = question_of(shape, values["format_name"] or said, values)
    if values["simulate"]:
        from bandweave.cli.plan.simulate import show_simulation

        show_simulation(question, machines, values, as_json=as_json)
    elif values["sweep"] and not values["page"]:
        from bandweave.cli.plan.sweep import show_sweep

        show_sweep(values["sweep"], question, setups, chart=values["chart"], as_json=as_json)
    else:
        from bandweave.cli.plan.answers import show_answers

        show_answers(question, setups, values, as_json=as_json)


def _check_targets(values: dict[str, Any]) -> None:
    """Files that are to be written, before anything is computed."""
    from bandweave.cli.plan.pictures.figure import check_matplotlib, check_target

    if values["chart"]:
        check_target(values["chart"])
    page: Path | None = values["page"]
    if page is not None:
        check_matplotlib("--html")
        if page.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--html {page}: the name must end in .html")
        if not page.parent.is_dir():
            raise ValueError(f"--html {page}: there is no folder {page.parent}")


def _own_machines(values: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Machines that a user describes in files or has measured, by name; and the measurements."""
    from bandweave.cli.plan.profile import read_probed, stored_profile
    from bandweave.cli.plan.setup import read_hardware

    own = dict(read_hardware(values["hardware"]))
    profile = values["profile"] or stored_profile((*values["on"], *values["compare"]))
    if not profile:
        return own, None
    probed = read_probed(profile)
    return own | probed.hardware, probed
