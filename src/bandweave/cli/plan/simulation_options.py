"""The options of ``plan --simulate`` about failures, standby and encryption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--repair",
        type=click.FloatRange(0),
        default=5.0,
        metavar="MINUTES",
        help="The time until a machine that failed is back. Default 5.",
    ),
    click.option(
        "--silent",
        type=click.FloatRange(0, 1),
        metavar="PART",
        help="The fraction of failures that break no connection (power, a cable, a machine that "
        "hangs) and are noticed by silence alone. Default 0.5.",
    ),
    click.option(
        "--spare",
        "spares",
        type=click.IntRange(0, 255),
        default=0,
        metavar="N",
        help="Hold the last N machines of each replica ready for those that fail. Default 0.",
    ),
    click.option(
        "--standby-weights",
        is_flag=True,
        help="Let every machine keep what it would need if another one failed.",
    ),
    click.option(
        "--load-rate",
        metavar="RATE",
        help="The rate at which a machine fetches and packs weights that it lacks. Default 1GB/s.",
    ),
    click.option(
        "--no-takeover",
        is_flag=True,
        help="Let a replica that lost a machine wait until it is back, as with engines that "
        "cannot go on without it.",
    ),
    click.option(
        "--no-encrypt",
        is_flag=True,
        help="Leave out the time that encryption between machines takes.",
    ),
)


def simulation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds them to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
