"""Ask: one request of a client, as every protocol puts it. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.generation.sampling import SamplingParams
from bandweave.serving.answers.syntax import PLAIN, Syntax


@dataclass(frozen=True, kw_only=True)
class Ask:
    """``choices`` answers to the prompt ``tokens``, each chosen by ``params``.

    ``logprobs``: of how many most likely tokens the log-probabilities are told, None for none;
    ``scored``: the prompt's, too. ``grammar`` holds every answer to a form, as ``llguidance``
    writes it. ``syntax``: how an answer's text is told apart: thoughts, calls of tools, what is
    said. ``goes_on``: the answer goes on with the prompt's own text, as the space before its first
    word shows. ``key`` and ``weight``: who asks, for fairness. ``reuse``: whether what others
    computed may be used, of those who give the same ``salt``. ``ignores_end``: no token of the
    model's ends an answer. ``embeds``: what the head reads at the prompt's last token is told.
    """

    tokens: tuple[int, ...]
    params: SamplingParams
    choices: int = 1
    logprobs: int | None = None
    scored: bool = False
    grammar: str = ""
    syntax: Syntax = PLAIN
    goes_on: bool = False
    key: str = ""
    weight: float = 1.0
    reuse: bool = True
    ignores_end: bool = False
    embeds: bool = False
    salt: str = ""
