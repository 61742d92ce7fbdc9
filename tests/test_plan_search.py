"""The search for the best plan: what must hold whatever the machines are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.models.known_models import known_model
from bandweave.planning.costs.capacity import capacity
from bandweave.planning.costs.deployment import BANDWEAVE, Network
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.links import find_link
from bandweave.planning.machines.rates import ANY, ComputeRate, Estimate, LinkRates, NodeRates
from bandweave.planning.search.columns import ANY_ENGINE
from bandweave.planning.search.explain import (
    layout_phrase,
    left_out_sentences,
    limiting_sentence,
    plan_items,
    sensitivities,
    verdict_sentence,
)
from bandweave.planning.search.layout import (
    Question,
    Setup,
    deploy,
    fitted,
    start_layout,
    ways_to_cut,
)
from bandweave.planning.search.machine_sets import machine_sets
from bandweave.planning.search.search import Answer, find_plans
from bandweave.planning.search.shortage import needed_bytes, read_bytes, shortage_sentence

SLACK = 1 + 1e-9


def node(gb: float = 64, gb_per_s: float = 200, tflops: float = 10, us: float = 50) -> NodeRates:
    return NodeRates(
        name=f"node-{gb:g}-{gb_per_s:g}-{tflops:g}",
        memory_bytes=int(gb * 1e9),
        weight_bytes_per_s={ANY: Estimate.within(gb_per_s * 1e9, 1.2)},
        compute={ANY: ComputeRate.constant(Estimate.within(tflops * 1e12, 1.5))},
        kv_bytes_per_s=Estimate.within(gb_per_s * 0.5e9, 1.5),
        attention_flop_per_s=Estimate.within(tflops * 1e12, 1.5),
        layer_overhead_s=Estimate.within(us * 1e-6, 1.3),
    )


def link(us: float, gb_per_s: float) -> LinkRates:
    return LinkRates(
        name=f"link-{us:g}-{gb_per_s:g}",
        latency_s=Estimate.within(us * 1e-6, 2),
        bytes_per_s=Estimate.within(gb_per_s * 1e9, 1.3),
    )


def question(model: str = "llama-3.1-8b", format_name: str = "q4", **more: object) -> Question:
    return Question(model=known_model(model), weights=find_format(format_name), **more)  # type: ignore[arg-type]


def setup(nodes: list[NodeRates], *links: LinkRates, **more: object) -> Setup:
    networks = tuple(Network(default=each) for each in links) or (Network(default=link(30, 1)),)
    return Setup(nodes=tuple(nodes), networks=networks, engine=ANY_ENGINE, **more)  # type: ignore[arg-type]


def best(asked: Question, there: Setup) -> Answer:
    answer = find_plans(asked, there)
    assert answer is not None
    return answer


NODES = st.builds(
    node,
    gb=st.sampled_from([3, 6, 16, 64]),
    gb_per_s=st.sampled_from([20, 100, 400, 900]),
    tflops=st.sampled_from([0.5, 5, 60]),
    us=st.sampled_from([5, 50, 150]),
)
LINKS = st.builds(
    link, us=st.sampled_from([2, 30, 300, 5000]), gb_per_s=st.sampled_from([0.1, 1, 10])
)
QUESTIONS = st.builds(
    question,
    model=st.sampled_from(["llama-3.1-8b", "gpt-oss-20b", "qwen3-4b"]),
    format_name=st.sampled_from(["q4", "q8"]),
    context=st.sampled_from([512, 8192]),
    streams=st.sampled_from([1, 7]),
    objective=st.sampled_from(["decode", "prefill", "request"]),
)
FEW = settings(max_examples=25, deadline=None)


@FEW
@given(QUESTIONS, st.lists(NODES, min_size=1, max_size=3), LINKS)
def test_no_slower_than_the_best_machine_alone(
    asked: Question, nodes: list[NodeRates], joined: LinkRates
) -> None:
    alone = [find_plans(asked, setup([each])) for each in nodes]
    times = [answer.best.seconds for answer in alone if answer is not None]
    together = find_plans(asked, setup(nodes, joined))
    if times:
        assert together is not None
        assert together.best.seconds <= min(times) * SLACK
        assert together.single is not None
        assert together.single.seconds == pytest.approx(min(times))


@FEW
@given(QUESTIONS, st.lists(NODES, min_size=1, max_size=3), NODES, LINKS)
def test_one_more_machine_never_hurts(
    asked: Question, nodes: list[NodeRates], more: NodeRates, joined: LinkRates
) -> None:
    before = find_plans(asked, setup(nodes, joined))
    after = find_plans(asked, setup([*nodes, more], joined))
    if before is not None:
        assert after is not None
        assert after.best.seconds <= before.best.seconds * SLACK


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-20b"])
@pytest.mark.parametrize("us", [20, 400])
def test_a_plain_look_finds_the_sets_that_count(
    model: str, us: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many unlike machines not every set gets a close look; the answer is as good."""
    kinds = [node(16, 100, 3), node(8, 400, 20), node(32, 60, 1), node(6, 250, 8)]
    there = setup([*kinds, *kinds[:3]], link(us, 1))
    evaluated = []

    def counted(*arguments: object) -> object:
        evaluated.append(arguments)
        return deploy(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("bandweave.planning.search.search.deploy", counted)
    found = best(question(model), there)
    plain = len(evaluated)
    monkeypatch.setattr("bandweave.planning.search.search._FEW_SETS", 10_000)
    exact = best(question(model), there)
    assert found.best.seconds <= exact.best.seconds * 1.01
    assert found.single is not None and exact.single is not None
    assert found.single.seconds == exact.single.seconds
    assert found.with_all is not None
    assert plain < 0.75 * (len(evaluated) - plain)


@FEW
@given(QUESTIONS, st.lists(NODES, min_size=2, max_size=3), LINKS, LINKS)
def test_a_choice_of_links_is_as_good_as_each(
    asked: Question, nodes: list[NodeRates], one: LinkRates, other: LinkRates
) -> None:
    both = find_plans(asked, setup(nodes, one, other))
    for each in (one, other):
        alone = find_plans(asked, setup(nodes, each))
        if alone is not None:
            assert both is not None
            assert both.best.seconds <= alone.best.seconds * SLACK


@FEW
@given(QUESTIONS, NODES, st.integers(2, 4), LINKS, st.sampled_from([1.5, 10.0]))
def test_a_faster_link_never_hurts(
    asked: Question, each: NodeRates, count: int, slow: LinkRates, factor: float
) -> None:
    fast = replace(
        slow,
        latency_s=slow.latency_s.times(1 / factor),
        bytes_per_s=slow.bytes_per_s.times(factor),
    )
    before = find_plans(asked, setup([each] * count, slow))
    after = find_plans(asked, setup([each] * count, fast))
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert after.best.seconds <= before.best.seconds * SLACK


@FEW
@given(QUESTIONS, st.lists(NODES, min_size=1, max_size=4), LINKS)
def test_plans_fit_and_place_every_layer(
    asked: Question, nodes: list[NodeRates], joined: LinkRates
) -> None:
    answer = find_plans(asked, setup(nodes, joined))
    for plan in answer.plans if answer is not None else ():
        assert capacity(plan.deployment, asked.decoding).fits
        assert sum(plan.layout.layers) == len(asked.model.layers)
        assert len(set(plan.machines)) == len(plan.machines)
        assert plan_items(plan).total_s > 0


def test_unequal_machines_get_unequal_shares() -> None:
    answer = best(question(), setup([node(gb_per_s=400), node(gb_per_s=200)], link(1, 10)))
    tensor = next(plan for plan in answer.plans if plan.kind == "tensor")
    fast, slow = (float(share) for share in tensor.deployment.stages[0].shares)
    assert 0.6 < fast / (fast + slow) < 0.72
    equal = replace(tensor.layout, shares=((1.0, 1.0),))
    assert tensor.seconds < 0.85 * replace_layout(tensor, equal, answer)


def replace_layout(plan, layout, answer: Answer) -> float:  # noqa: ANN001
    from bandweave.planning.search.search import evaluate

    network = answer.setup.networks[0]
    return evaluate(answer.question, answer.setup, network, layout).seconds


def test_memory_moves_shares_and_layers() -> None:
    """Two machines of which the quick one is small: it gets what it holds."""
    asked = question("llama-3.1-8b", "q8")  # 8 GB
    nodes = [node(gb=4, gb_per_s=900), node(gb=8, gb_per_s=100)]
    answer = best(asked, setup(nodes, link(1, 10)))
    assert answer.single is None
    for plan in answer.plans:
        assert capacity(plan.deployment, asked.decoding).fits


def test_a_slow_link_leaves_one_machine() -> None:
    answer = best(question(), setup([node(), node()], find_link("wifi-6")))
    assert answer.best.kind == "one"
    assert answer.left_out == (1,)
    assert verdict_sentence(answer).startswith("One machine is faster")
    assert "Left out" in left_out_sentences(answer)[0]


def test_a_slow_machine_is_left_out() -> None:
    answer = best(question(), setup([node(), node(), node(gb_per_s=2, tflops=0.05)], link(10, 5)))
    assert answer.left_out == (2,)


def test_many_streams_choose_the_pipeline_over_a_slow_link() -> None:
    asked = question("llama-3.1-70b", "q4", streams=32)
    answer = best(asked, setup([node(gb=32)] * 4, link(2000, 0.5)))
    assert answer.best.kind == "pipeline"
    assert best(replace(asked, streams=1), setup([node(gb=32)] * 4, link(2, 10))).best.kind == (
        "tensor"
    )


def test_pairs_with_a_good_link_form_the_stages() -> None:
    """Two tables of two machines: tensor inside a table, pipeline between."""
    good, bad = link(3, 10), link(3000, 0.1)
    network = Network(default=bad, links={(0, 2): good, (1, 3): good})
    asked = question("llama-3.1-70b", "q4")
    there = Setup(nodes=(node(gb=16),) * 4, networks=(network,), engine=ANY_ENGINE)
    plan = best(asked, there).best
    assert plan.kind == "mixed"
    assert {frozenset(stage) for stage in plan.layout.stages} == {
        frozenset({0, 2}),
        frozenset({1, 3}),
    }


def test_whole_experts_are_tried_only_where_they_can_be() -> None:
    asked = question("qwen3-30b-a3b")
    nodes = [node(), node()]
    kinds = {plan.layout.whole_experts for plan in best(asked, setup(nodes, link(1, 10))).plans}
    assert kinds == {False, True}
    without = setup(nodes, link(1, 10), whole_experts=False)
    assert not any(plan.layout.whole_experts for plan in best(asked, without).plans)


def test_an_engine_without_overlap_gains_no_speed_from_stages() -> None:
    asked = question(streams=8)
    there = replace(
        setup([node()] * 2, link(1, 10)), engine=replace(BANDWEAVE, overlaps_stages=False)
    )
    pipeline = next(plan for plan in best(asked, there).plans if plan.kind == "pipeline")
    single = best(asked, setup([node()])).best
    assert pipeline.decode.tokens_per_s <= single.decode.tokens_per_s * 1.01


def test_sensitivities_point_the_right_way() -> None:
    answer = best(question("llama-3.1-70b"), setup([node()] * 2, link(20, 5)))
    found = {each.change: each.factor for each in sensitivities(answer)}
    assert all(factor >= 1 - 1e-9 for factor in found.values())
    assert 1.5 < found["twice the memory bandwidth"] <= 2
    assert found["half the link's latency"] > found["twice the link's bandwidth"]
    assert "reading weights" in limiting_sentence(answer)


def test_too_large_says_by_how_much_and_what_would_fit() -> None:
    asked = question("llama-3.1-70b", "q8")
    there = setup([node(gb=40)])
    assert find_plans(asked, there) is None
    sentence = shortage_sentence(asked, there)
    missing = (needed_bytes(asked, there) - 40e9) / (1 << 30)
    assert f"{missing:.0f} GiB too little" in sentence
    assert "in q4" not in sentence  # 40 GB and a cache
    assert "with 1 more" in sentence


def test_hundreds_of_machines() -> None:
    answer = best(question("llama-3.1-405b"), setup([node(gb=24)] * 200, find_link("wan")))
    assert answer.best.kind == "pipeline"
    assert len(list(machine_sets(answer.question, answer.setup))) < 40


def test_cuts_are_all_ways_of_a_few_machines() -> None:
    assert len(list(ways_to_cut([0, 1, 2, 3], alike=False))) == 8
    assert len(list(ways_to_cut([0, 1, 2, 3], alike=True))) == 5  # partitions of 4
    for stages in ways_to_cut(range(40), alike=True):
        assert [each for stage in stages for each in stage] == list(range(40))


def test_layouts_that_cannot_fit_are_refused() -> None:
    asked = question("llama-3.1-70b", "q8")
    there = setup([node(gb=10), node(gb=10)])
    layout = start_layout(asked, ((0, 1),), [1.0, 1.0])
    assert layout is not None
    assert fitted(asked, there, there.networks[0], layout) is None
    assert start_layout(asked, tuple((i,) for i in range(81)), [1.0] * 81) is None


def test_read_bytes() -> None:
    model, q4 = known_model("llama-3.1-8b"), find_format("q4")
    assert read_bytes(model, q4) == pytest.approx(7.5e9 * 4.5 / 8, rel=0.01)
    experts = known_model("qwen3-30b-a3b")
    assert read_bytes(experts, q4, 64) > 5 * read_bytes(experts, q4)


def test_phrases_name_the_split() -> None:
    answer = best(question(), setup([node()] * 3, link(1, 10)))
    phrases = {plan.kind: layout_phrase(plan) for plan in answer.plans}
    assert phrases["one"] == "one machine"
    assert phrases["tensor"].startswith("tensor split over")
