"""Foretold: what ``plan --simulate`` says of the failures of a trial, to stand beside what came.

The simulation gets what was measured before anything failed (how long a step takes, and a prompt's
row) and the parts of a recovery as the planner assumes them. Nothing of the recoveries themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bandweave.planning.simulation.scenario import Outcome, Scenario, percentile
from bandweave.planning.simulation.server import Batch, Server, Times
from bandweave.planning.simulation.simulation import simulate
from bandweave.planning.simulation.takeover import Arrangement, Holding, Takeover

_SECONDS = 3000.0
_UPTIME_SECONDS = 400.0  # of a node: failures seldom meet
_STEP_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Of a server that nothing disturbs: ``step_s`` of a step with answers alone, ``row_s`` more
    for each row of a prompt, tokens of a mean ``prompt`` and ``answer``."""

    step_s: float
    row_s: float
    prompt: int
    answer: int


def pace_of(looks: Sequence[tuple[float, Mapping[str, Any]]], requests: int) -> Pace | None:
    """From the status before, between and after two rounds of the same requests, each with its time
    in seconds; None where it does not tell. The second round finds its prompts in the cache."""
    names = ("steps_total", "computed_prompt_tokens_total", "generated_tokens_total")
    if len(looks) != 3 or not all(
        look.get(name) is not None for _, look in looks for name in names
    ):
        return None
    seconds = [after[0] - before[0] for before, after in zip(looks, looks[1:], strict=False)]
    grown = [
        {name: after[1][name] - before[1][name] for name in names}
        for before, after in zip(looks, looks[1:], strict=False)
    ]
    steps = grown[1]["steps_total"]
    rows = grown[0]["computed_prompt_tokens_total"]
    if steps <= 0 or rows <= 0:
        return None
    step = seconds[1] / steps
    row = max(0.0, (seconds[0] - grown[0]["steps_total"] * step) / rows)
    return Pace(
        step_s=step, row_s=row, prompt=max(1, round(rows / requests)),
        answer=max(2, round(grown[1]["generated_tokens_total"] / requests)),
    )  # fmt: skip


def foretell(
    pace: Pace, nodes: int, streams: int, takeover: Takeover, weight_bytes: float, *, anew: bool
) -> Outcome:
    """Failures of single nodes, one after the other. ``anew``: a process that died is started
    again at once, and takes the whole part of the one before."""
    lineup = _Equal(pace, nodes, weight_bytes, spares=1 if anew else 0)
    whole = lineup.arrange(frozenset(range(len(lineup.machines))))
    assert whole is not None
    scenario = Scenario(
        streams=streams, prompt=pace.prompt, answer=pace.answer,
        context=pace.prompt + pace.answer // 2, seconds=_SECONDS, mean_uptime_s=_UPTIME_SECONDS,
        repair_s=10.0, takeover=takeover, seed=1,
    )  # fmt: skip
    return simulate([whole.server], scenario, [lineup])


def told(outcome: Outcome) -> tuple[float, float]:
    """Seconds from a failure to the next token: half of the streams, and nearly all of them."""
    return percentile(outcome.silences_s, 0.5), percentile(outcome.silences_s, 0.99)


def both(pace: Pace, nodes: int, streams: int, weight_bytes: float, *, anew: bool,
         takeover: Takeover | None = None) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Of failures that break a connection, and of those that only are silent."""
    base = takeover or Takeover()
    return {
        kind: told(foretell(pace, nodes, streams, replace(base, silent_part=part), weight_bytes,
                            anew=anew))
        for kind, part in (("kill", 0.0), ("stop", 1.0))
    }  # fmt: skip


class _Measured:
    """A server that takes as long as was measured, whoever is up: nodes of one machine share it."""

    chunk_rows, mixes = _STEP_ROWS, True

    def __init__(self, pace: Pace, nodes: int) -> None:
        self._pace = pace
        self.machines = tuple(f"node {number}" for number in range(nodes))
        self.stages = (self.machines,)

    def times(self, batch: Batch) -> list[Times]:
        return [(self._pace.step_s + batch.rows * self._pace.row_s, 0.0)]


class _Equal:
    """Nodes with equal parts."""

    def __init__(self, pace: Pace, count: int, weight_bytes: float, spares: int) -> None:
        self.machines = tuple(f"node {number}" for number in range(count + spares))
        self._pace, self._count, self._bytes = pace, count, weight_bytes
        self._known: dict[tuple[int, ...], Arrangement] = {}

    def arrange(self, up: frozenset[int]) -> Arrangement | None:
        chosen = tuple(sorted(up)[: self._count])
        if not chosen:
            return None
        if chosen not in self._known:
            part = 1 / len(chosen)
            server: Server = _Measured(self._pace, len(chosen))
            self._known[chosen] = Arrangement(
                server=server,
                holdings={
                    node: Holding(layers=(0.0, 1.0), share=(rank * part, (rank + 1) * part),
                                  weight_bytes=self._bytes * part)
                    for rank, node in enumerate(chosen)
                },
            )  # fmt: skip
        return self._known[chosen]
