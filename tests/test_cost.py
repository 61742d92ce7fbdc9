"""The cost model: limits that it must reach, and directions that it must keep."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.models.known_models import known_model
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.cost import (
    decode_range,
    decode_step,
    item_names,
    prefill,
    prefill_range,
)
from bandweave.planning.costs.deployment import (
    BANDWEAVE,
    Deployment,
    EngineTraits,
    Network,
    Stage,
    Workload,
    pipeline_split,
    tensor_split,
)
from bandweave.planning.costs.exchange import exchange
from bandweave.planning.costs.experts import expected_busiest
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.rates import (
    ANY,
    INFINITE,
    NO_LINK,
    NOTHING,
    ComputeRate,
    Estimate,
    LinkRates,
    NodeRates,
)
from bandweave.ranges import Range

MODELS = ("llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite", "gpt-oss-20b", "gemma-3-4b")
PLAIN = EngineTraits(name="plain", two_step_exchange=True)


def node(
    bandwidth: float = 100e9, flops: float = 5e12, memory: int = 10**12, **more: float
) -> NodeRates:  # noqa: E501
    overhead = more.get("overhead", 0.0)
    return NodeRates(
        name="node",
        memory_bytes=memory,
        weight_bytes_per_s={ANY: Estimate.exactly(bandwidth)},
        compute={ANY: ComputeRate.constant(Estimate.exactly(flops))},
        kv_bytes_per_s=Estimate.exactly(more.get("kv", bandwidth)),
        attention_flop_per_s=Estimate.exactly(flops),
        layer_overhead_s=Estimate.exactly(overhead),
    )


def link(latency_us: float, gbyte_per_s: float = 1.0, message_us: float = 0.0) -> LinkRates:
    return LinkRates(
        name="link",
        latency_s=Estimate.exactly(latency_us * 1e-6),
        bytes_per_s=Estimate.exactly(gbyte_per_s * 1e9),
        message_s=Estimate.exactly(message_us * 1e-6),
    )


def place(
    name: str,
    nodes: list[NodeRates],
    *,
    wire: LinkRates = NO_LINK,
    weights: str = "q4",
    staged: bool = False,
    shares: list[int] | None = None,
    **changes: object,
) -> Deployment:
    model = known_model(name)
    split = pipeline_split if staged else tensor_split
    deployment = Deployment(
        model=model,
        weights=find_format(weights),
        nodes=tuple(nodes),
        stages=split(model, shares or [1] * len(nodes)),
        network=Network(default=wire),
        engine=PLAIN,
    )
    return dataclasses.replace(deployment, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_one_stream_on_one_node_is_bytes_over_bandwidth(name: str) -> None:
    deployment = place(name, [node(flops=math.inf)])
    cost = decode_step(deployment, Workload(context=0))
    model, weights = deployment.model, deployment.weights
    by_role = {"head": model.head_parameters}
    for layer in model.layers:
        for role, count in layer.total_by_role().items():
            active = layer.expert_parameters * layer.top_k if role == "expert" else count
            by_role[role] = by_role.get(role, 0) + active
    assert cost.items.weights_s == pytest.approx(weights.total(by_role) / 100e9, rel=1e-3)
    seen = sum(layer.attention.kv_elements for layer in model.layers)
    assert cost.items.attention_s == pytest.approx(2 * seen / 100e9)
    assert cost.items.exchange_latency_s == cost.items.exchange_bytes_s == 0
    assert cost.items.handover_s == 0
    assert cost.step_s == cost.period_s == pytest.approx(1 / cost.tokens_per_s)


def test_a_worked_example() -> None:
    # DeepSeek R1 with 4.83 bits a weight reads 22.1 GB a token; at 0.9 x 819 GB/s that is 29.9 ms,
    # and 61 layers x 0.32 ms are 19.5 ms: 20.2 tokens/s, where 20.21 were measured.
    one = node(bandwidth=0.9 * 819e9, flops=math.inf, overhead=0.32e-3, kv=math.inf)
    cost = decode_step(place("deepseek-r1", [one], weights="gguf-q4_k_m"), Workload(context=64))
    assert cost.tokens_per_s == pytest.approx(20.2, rel=0.02)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b"])
@pytest.mark.parametrize("count", [2, 4])
def test_a_perfect_link_adds_bandwidths_up(name: str, count: int) -> None:
    one = decode_step(place(name, [node()]), Workload(context=1000))
    many = decode_step(place(name, [node()] * count), Workload(context=1000))
    router = sum(layer.router_parameters for layer in known_model(name).layers)
    alone = router * 4 / 100e9  # routers and norms are computed on every node
    assert many.step_s == pytest.approx((one.step_s - alone) / count + alone, rel=0.01)
    assert many.step_s >= one.step_s / count


def test_a_pipeline_adds_memory_not_speed() -> None:
    one = decode_step(place("llama-3.1-8b", [node()]), Workload())
    two = decode_step(place("llama-3.1-8b", [node()] * 2, staged=True), Workload())
    assert two.period_s == pytest.approx(one.period_s)
    assert two.idle == pytest.approx((0.5, 0.5), abs=0.06)
    streams = Workload(streams=8)
    overlapped = dataclasses.replace(PLAIN, overlaps_stages=True)
    alone = decode_step(place("llama-3.1-8b", [node()] * 2, staged=True), streams)
    many = decode_step(place("llama-3.1-8b", [node()] * 2, staged=True, engine=overlapped), streams)
    assert many.tokens_per_s <= alone.tokens_per_s * 2


def test_latency_counts_once_an_exchange() -> None:
    deployment = place("llama-3.1-8b", [node()] * 2, wire=link(100, 1e6))
    items = decode_step(deployment, Workload()).items
    # Two a layer, the opening and the candidates.
    assert items.exchange_latency_s == pytest.approx((2 * 32 + 2) * 100e-6)
    staged = place("llama-3.1-8b", [node()] * 3, wire=link(100, 1e6), staged=True)
    assert decode_step(staged, Workload()).items.handover_s == pytest.approx(3 * 100e-6, rel=1e-3)


def test_slow_links_lose_to_one_machine() -> None:
    alone = decode_step(place("llama-3.1-8b", [node()]), Workload())
    linked = [place("llama-3.1-8b", [node()] * 2, wire=link(us)) for us in (10, 5000)]
    quick, slow = (decode_step(deployment, Workload()) for deployment in linked)
    assert quick.tokens_per_s > 1.8 * alone.tokens_per_s
    assert slow.tokens_per_s < alone.tokens_per_s


def test_unequal_shares_wait_for_the_slowest() -> None:
    nodes = [node(bandwidth=300e9), node(bandwidth=100e9)]
    even = decode_step(place("llama-3.1-8b", nodes), Workload())
    fair = decode_step(place("llama-3.1-8b", nodes, shares=[3, 1]), Workload())
    ideal = decode_step(place("llama-3.1-8b", [node(bandwidth=400e9)]), Workload())
    assert even.period_s > 1.8 * fair.period_s
    assert fair.period_s == pytest.approx(ideal.period_s, rel=0.05)
    assert even.idle[0] == pytest.approx(2 / 3, abs=0.05)


def test_prefill_is_flops_and_quadratic_attention() -> None:
    fast = node(bandwidth=math.inf)
    model = known_model("llama-3.1-8b")
    for prompt in (512, 4096, 5000):
        cost = prefill(place("llama-3.1-8b", [fast]), Workload(prompt=prompt))
        body = 2 * prompt * (model.read_parameters - model.head_parameters)
        pairs = prompt * (prompt + 1) / 2
        attention = pairs * 32 * 4 * 4096
        head = 2 * model.head_parameters
        assert cost.total_s == pytest.approx((body + attention + head) / 5e12, rel=2e-3)


def test_a_prompts_rows_go_through_recurrent_states() -> None:
    """Qwen3.5 35B has 30 layers of linear attention, each with a state of 32 heads of 128 x 128."""
    plain = node(bandwidth=math.inf)
    states = dataclasses.replace(plain, state_bytes_per_s=Estimate.exactly(100e9))
    for prompt in (100, 1000):
        work = Workload(prompt=prompt)
        more = (
            prefill(place("qwen3.5-35b-a3b", [states]), work).total_s
            - prefill(place("qwen3.5-35b-a3b", [plain]), work).total_s
        )
        assert more == pytest.approx(30 * prompt * 2 * 32 * 128 * 128 * 4 / 100e9, rel=1e-6)
    # One row's state is part of what decoding reads; models without states have none.
    assert decode_step(place("qwen3.5-35b-a3b", [states]), Workload()) == decode_step(
        place("qwen3.5-35b-a3b", [plain]), Workload()
    )
    assert prefill(place("llama-3.1-8b", [states]), Workload()) == prefill(
        place("llama-3.1-8b", [plain]), Workload()
    )


def test_linear_attention_has_a_fixed_time_of_its_own() -> None:
    slow = dataclasses.replace(node(), linear_overhead_s=Estimate.exactly(1e-3))
    for name, layers in (("qwen3.5-35b-a3b", 30), ("llama-3.1-8b", 0)):
        more = (
            decode_step(place(name, [slow]), Workload()).step_s
            - decode_step(place(name, [node()]), Workload()).step_s
        )
        assert more == pytest.approx(layers * 1e-3, abs=1e-9)


def test_few_rows_do_not_fill_a_cards_tiles() -> None:
    """A prompt of gpt-oss 20B has 4 of 32 experts a row: of 512 rows each expert sees 64."""
    plain = node(bandwidth=math.inf)
    tiles = dataclasses.replace(
        plain,
        expert_compute=plain.compute[ANY],
        half_filled_rows=64.0,
    )
    for prompt, part in ((512, 0.5), (64, 1 / 9)):
        work = Workload(prompt=prompt)
        one, other = (prefill(place("gpt-oss-20b", [each]), work) for each in (plain, tiles))
        layer = known_model("gpt-oss-20b").layers[0]
        flops = 2 * prompt * 24 * 4 * layer.expert_parameters
        rate = plain.compute[ANY].rate(1, "likely")
        assert other.total_s - one.total_s == pytest.approx(flops / rate * (1 / part - 1), rel=0.02)
    # A row alone has a kernel of its own.
    assert decode_step(place("gpt-oss-20b", [tiles]), Workload()) == decode_step(
        place("gpt-oss-20b", [plain]), Workload()
    )


def test_rows_are_sorted_by_their_experts() -> None:
    slow = dataclasses.replace(node(), routing_row_s=Estimate.exactly(1e-6))
    for name, layers in (("gpt-oss-20b", 24), ("llama-3.1-8b", 0)):
        work = Workload(prompt=1000)
        one, other = (prefill(place(name, [each]), work) for each in (node(), slow))
        assert other.total_s - one.total_s == pytest.approx(layers * 1000 * 1e-6, abs=1e-9)


def test_scores_go_through_memory_without_a_fused_kernel() -> None:
    """Llama 3.1 8B has 32 layers of 32 heads; a prompt of S tokens has S (S + 1) / 2 pairs."""
    plain = node(bandwidth=math.inf)
    unfused = dataclasses.replace(plain, score_s=Estimate.exactly(1e-12))
    for prompt in (100, 4000):
        work = Workload(prompt=prompt)
        one, other = (prefill(place("llama-3.1-8b", [each]), work) for each in (plain, unfused))
        pairs = prompt * (prompt + 1) / 2
        assert other.total_s - one.total_s == pytest.approx(32 * 32 * pairs * 1e-12, rel=1e-6)


def test_windows_end_the_quadratic_part() -> None:
    gemma = known_model("gemma-3-4b").layers[0].attention
    assert gemma.window == 1024
    assert gemma.pairs(0, 1024) == 1024 * 1025 / 2
    assert gemma.pairs(1000, 2000) == sum(min(p + 1, 1024) for p in range(1000, 3000))
    assert gemma.pairs(5000, 10) == 10 * 1024


def test_latent_cache_is_not_divided() -> None:
    workload = Workload(context=100_000)
    one = decode_step(place("deepseek-v2-lite", [node(flops=math.inf)]), workload)
    four = decode_step(place("deepseek-v2-lite", [node(flops=math.inf)] * 4), workload)
    assert four.items.attention_s == pytest.approx(one.items.attention_s)
    grouped = [
        decode_step(place("llama-3.1-8b", [node()] * count), workload) for count in (1, 4, 16)
    ]
    times = [cost.items.attention_s for cost in grouped]
    assert times[1] == pytest.approx(times[0] / 4)
    assert times[2] == pytest.approx(times[0] / 8)  # 8 KV heads: the rest are replicas


def test_whole_experts() -> None:
    assert expected_busiest([128, 128], 1) == 1
    assert expected_busiest([4, 4], 8) == 4
    # Eight experts of 256 over 2, 3, 4 and 8 nodes: simulated speed-ups are 1.57 to 3.08.
    for nodes, gain in ((2, 1.57), (4, 2.26), (8, 3.08)):
        owned = [256 // nodes] * nodes
        assert 8 / expected_busiest(owned, 8) == pytest.approx(gain, rel=0.02)
    deployment = place("qwen3-30b-a3b", [node()] * 2)
    sliced = decode_step(deployment, Workload())
    whole = decode_step(dataclasses.replace(deployment, whole_experts=True), Workload())
    assert whole.step_s > sliced.step_s


def test_exchange_algorithms() -> None:
    wire = Network(default=link(10, 1.0, 1.0))
    small = exchange(wire, (0, 1, 2, 3), 8_000, "likely")
    assert small.latency_s == pytest.approx(13e-6)
    assert small.bytes_s == pytest.approx(3 * 8e-6)
    large = exchange(wire, (0, 1, 2, 3), 8_000_000, "likely")
    assert large.latency_s == pytest.approx(26e-6)
    assert large.bytes_s == pytest.approx(2 * 3 * 2e-3)
    one = exchange(wire, (0, 1, 2, 3), 8_000_000, "likely", two_step=False)
    assert one.bytes_s == pytest.approx(3 * 8e-3)
    cables = Network(default=link(10, 1.0), shared_port=False)
    assert exchange(cables, (0, 1, 2, 3), 8_000, "likely").bytes_s == pytest.approx(8e-6)
    mixed = Network(default=link(10), links={(1, 2): link(500)})
    assert exchange(mixed, (0, 1, 2), 0, "likely").latency_s == pytest.approx(500e-6)
    assert exchange(mixed, (0,), 1e9, "likely").total_s == 0


rates = st.floats(1e9, 1e13)
factor = st.floats(1.0, 10.0)


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(MODELS), bandwidth=rates, flops=rates, more=factor,
    latency=st.floats(0, 1000), count=st.integers(1, 5), staged=st.booleans(),
    context=st.integers(0, 100_000), streams=st.integers(1, 64), prompt=st.integers(1, 20_000),
)  # fmt: skip
def test_better_hardware_never_hurts(
    name: str, bandwidth: float, flops: float, more: float, latency: float, count: int,
    staged: bool, context: int, streams: int, prompt: int,
) -> None:  # fmt: skip
    def times(bandwidth: float, flops: float, latency: float, gigabytes: float) -> list[float]:
        deployment = place(
            name,
            [node(bandwidth, flops, overhead=20e-6)] * count,
            wire=link(latency, gigabytes),
            staged=staged,
        )
        workload = Workload(context=context, streams=streams, prompt=prompt)
        step, reading = decode_step(deployment, workload), prefill(deployment, workload)
        assert sum(getattr(step.items, item) for item in item_names()) == pytest.approx(step.step_s)
        assert reading.items.total_s == pytest.approx(reading.total_s)
        assert all(0 <= idle <= 1 for idle in step.idle)
        return [step.period_s, reading.total_s]

    base = times(bandwidth, flops, latency, 1.0)
    for changed in (
        times(bandwidth * more, flops, latency, 1.0),
        times(bandwidth, flops * more, latency, 1.0),
        times(bandwidth, flops, latency / more, 1.0),
        times(bandwidth, flops, latency, more),
    ):
        for before, after in zip(base, changed, strict=True):
            assert after <= before * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(MODELS), count=st.integers(1, 4), context=st.integers(0, 50_000),
    more=st.integers(1, 50_000), streams=st.integers(1, 32),
)  # fmt: skip
def test_more_work_costs_more(name: str, count: int, context: int, more: int, streams: int) -> None:
    nodes = [node(overhead=10e-6)] * count

    unbound = [node(overhead=10e-6, flops=math.inf)] * count

    def step(weights: str, context: int, streams: int, nodes: list[NodeRates] = nodes) -> float:
        deployment = place(name, nodes, weights=weights, wire=link(50))
        return decode_step(deployment, Workload(context=context, streams=streams)).period_s

    base = step("q4", context, streams)
    sizes = [step(form, context, streams) for form in ("q4", "q8", "bf16")]
    # Equal where FLOPs bind, but for the rounding of sums.
    assert all(less <= more * (1 + 1e-12) for less, more in itertools.pairwise(sizes))
    read = [step(form, context, streams, unbound) for form in ("q4", "q8", "bf16")]
    assert read[0] < read[1] < read[2]
    assert step("q4", context + more, streams) >= base * (1 - 1e-12)
    assert step("q4", context, streams + 1) >= base * (1 - 1e-12)
    reading = [
        prefill(place(name, nodes, wire=link(50)), Workload(context=context, prompt=prompt)).total_s
        for prompt in (more, more + 700)
    ]
    assert reading[1] > reading[0]
    held = capacity(place(name, nodes), Workload(context=context, streams=streams))
    wider = capacity(place(name, nodes, weights="q8"), Workload(context=context, streams=streams))
    assert wider.nodes[0].needed_bytes > held.nodes[0].needed_bytes


def test_ranges_hold_the_likely_value() -> None:
    rough = dataclasses.replace(
        node(), weight_bytes_per_s={ANY: Estimate.within(100e9, 1.2)},
        compute={ANY: ComputeRate.constant(Estimate.within(5e12, 1.5))},
        kv_bytes_per_s=Estimate.within(100e9, 1.2),
        attention_flop_per_s=Estimate.within(5e12, 1.5),
    )  # fmt: skip
    for name in MODELS:
        deployment = place(name, [rough], engine=BANDWEAVE)
        found = decode_range(deployment, Workload(streams=8))
        assert found.low < found.likely < found.high
        # Routers are seen to send rows of one text to the same experts: a range of its own.
        assert found.high / found.low > 1.43
        reading = prefill_range(deployment, Workload())
        assert reading.low < reading.likely < reading.high
    for values in ((2.0, 3.0, 4.0), (1.0, -1.0, 2.0), (1.0, 0.5, 0.7)):
        with pytest.raises(ValueError):
            Estimate(likely=values[0], low=values[1], high=values[2])


def test_compute_rate_by_rows() -> None:
    table = ComputeRate(
        points=((1, Estimate.exactly(1.0)), (4, Estimate.exactly(3.0)), (64, Estimate.exactly(9.0)))
    )
    assert [table.rate(rows, "likely") for rows in (1, 2, 4, 16, 64, 5000)] == [1, 2, 3, 6, 9, 9]
    with pytest.raises(ValueError, match="ascending"):
        ComputeRate(points=((4, NOTHING), (1, NOTHING)))


def test_capacity() -> None:
    roomy = capacity(place("llama-3.1-8b", [node(memory=10**10)]), Workload(context=4096))
    assert roomy.fits and roomy.missing_bytes == 0
    (only,) = roomy.nodes
    assert only.kv_bytes == 131072 * (4096 + 512)
    tight = capacity(
        place("llama-3.1-8b", [node(memory=3 * 10**9)] * 2), Workload(context=4096, streams=16)
    )
    assert not tight.fits
    for one in tight.nodes:
        assert one.kv_bytes == 16 * 65536 * (4096 + 512)
        assert one.spare_bytes == one.available_bytes - one.needed_bytes < 0
    halves = sum(one.weight_bytes for one in tight.nodes)
    assert halves == pytest.approx(only.weight_bytes + 65 * 4096 * 4, rel=1e-4)  # norms twice
    # An engine that keeps the embedding table in memory needs more.
    held = capacity(place("llama-3.1-8b", [node()], engine=BANDWEAVE), Workload())
    assert only.weight_bytes - held.nodes[0].weight_bytes == pytest.approx(128256 * 4096 * 4)


def test_deployments_that_make_no_sense() -> None:
    deployment = place("llama-3.1-8b", [node()] * 2)
    whole = Range(start=0, stop=32)
    one = Stage(nodes=(0,), shares=(Fraction(1),), layers=whole)
    with pytest.raises(ValueError, match="stages use nodes"):
        dataclasses.replace(deployment, stages=(one,))
    with pytest.raises(ValueError, match="cover 31 of 32"):
        short = dataclasses.replace(one, layers=Range(start=0, stop=31))
        dataclasses.replace(deployment, stages=(short,))
    with pytest.raises(ValueError, match="above zero"):
        Stage(nodes=(0, 1), shares=(Fraction(1), Fraction(0)), layers=whole)
    with pytest.raises(ValueError, match="0 streams"):
        decode_step(deployment, Workload(streams=0))
    with pytest.raises(ValueError, match="prompt of 0"):
        prefill(deployment, Workload(prompt=0))


def test_ideal_link_is_the_same_as_none() -> None:
    ideal = LinkRates(name="ideal", latency_s=NOTHING, bytes_per_s=INFINITE)
    for workload in (Workload(), Workload(streams=32)):
        first = decode_step(place("qwen3-30b-a3b", [node()] * 3, wire=ideal), workload)
        assert first.items.exchange_latency_s == first.items.exchange_bytes_s == 0
