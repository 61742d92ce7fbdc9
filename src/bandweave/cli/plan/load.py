"""Load: whether simulated machines keep up with what arrives, in words. Pure."""

from __future__ import annotations

import math

from bandweave.cli import output
from bandweave.planning.simulation.scenario import Outcome, Scenario

_SPARE = 1.1  # machines that are just enough let queues grow long by chance


def overloaded(scenario: Scenario, outcome: Outcome, replicas: int) -> bool:
    """Whether more arrives than is served: more requests wait at the end than places and chance
    explain."""
    if not scenario.arrivals_per_s or scenario.requests:
        return False
    by_chance = 3.0 * math.sqrt(scenario.arrivals_per_s * outcome.seconds)
    waiting_is_much = outcome.waiting > max(scenario.streams * replicas, by_chance)
    return waiting_is_much and outcome.requests / outcome.seconds < scenario.arrivals_per_s


def load_sentence(scenario: Scenario, outcome: Outcome, replicas: int) -> str:
    """What is to be said of the load; empty where no requests arrive by themselves and some were
    finished."""
    if not outcome.requests and outcome.cut_short:
        return (
            "No request was finished before there were too many events. Give fewer --streams, "
            "shorter answers, or fewer machines."
        )
    if not outcome.requests:
        return (
            f"No request was finished in {output.duration(outcome.seconds)}: one takes longer. "
            f"Give more --seconds, {10 * outcome.seconds:.0f} for instance, or --requests."
        )
    served, arriving = outcome.requests / outcome.seconds, scenario.arrivals_per_s
    if not arriving or scenario.requests:
        return ""
    if overloaded(scenario, outcome, replicas):
        needed = math.ceil(arriving / served * replicas * _SPARE)
        return (
            f"Overloaded: {arriving:g} requests/s arrive, and it serves {output.rate(served)}. The "
            f"queue grows by one every {output.duration(1 / (arriving - served))} without end; "
            f"about {needed} replicas like this would keep up (now {replicas})."
        )
    busy = max(stage.utilisation for stage in outcome.stages)
    return (
        f"It keeps up: {output.rate(served)} of {arriving:g} requests/s were served; the busiest "
        f"machines compute {busy:.0%} of the time."
    )
