"""What ``plan --simulate`` says of failures, and of exchanges among many nodes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from bandweave.cli import output
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.machines.quantities import quantity
from bandweave.planning.search.search import Plan
from bandweave.planning.simulation.exchange import Played, play_exchange
from bandweave.planning.simulation.lineup import PlannedLineup
from bandweave.planning.simulation.scenario import Outcome, Scenario, percentile
from bandweave.planning.simulation.takeover import Takeover, standby_bytes

_MANY = 8  # nodes of a tensor split
_PARTS = ("notice_s", "plan_s", "load_s", "prefill_s")


def takeover_of(values: Mapping[str, Any]) -> Takeover | None:
    """As the options say; None without failures, or where all wait for repairs."""
    given = {
        "--silent": values["silent"] is not None,
        "--spare": values["spares"],
        "--standby-weights": values["standby_weights"],
        "--load-rate": values["load_rate"] is not None,
        "--no-takeover": values["no_takeover"],
    }
    named = [name for name, value in given.items() if value]
    if values["uptime"] is None:
        if named:
            raise ValueError(f"{' and '.join(named)}: for failures; give --uptime HOURS, too")
        return None
    if values["no_takeover"]:
        if len(named) > 1:
            raise ValueError(
                "--no-takeover waits for machines that failed; leave out "
                f"{' and '.join(name for name in named if name != '--no-takeover')}"
            )
        return None
    takeover = Takeover(standby=values["standby_weights"])
    if values["silent"] is not None:
        takeover = replace(takeover, silent_part=values["silent"])
    if values["load_rate"] is not None:
        rate = quantity(values["load_rate"], "B/s", what="--load-rate")
        if rate <= 0:
            raise ValueError(f"--load-rate {values['load_rate']} must be above zero")
        takeover = replace(takeover, load_bytes_per_s=rate)
    return takeover


def failure_pairs(outcome: Outcome) -> list[tuple[str, str]]:
    """For the table of what happened."""
    pairs = [
        ("failures", f"{outcome.failures}; {outcome.recomputed_tokens} tokens read again; a "
                     f"replica answers {outcome.available:.2%} of the time")
    ]  # fmt: skip
    if outcome.silences_s:
        worst = output.seconds(outcome.silences_s[-1])
        pairs.append(
            ("next token", f"after a failure half within {_part(outcome.silences_s, 0.5)}, 90% "
                           f"within {_part(outcome.silences_s, 0.9)}, at worst {worst}")
        )  # fmt: skip
    if outcome.recoveries:
        parts = medians(outcome)
        shown = ", ".join(
            f"{name.removesuffix('_s')} {output.seconds(value)}" for name, value in parts.items()
        )
        pairs.append(("in parts", f"{shown} (medians of {len(outcome.recoveries)})"))
    if outcome.returns or outcome.moved:
        pairs.append(
            ("besides", f"{outcome.returns} machines taken in again, {outcome.moved} streams went "
                        "on at another replica")
        )  # fmt: skip
    return pairs


def failure_sentences(
    scenario: Scenario,
    outcome: Outcome,
    lineups: Sequence[PlannedLineup],
    plans: Sequence[Plan],
) -> list[str]:
    """What standby weights cost and buy, and whether the model outlives a failure."""
    takeover = scenario.takeover
    if takeover is None:
        return []
    lineup, plan = lineups[0], plans[0]
    everybody = frozenset(range(len(lineup.machines)))
    whole = lineup.arrange(everybody)
    assert whole is not None
    loads: list[float] = []
    alone, after = [], []
    for machine in whole.holdings:
        left = lineup.arrange(everybody - {machine})
        if left is None:
            alone.append(machine)
        else:
            after.append(left)
            held = {one: part for one, part in whole.holdings.items() if one != machine}
            loads.append(max(left.lacking(held).values(), default=0.0))
    sentences = []
    if alone:
        sentences.append(
            f"Without {'any' if len(alone) == len(whole.holdings) else len(alone)} of its "
            f"{len(whole.holdings)} machines a replica cannot hold the model: its streams then go "
            "on elsewhere, or wait until the machine is back. --spare holds one ready."
        )
    if loads:
        load = max(loads) / takeover.load_bytes_per_s
        needs = capacity(plan.deployment, plan.question.decoding).nodes
        spare = min(node.spare_bytes for node in needs)
        cost = max(standby_bytes(whole, after).values())
        if takeover.standby:
            fits = "" if cost <= spare else (
                f"; only {output.size(spare)} are free in the fullest memory, so some of it "
                "would have to lie on disk"
            )  # fmt: skip
            sentences.append(
                f"Standby weights take up to {output.size(cost)} more of each machine, and "
                f"spare {output.seconds(load)} of loading when one fails{fits}."
            )
        else:
            sentences.append(
                f"When one fails the others load up to {output.size(max(loads))} each, in "
                f"{output.seconds(load)}; --standby-weights would spare that for up to "
                f"{output.size(cost)} more of each machine."
            )
    return sentences


def exchange_sentences(plans: Sequence[Plan]) -> list[str]:
    """Of tensor splits over many nodes: what one exchange takes, played message by message."""
    played = played_exchange(plans)
    if played is None:
        return []
    two, many = played
    return [
        f"An exchange among {many.nodes} nodes, played message by message, takes "
        f"{output.seconds(many.mean_s)} on average and 99% of them less than "
        f"{output.seconds(many.p99_s)}; between two of them {output.seconds(two.mean_s)}."
    ]


def played_exchange(plans: Sequence[Plan]) -> tuple[Played, Played] | None:
    """Between two nodes, and among those of the largest tensor split; None where that is small, or
    links of single pairs differ."""
    deployment = plans[0].deployment
    nodes = max(len(stage.nodes) for stage in deployment.stages)
    if nodes <= _MANY or deployment.network.links:
        return None
    rows = plans[0].question.streams
    size = rows * deployment.model.hidden * deployment.engine.wire_bytes_per_value

    def play(count: int) -> Played:
        return play_exchange(
            deployment.network.default, count, size,
            two_step=deployment.engine.two_step_exchange,
            shared_port=deployment.network.shared_port,
        )  # fmt: skip

    return play(2), play(nodes)


def medians(outcome: Outcome) -> dict[str, float]:
    """Of each part, in seconds, over the recoveries that know it."""
    found = {}
    for name in _PARTS:
        values = [getattr(one, name) for one in outcome.recoveries]
        known = [value for value in values if value is not None]
        if known:
            found[name] = statistics.median(known)
    return found


def failures_json(outcome: Outcome, plans: Sequence[Plan]) -> dict[str, Any]:
    played = played_exchange(plans)
    return {
        "next_token_s": {
            f"p{part * 100:g}": percentile(outcome.silences_s, part) for part in (0.5, 0.9, 0.99, 1)
        } if outcome.silences_s else None,
        "recovery_parts_s": medians(outcome),
        "recoveries": [asdict(one) for one in outcome.recoveries],
        "returns": outcome.returns,
        "moved": outcome.moved,
        "exchange": None if played is None else [asdict(one) for one in played],
    }  # fmt: skip


def _part(values: Sequence[float], part: float) -> str:
    return output.seconds(percentile(values, part))
