"""Speculation, energy and price."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.models.known_models import known_model
from bandweave.planning.costs.cost import decode_step, prefill
from bandweave.planning.costs.deployment import Deployment, Workload, pipeline_split, tensor_split
from bandweave.planning.costs.economy import economy
from bandweave.planning.costs.efficiency import limit_rates
from bandweave.planning.costs.speculation import (
    Speculation,
    acceptance_from_ratio,
    expected_tokens,
    speculative_tokens_per_s,
)
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.hardware import find_hardware


def deployment(model: str, hardware: str, count: int = 1, *, staged: bool = False) -> Deployment:
    split = pipeline_split if staged else tensor_split
    return Deployment(
        model=known_model(model),
        weights=find_format("gguf-q8_0"),
        nodes=(limit_rates(find_hardware(hardware)),) * count,
        stages=split(known_model(model), [1] * count),
    )


@given(st.floats(0, 0.999), st.integers(0, 12))
def test_expected_tokens_is_the_quotient_of_the_paper(acceptance: float, drafted: int) -> None:
    quotient = (1 - acceptance ** (drafted + 1)) / (1 - acceptance)
    assert expected_tokens(acceptance, drafted) == pytest.approx(quotient)
    assert 1 <= expected_tokens(acceptance, drafted) <= drafted + 1


@given(st.floats(0, 1), st.integers(1, 12))
def test_acceptance_is_not_the_ratio_that_engines_report(ratio: float, drafted: int) -> None:
    acceptance = acceptance_from_ratio(ratio, drafted)
    assert expected_tokens(acceptance, drafted) == pytest.approx(1 + ratio * drafted)
    assert acceptance >= ratio - 1e-6


def test_speculation_pays_less_for_experts() -> None:
    dense = deployment("qwen3-32b", "strix-halo")
    mixed = deployment("qwen3-30b-a3b", "strix-halo")
    guess = Speculation(acceptance=0.85, drafted=3)
    gains = [
        speculative_tokens_per_s(one, Workload(context=500), guess)
        / decode_step(one, Workload(context=500)).tokens_per_s
        for one in (dense, mixed)
    ]
    assert 1.0 < gains[1] < gains[0] < expected_tokens(0.85, 3)
    none = Speculation(acceptance=0.0, drafted=3)
    assert speculative_tokens_per_s(dense, Workload(), none) < decode_step(
        dense, Workload()
    ).tokens_per_s * (1 + 1e-9)
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="makes no sense"):
            expected_tokens(bad, 2)


def test_energy_and_price() -> None:
    one = deployment("llama-3.1-8b", "rtx-4090")
    price = find_hardware("rtx-4090").price_usd
    assert price is not None and price > 1599  # as asked lately, not as at launch
    step = decode_step(one, Workload())
    found = economy(one, step, usd_per_kwh=0.36)
    assert found.watts == pytest.approx(480)  # the whole machine's, as measured
    assert found.joules_per_token is not None
    assert found.joules_per_token == pytest.approx(480 / step.tokens_per_s)
    # A million tokens at 10 J are 10 MJ, 2.78 kWh, one dollar at 0.36.
    assert found.usd_per_million_tokens == pytest.approx(found.joules_per_token / 10)
    assert found.usd_per_token_per_s == pytest.approx(price / step.tokens_per_s)
    reading = economy(one, prefill(one, Workload(prompt=2048)))
    assert reading.joules_per_token is not None and found.joules_per_token is not None
    assert reading.joules_per_token < found.joules_per_token / 10


def test_waiting_costs_less_than_working() -> None:
    two = deployment("llama-3.1-8b", "rtx-4090", 2, staged=True)
    price = find_hardware("rtx-4090").price_usd
    assert price is not None
    step = decode_step(two, Workload())
    found = economy(two, step)
    assert found.watts is not None and 480 < found.watts < 2 * 480
    assert found.price_usd == 2 * price
    resting = dataclasses.replace(two.nodes[0], idle_watts=60.0)
    less = economy(dataclasses.replace(two, nodes=(resting, resting)), step)
    assert less.watts is not None and less.watts < found.watts


def test_unknown_watts_and_prices_stay_unknown() -> None:
    one = deployment("llama-3.1-8b", "m1-max")
    found = economy(one, decode_step(one, Workload()))
    assert found.watts is found.joules_per_token is found.usd_per_million_tokens is None
    assert found.price_usd is found.usd_per_token_per_s is None
