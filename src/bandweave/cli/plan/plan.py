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
    help="What the planner knows, with the words of MODEL in its name.",
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
    help="What joins them: tb5-rdma, ethernet-10g, ... or 'latency=30us,bandwidth=10Gbit/s'"
    "; given several times the quickest is chosen; '1-2=LINK' joins two machines.",
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
    "'epyc-9755-12ch,price=12000'. Several times.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Machines that `bandweave probe` measured; --on names them as it does, like 'here'.",
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
    help="Tokens in each stream's cache while decoding. Default: 4096.",
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
    default=1024,
    metavar="N",
    help="Tokens of a prompt. Default 1024.",
)
@click.option(
    "--answer",
    type=click.IntRange(1),
    default=512,
    metavar="N",
    help="Tokens of an answer, for --objective request. Default 512.",
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
    help="Another setup beside it, '8x dgx-spark over roce-200g'. Several times.",
)
@click.option("--sweep", type=click.Choice(_SWEEPS), help="Speeds along a range of one thing.")
@click.option(
    "--chart",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Draw: rooflines, machines and times, or the sweep. Needs bandweave[charts].",
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
    help="Of a kWh. Default 0.30.",
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
    help="Requests each second (Poisson). Default 0: every place is always taken.",
)
@click.option(
    "--requests",
    type=click.IntRange(0, 1_000_000),
    default=0,
    metavar="N",
    help="Ends when N are answered. Default 0: when the time is over.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 1e6),
    default=60.0,
    metavar="S",
    help="Simulated time, where no --requests are given. Default 60.",
)
@click.option(
    "--uptime",
    type=click.FloatRange(1e-3),
    metavar="HOURS",
    help="A machine fails after so many hours on average. Default: never.",
)
@simulation_options
@click.option(
    "--seed", type=int, default=0, metavar="N", help="Random seed of the simulation. Default 0."
)
@json_option
def command(words: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Says how fast MODEL would be on machines, how best to split it, and why.

    MODEL is a known name (--list models shows them, --on alone what fits), org/name of the hub, a
    folder or a .gguf file.
    Every figure is a range, once for the quickest software that exists (or --engine), by name, and
    once for bandweave as it is today. 'EPYC with 2x rtx-4090' is one machine with cards in it.
    """
    model = " ".join(words) or None
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
        read_hardware,
    )

    if values["claims"]:
        from bandweave.cli.plan.claims import show_claims

        show_claims(as_json=as_json)
        return
    own = dict(read_hardware(values["hardware"]))
    probed = None
    if not values["profile"]:
        from bandweave.cli.plan.profile import stored_profile

        values["profile"] = stored_profile((*values["on"], *values["compare"]))
    if values["profile"]:
        from bandweave.cli.plan.profile import read_probed

        probed = read_probed(values["profile"])
        own |= probed.hardware
    if not values["on"]:
        raise click.UsageError(
            'name the machines, for instance --on "2x m3-ultra-512" --link tb5-rdma'
        )
    machines = parse_machines(values["on"], values["links"], own, values["engine"])
    if probed is not None:
        from bandweave.cli.plan.profile import with_measurements

        machines = with_measurements(machines, probed)
    price: float = values["power_price"]
    if model is None:
        from bandweave.cli.plan.table import show_models

        show_models(machines, values, as_json=as_json)
        return
    shape = parse_model(model)
    values["context"] = values["context"] or min(4096, shape.context_length)
    # What a file's name says of its weights, its header says exactly.
    said = None if shape.stored_bytes_by_role else named_format(model)
    question = question_of(shape, values["format_name"] or said, values)
    if values["simulate"]:
        from bandweave.cli.plan.simulate import show_simulation

        show_simulation(question, machines, values, as_json=as_json)
        return
    setups = [
        machines,
        *(parse_setup(text, values["links"], own, values["engine"]) for text in values["compare"]),
    ]
    if values["sweep"]:
        from bandweave.cli.plan.sweep import show_sweep

        show_sweep(values["sweep"], question, setups, chart=values["chart"], as_json=as_json)
        return
    from bandweave.cli.plan.answer import answer_columns, columns_json
    from bandweave.cli.plan.report import show, show_comparison

    columns = [answer_columns(question, machines)]
    unfit = []
    for setup in setups[1:]:
        try:
            columns.append(answer_columns(question, setup))
        except ValueError as error:  # it does not fit: that is its answer
            unfit.append((setup, str(error)))
    if values["chart"]:
        from bandweave.cli.plan.chart import draw_answer

        draw_answer(columns[0], values["chart"])
    if as_json:
        first, *others = (columns_json(each, price) for each in columns)
        if values["compare"]:
            first["compared"] = others
            first["does_not_fit"] = {setup.title: sentence for setup, sentence in unfit}
        output.print_json(first)
        return
    show(columns[0], price)
    if values["compare"]:
        show_comparison(columns, [sentence for _, sentence in unfit], price)
