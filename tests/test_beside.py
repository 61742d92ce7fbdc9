"""Cards beside host memory: what lies where, what it costs, and how it is written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.cli.plan.setup import parse_machines
from bandweave.models.known_models import known_model
from bandweave.planning.costs.beside import placed, placement_phrase
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.cost import decode_range, decode_step, prefill
from bandweave.planning.costs.deployment import (
    CARRYING,
    Deployment,
    Placement,
    Workload,
    tensor_split,
)
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.costs.ranges import split_kind
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.beside import machine_with_cards
from bandweave.planning.machines.hardware import find_hardware
from bandweave.planning.machines.rates import (
    ANY,
    NOTHING,
    ComputeRate,
    Estimate,
    HostSide,
    NodeRates,
)
from bandweave.planning.machines.tables import rows
from bandweave.planning.search.columns import engine_answer
from bandweave.planning.search.explain import sensitivities
from bandweave.planning.search.layout import Question

GB = 10**9


def side(gb_per_s: float, memory_gb: float, tflops: float = 1.0) -> NodeRates:
    return NodeRates(
        name=f"side-{gb_per_s:g}",
        memory_bytes=int(memory_gb * GB),
        weight_bytes_per_s={ANY: Estimate.exactly(gb_per_s * 1e9)},
        compute={ANY: ComputeRate.constant(Estimate.exactly(tflops * 1e12))},
        kv_bytes_per_s=Estimate.exactly(gb_per_s * 1e9),
        attention_flop_per_s=Estimate.exactly(tflops * 1e12),
    )


def beside(
    *,
    card_gb: float = 24,
    host_gb: float = 512,
    card: float = 1000,
    host: float = 300,
    bus: float = 25,
    crossing: float = 0.0,
) -> NodeRates:
    node = side(host, host_gb)
    return replace(
        side(card, card_gb + host_gb, 100),
        host=HostSide(
            node=node,
            card_bytes=int(card_gb * GB),
            crossing_s=Estimate.exactly(crossing) if crossing else NOTHING,
            bus_bytes_per_s=Estimate.exactly(bus * 1e9),
        ),
    )


def place(
    model: str, node: NodeRates, format_name: str = "q4", placement: Placement | None = None
) -> Deployment:
    shape = known_model(model)
    return Deployment(
        model=shape,
        weights=find_format(format_name),
        nodes=(node,),
        stages=tensor_split(shape, [1]),
        engine=find_engine("llama.cpp-beside"),
        placements={} if placement is None else {0: placement},
    )


def test_the_ends_are_the_card_alone_and_the_processor_alone() -> None:
    node = beside(card_gb=1000)
    work = Workload(context=1000)
    for model in ("deepseek-r1", "llama-3.1-70b"):
        plain = decode_step(place(model, side(1000, 2000, 100)), work).step_s
        cards = place(model, node, placement=Placement(layers=1.0, experts=1.0))
        assert decode_step(cards, work).step_s == pytest.approx(plain)
        processor = decode_step(place(model, side(300, 2000)), work).step_s
        none = place(model, node, placement=Placement(layers=0.0, experts=0.0))
        assert decode_step(none, work).step_s == pytest.approx(processor)


def test_experts_in_host_memory_are_read_there() -> None:
    """R1 in 4 bits: 8 experts of 58 layers at 300 GB/s, all else at 1000."""
    node = beside(crossing=100e-6)
    cost = decode_step(
        place("deepseek-r1", node, placement=Placement(layers=1.0, experts=0.0)), Workload()
    )
    experts = 58 * 8 * 3 * 7168 * 2048 * 4.5 / 8
    others = cost.items.weights_s - experts / 300e9
    assert 0.004 < others < 0.012  # 16 billion weights at 1000 GB/s
    assert cost.items.handover_s == pytest.approx(58 * 100e-6)


def test_the_placement_is_the_best_that_fits() -> None:
    question = Workload(context=4096)
    node = beside()
    found = placed(place("deepseek-r1", node), question)
    assert found.placement(0).layers == 1.0 and found.placement(0).experts < 0.1
    assert "attention" in placement_phrase(found, 0)
    assert split_kind(found) == "beside"
    room = capacity(found, question).nodes[0]
    assert room.spare_bytes >= 0
    # A dense model: as many layers as the card holds.
    dense = placed(place("llama-3.1-70b", node), question)
    assert 0.4 < dense.placement(0).layers == dense.placement(0).experts < 0.7
    assert "layers on the cards" in placement_phrase(dense, 0)
    # What fits on the card stays there.
    small = placed(place("llama-3.1-8b", node), question)
    assert small.placement(0) == Placement(layers=1.0, experts=1.0)
    assert split_kind(small) == "one"


@settings(max_examples=25, deadline=None)
@given(
    model=st.sampled_from(["qwen3-30b-a3b", "gpt-oss-120b", "llama-3.1-70b", "deepseek-v2-lite"]),
    small=st.floats(3, 60),
    more=st.floats(1, 3),
    context=st.sampled_from([0, 4096, 32768]),
)
def test_a_larger_card_never_hurts_and_all_fits(
    model: str, small: float, more: float, context: int
) -> None:
    work = Workload(context=context)
    before = placed(place(model, beside(card_gb=small)), work)
    after = placed(place(model, beside(card_gb=small * more)), work)
    assert decode_step(after, work).step_s <= decode_step(before, work).step_s * (1 + 1e-9)
    for deployment in (before, after):
        assert capacity(deployment, work).nodes[0].spare_bytes >= 0


def test_a_prompt_goes_through_the_card_where_the_bus_is_worth_it() -> None:
    placement = Placement(layers=1.0, experts=0.0)
    reading = Workload(prompt=4096)
    quicker = replace(find_engine("ktransformers"), carries="quicker")
    fast, slow, never = (
        prefill(
            replace(place("deepseek-r1", beside(bus=bus), placement=placement), engine=quicker),
            reading,
        )
        for bus in (50, 5, 1e-12)
    )
    assert fast.items.exchange_bytes_s > 0
    assert fast.total_s < slow.total_s <= never.total_s * (1 + 1e-9)
    assert never.items.exchange_bytes_s == 0
    # One token is never worth a transfer of all experts.
    assert decode_step(
        place("deepseek-r1", beside(bus=50), placement=placement), Workload()
    ).items.exchange_bytes_s == 0  # fmt: skip


@pytest.mark.parametrize("rule", CARRYING)
def test_engines_decide_when_weights_cross(rule: str) -> None:
    """R1 has 8 of 256 experts: 1024 rows are 32 an expert."""
    assert {find_engine(row["name"]).carries for row in rows("engines")} == set(CARRYING)
    placement = Placement(layers=1.0, experts=0.0)

    def crossed(tokens: int, bus: float) -> bool:
        deployment = place("deepseek-r1", beside(bus=bus), placement=placement)
        engine = replace(deployment.engine, carries=rule)
        cost = prefill(replace(deployment, engine=engine), Workload(prompt=tokens))
        return cost.items.exchange_bytes_s > 0

    crosses = {
        # A prompt's tokens, and whether the bus is quick.
        "quicker": {(8, True), (512, True), (1024, True)},
        "always": {(512, True), (1024, True), (512, False), (1024, False)},
        "rows": {(1024, True)},
        "never": set[tuple[int, bool]](),
    }[rule]
    for tokens in (8, 512, 1024):
        for quick in (True, False):
            # The bus is quicker than the host's memory, or slower than all that it computes.
            assert crossed(tokens, 1000 if quick else 1e-6) == ((tokens, quick) in crosses)


def test_ktransformers_carries_from_a_number_of_rows_on() -> None:
    """Up to the threshold that its program sets the processor computes, however slow it is."""
    engine = find_engine("ktransformers")
    placement = Placement(layers=1.0, experts=0.0)

    def crossed(tokens: int, rows_: int) -> bool:
        deployment = place("deepseek-r1", beside(bus=1000), placement=placement)
        asked = replace(
            deployment.engine, carries=engine.carries, carry_rows=rows_,
            streamed_rows=engine.streamed_rows,
        )  # fmt: skip
        cost = prefill(replace(deployment, engine=asked), Workload(prompt=tokens))
        return cost.items.exchange_bytes_s > 0

    assert [crossed(tokens, engine.carry_rows) for tokens in (512, 4096, 4097, 8192)] == [
        False, False, True, True,
    ]  # fmt: skip
    assert crossed(512, 401) and not crossed(400, 401)


def test_a_layer_that_crosses_has_its_attention_on_the_card() -> None:
    placement = Placement(layers=0.0, experts=0.0)
    work = Workload(prompt=8192)
    quick = prefill(place("llama-3.1-70b", beside(bus=50), placement=placement), work)
    deployment = place("llama-3.1-70b", beside(bus=50), placement=placement)
    stays = replace(deployment, engine=replace(deployment.engine, carries="never"))
    assert quick.items.attention_s < prefill(stays, work).items.attention_s / 10


# --- as it is written ---


def test_cards_are_put_into_a_machine() -> None:
    machine = machine_with_cards("epyc-9354-12ch with 2x rtx-4090", find_hardware)
    assert machine is not None
    assert machine.name == "epyc-9354-12ch with 2 x rtx-4090"
    assert [card.name for card in machine.cards] == ["rtx-4090", "rtx-4090"]
    assert machine.bus == "pcie-4" and machine.kind == "cpu-server"
    new = machine_with_cards("epyc-9354-12ch with rtx-5090 and rtx-5080", find_hardware)
    assert new is not None and new.bus == "pcie-5" and len(new.cards) == 2
    old = machine_with_cards("epyc-7702-8ch with 1x rtx-3090 on pcie-3", find_hardware)
    assert old is not None and old.bus == "pcie-3"
    assert machine_with_cards("epyc-9354-12ch", find_hardware) is None
    machines = parse_machines(["2x epyc-9354-12ch with 1x rtx-4090 + dgx-spark"], [], {})
    assert [len(each.cards) for each in machines.hardware] == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [("epyc-9354-12ch with 1x dgx-spark", "is no card"),
     ("epyc-9354-12ch with 1x rtx-9999", "no hardware is called"),
     ("rtx-4090 with 1x rtx-4090", "is a card itself"),
     ("epyc-9354-12ch with 99x rtx-4090", "takes 1 to 16"),
     ("epyc-9354-12ch with 1x rtx-4090 on wifi-6", "no bus")],
)  # fmt: skip
def test_what_is_no_machine_with_cards_says_so(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        machine_with_cards(text, find_hardware)


def test_the_usual_way_to_run_r1_at_home() -> None:
    question = Question(model=known_model("deepseek-r1"), weights=find_format("q4"))
    alone = parse_machines(["epyc-9354-12ch"], [], {})
    card = parse_machines(["epyc-9354-12ch with 1x rtx-4090"], [], {})
    without = engine_answer(question, alone, "ik_llama.cpp")
    for name in ("llama.cpp", "ik_llama.cpp", "ktransformers"):
        answer = engine_answer(question, card, name)
        assert answer is not None and without is not None
        assert answer.best.kind == "one" and answer.best.deployment.placement(0).layers == 1.0
        assert answer.best.decode.tokens_per_s > 0.9 * without.best.decode.tokens_per_s
        span = decode_range(answer.best.deployment, question.decoding)
        assert span.low < span.likely < span.high
    own, processor = (engine_answer(question, there, "llama.cpp") for there in (card, alone))
    assert own is not None and processor is not None
    assert own.best.decode.tokens_per_s > processor.best.decode.tokens_per_s
    assert own.best.prefill.tokens_per_s > processor.best.prefill.tokens_per_s
    found = {each.change: each.factor for each in sensitivities(own)}
    assert found["twice the memory bandwidth"] > 1.4
    # It needs a mixture, and a machine with cards.
    assert engine_answer(question, alone, "ktransformers") is None
    dense = replace(question, model=known_model("llama-3.1-70b"))
    assert engine_answer(dense, card, "ktransformers") is None
    assert engine_answer(dense, card, "llama.cpp") is not None
    # vLLM runs on the card alone, which does not hold R1.
    assert engine_answer(question, card, "vllm") is None
