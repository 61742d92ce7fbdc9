"""Options that say how tokens are chosen, and what they mean to the engine.

Knows the spelling of options; starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bandweave.cli.interrupts import interrupts_held
from bandweave.cli.options import F, stacked

if TYPE_CHECKING:
    from bandweave.generation.sampling import SamplingParams

_SAMPLING = (
    click.option("--temperature", type=float, default=0.0, metavar="X",
                 help="0 (the default) always picks the most likely token; 1 samples from the "
                      "model's own distribution."),
    click.option("--top-k", type=int, default=0, metavar="K",
                 help="Sample only from the K most likely tokens. Default 0: all."),
    click.option("--top-p", type=float, default=1.0, metavar="P",
                 help="Sample only from the most likely tokens whose probabilities add up to P "
                      "(nucleus sampling). Default 1: all."),
    click.option("--min-p", type=float, default=0.0, metavar="P",
                 help="Sample only from tokens at least P times as likely as the most likely. "
                      "Default 0."),
    click.option("--repetition-penalty", type=float, default=1.0, metavar="X",
                 help="Above 1 makes tokens that were there already less likely. Default 1."),
    click.option("--frequency-penalty", type=float, default=0.0, metavar="X",
                 help="Subtracted from a token's logit once for each time it already appears in "
                      "the answer. Default 0."),
    click.option("--presence-penalty", type=float, default=0.0, metavar="X",
                 help="Subtracted once from the logit of a token that already appears in the "
                      "answer. Default 0."),
    click.option("--seed", type=int, default=0, metavar="N",
                 help="The same seed draws the same tokens. Default 0."),
    click.option("--max-tokens", type=int, default=512, metavar="N", show_default=True,
                 help="Ends the answer after N tokens."),
    click.option("--stop", multiple=True, metavar="TEXT",
                 help="Ends the answer before TEXT. May be given several times."),
)  # fmt: skip


def sampling_options(function: F) -> F:
    """How tokens are chosen; see ``sampling_params``."""
    return stacked(_SAMPLING, function)


def sampling_params(values: dict[str, Any]) -> SamplingParams:
    """What the values of ``sampling_options`` ask for."""
    with interrupts_held():
        from bandweave.generation.sampling import SamplingParams

    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "frequency_penalty",
             "presence_penalty", "seed", "max_tokens")  # fmt: skip
    fields = {name: values[name] for name in names}
    if "" in values["stop"]:
        raise ValueError("--stop is empty; give the text before which an answer is to end")
    try:
        return SamplingParams(**fields, stop=tuple(values["stop"]))
    except ValueError as error:  # starts with the name of a field
        name, _, rest = str(error).partition(" ")
        raise ValueError(f"--{name.replace('_', '-')} {rest}") from error
