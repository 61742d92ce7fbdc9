"""Predictions: sizes against the engine's programs and counters, times by what must hold always."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave import _native
from bandweave.engine.options import EngineOptions
from bandweave.formats.sizes import packed_bytes
from bandweave.models.graph import Graph
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.planning.profile.bill import ITEMS
from bandweave.planning.profile.engine_cost import predict_step
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.planning.profile.link_profile import FREE_LINK, LinkProfile
from bandweave.planning.profile.prediction import (
    Load,
    Prediction,
    choose_shares,
    predict,
    prompt_steps,
)
from bandweave.planning.profile.prediction import decode_step as profile_step
from bandweave.planning.profile.profile import HERE, MachineProfile
from bandweave.planning.profile.profile_rates import link_rates_from_profile, rates_from_profile
from bandweave.planning.profile.slowness import slowness_sentence
from bandweave.programs.lowering import lower
from bandweave.programs.program import Op, Program, Weight
from bandweave.programs.split import make_split
from bandweave.programs.work import Product, Reduce, Step, step_work
from bandweave.run_options import RunOptions
from bandweave.synth.shapes import find_shape
from tests.helpers.counted_run import counted_run
from tests.helpers.profiles import make_link, make_machine, make_nodes, recorded_profile
from tests.helpers.split_strategies import requests, specs

DECODE = Step(rows=1, keys=100.0, logit_rows=1, pages=2)


def tinyllama() -> Graph:
    return build_graph(find_shape("tinyllama-1.1b").spec())


def weights_only(**changes: Any) -> MachineProfile:
    """A machine on which nothing but reading weights takes time."""
    machine = make_machine(element=0.0, overhead=0.0, attention=0.0, step=0.0, **changes)
    step = dataclasses.replace(machine.step, seconds_per_row=0.0)
    return dataclasses.replace(machine, step=step)


def same(link: LinkProfile):
    return lambda a, b: link


def decode_wall(
    graph: Graph,
    shares: Sequence[Fraction | int],
    nodes: Sequence[EngineNode],
    link: LinkProfile,
    *,
    stages: int = 1,
    step: Step = DECODE,
) -> float:
    split = make_split(graph.spec, shares, stages=stages)
    return predict_step(
        graph, split, nodes, same(link), step, weight_format="q4", kv_format="f16"
    ).wall


# --- sizes ---


@given(
    format=st.sampled_from(("q4", "q8", "bf16", "f32")),
    outputs=st.integers(1, 200),
    inputs=st.integers(1, 700),
    unit=st.integers(1, 700),
)
def test_packed_bytes_are_the_kernels(format: str, outputs: int, inputs: int, unit: int) -> None:
    expected = _native.matrix_bytes(format, outputs, inputs, unit)
    assert packed_bytes(format, outputs, inputs, unit) == expected


@settings(max_examples=60, deadline=None)
@given(spec=specs(), request=requests(), format=st.sampled_from(("q4", "q8", "bf16", "f32")))
def test_work_reads_what_programs_read(
    spec: ModelSpec, request: tuple[list[Fraction], int], format: str
) -> None:
    shares, stages = request
    try:
        split = make_split(spec, shares, stages=stages)
    except ValueError:
        return
    graph = build_graph(spec)
    work = list(step_work(graph, split, DECODE, format=format))
    for node in range(split.num_nodes):
        program = lower(graph, split, node)
        read = [weights for op in program.ops for weights in _read_for_a_row(program, op)]
        expected = sum(
            packed_bytes(w.format_in(format), w.outputs, w.inputs, w.unit)
            for weights in read
            for w in weights
        )
        products = [
            (one, times)
            for segment, times in work
            for one in segment.local.get(node, ())
            if isinstance(one, Product)
        ]
        assert sum(one.weight_bytes * times for one, times in products) == expected
        assert sum(times for _, times in products) == len(read)
        reduces = sum(
            times
            for segment, times in work
            for one in segment.meetings
            if isinstance(one, Reduce) and node in one.group
        )
        assert reduces == sum(op.kind == "all_reduce_add" for op in program.ops)


def _read_for_a_row(program: Program, op: Op) -> list[list[Weight]]:
    """The matrices that an operation reads for one row, those that are alike together: of a mixture
    as many as it chooses, and the shared one."""
    if op.weight is not None:
        return [[program.weights[op.weight]]]
    if "matrices" not in op.attributes:
        return []
    held = [None if name is None else program.weights[name] for name in op.names("matrices")]
    if op.kind == "head_linear":
        return [[weight for weight in held if weight is not None]]
    top_k = op.number("top_k")
    count = len(held) - (op.inputs[1].width // 2 - top_k)
    first = next((weight for weight in held[:count] if weight is not None), None)
    return [
        *([[first] * top_k] if first is not None else []),
        *([weight] for weight in held[count:] if weight is not None),
    ]


@pytest.mark.parametrize(
    ("shares", "stages", "format"),
    [((1,), 1, "q4"), ((1, 1), 1, "q8"), ((3, 1), 1, "q4"), ((1, 1), 2, "q4"),
     ((2, 1, 1), 1, "q4"), ((1, 1, 1, 1), 2, "q4")],
)  # fmt: skip
def test_bytes_are_those_that_the_engine_counts(
    shares: tuple[int, ...], stages: int, format: str
) -> None:
    """Weights exactly; the wire within 2%, as a rare block of large sums is sent wider."""
    prompt, new = 70, 12
    options = EngineOptions(
        shares=tuple(map(Fraction, shares)), stages=stages,
        run=RunOptions(weight_format=format, context=256, max_rows=64),
    )  # fmt: skip
    run = counted_run(options, prompt=prompt, new=new)
    before, after, bill, split = run.before, run.after, run.bill, run.split
    graph = build_graph(run.spec)
    load = Load(prompt_tokens=prompt, new_tokens=new, weight_format=format, max_rows=64)
    nodes = make_nodes(*[make_machine()] * len(shares))
    found = predict(graph, split, nodes, same(make_link()), load)
    assert list(found.decode.weight_bytes) == [round(size) for size in bill.weight_bytes]
    for kind in ("activations", "logits"):
        assert found.decode.wire_bytes[kind] == pytest.approx(bill.wire_bytes[kind], rel=0.02)
    for kind in ("weights", "kv"):
        assert found.decode.wire_bytes[kind] == bill.wire_bytes[kind] == 0
    # Nodes that wait report progress now and then, which no plan foresees.
    assert found.decode.wire_bytes["control"] == pytest.approx(bill.wire_bytes["control"], abs=64)
    sent = {
        kind: sum(one.prefill[name] - old.prefill[name]
                  for old, one in zip(before, after, strict=True))
        for kind, name in (("activations", "activation_bytes"), ("logits", "logit_bytes"))
    }  # fmt: skip
    for kind, size in sent.items():
        expected = sum(one.wire_bytes[kind] for one in found.prefill)
        assert expected == pytest.approx(size, rel=0.02)
    steps = [one.prefill["steps"] - old.prefill["steps"]
             for old, one in zip(before, after, strict=True)]  # fmt: skip
    assert steps == [len(found.prefill)] * len(shares)


def test_prompts_are_read_in_the_engines_steps() -> None:
    steps = prompt_steps(Load(prompt_tokens=600, new_tokens=1, max_rows=256))
    assert [step.rows for step in steps] == [256, 256, 88]
    assert [step.logit_rows for step in steps] == [0, 0, 1]
    assert [step.pages for step in steps] == [4, 8, 10]
    # Row r of a prompt sees r + 1 keys.
    assert sum(step.rows * step.keys for step in steps) == 600 * 601 / 2
    rest = prompt_steps(Load(prompt_tokens=600, new_tokens=1, reused_tokens=590))
    assert [step.rows for step in rest] == [10] and rest[0].keys == 595.5


# --- what must hold always ---


@given(
    slow=st.floats(1e9, 1e11),
    factor=st.floats(1.0, 20.0),
    shares=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    rows=st.integers(1, 64),
)
@settings(max_examples=40, deadline=None)
def test_more_bandwidth_never_hurts(
    slow: float, factor: float, shares: list[int], rows: int
) -> None:
    graph = tinyllama()
    step = dataclasses.replace(DECODE, rows=rows, logit_rows=rows, slots=rows)
    count = len(shares)
    for which in range(count):
        machines = [make_machine(bytes_per_s=slow)] * count
        before = decode_wall(graph, shares, make_nodes(*machines), make_link(), step=step)
        machines[which] = make_machine(bytes_per_s=slow * factor)
        after = decode_wall(graph, shares, make_nodes(*machines), make_link(), step=step)
        assert after <= before * (1 + 1e-12)


@given(
    latency=st.floats(0, 1e-2), rate=st.floats(1e6, 1e11),
    better=st.floats(0, 1), shares=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    stages=st.integers(1, 2),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_better_link_never_hurts(
    latency: float, rate: float, better: float, shares: list[int], stages: int
) -> None:
    graph, nodes = tinyllama(), make_nodes(*[make_machine()] * len(shares))
    worse = decode_wall(graph, shares, nodes, make_link(latency=latency, bytes_per_s=rate),
                        stages=stages)  # fmt: skip
    link = make_link(latency=latency * better, bytes_per_s=rate / max(better, 1e-3))
    assert decode_wall(graph, shares, nodes, link, stages=stages) <= worse * (1 + 1e-12)


@given(context=st.integers(1, 30000), rows=st.integers(1, 64))
@settings(max_examples=30, deadline=None)
def test_longer_texts_take_longer(context: int, rows: int) -> None:
    graph, nodes = tinyllama(), make_nodes(make_machine())
    near = dataclasses.replace(DECODE, rows=rows, logit_rows=rows, keys=float(context))
    far = dataclasses.replace(near, keys=2.0 * context)
    assert decode_wall(graph, (1,), nodes, FREE_LINK, step=near) < decode_wall(
        graph, (1,), nodes, FREE_LINK, step=far
    )


def test_one_node_knows_no_network() -> None:
    graph, nodes = tinyllama(), make_nodes(make_machine())
    split = make_split(graph.spec, (1,))

    def no_link(a: int, b: int) -> LinkProfile:
        raise AssertionError("one node asked for a link")

    bill = predict_step(graph, split, nodes, no_link, DECODE, weight_format="q4", kv_format="f16")
    assert sum(bill.wire_bytes.values()) == 0
    assert bill.seconds[0]["wire"] == bill.seconds[0]["exchange_wait"] == 0


def test_without_a_network_and_overheads_only_the_weights_count() -> None:
    """TinyLlama's sizes halve evenly: two nodes take half the time, stages all of it."""
    graph = tinyllama()
    free = weights_only(bytes_per_s=20e9)
    one = decode_wall(graph, (1,), make_nodes(free), FREE_LINK)
    split = make_split(graph.spec, (1,))
    sizes = predict_step(
        graph, split, make_nodes(free), same(FREE_LINK), DECODE,
        weight_format="q4", kv_format="f16",
    ).weight_bytes  # fmt: skip
    assert one == pytest.approx(sizes[0] / 20e9)
    two = decode_wall(graph, (1, 1), make_nodes(free, free), FREE_LINK)
    # 500 vocabulary units split 63:62 of 125, and columns 44:44 of 88 units.
    assert two == pytest.approx(one / 2, rel=0.005)
    staged = decode_wall(graph, (1, 1), make_nodes(free, free), FREE_LINK, stages=2)
    assert staged == pytest.approx(one)
    fast = weights_only(bytes_per_s=60e9)
    uneven = decode_wall(graph, (3, 1), make_nodes(fast, free), FREE_LINK)
    assert uneven == pytest.approx(one / 4, rel=0.02)


def test_the_items_add_up_and_all_nodes_end_together() -> None:
    graph = tinyllama()
    split = make_split(graph.spec, (3, 2, 1))
    nodes = make_nodes(*[make_machine()] * 3)
    bill = predict_step(
        graph, split, nodes, same(make_link()), DECODE, weight_format="q4", kv_format="f16"
    )
    for items in bill.seconds:
        assert sum(items[item] for item in ITEMS) == pytest.approx(items["wall"])
        assert items["wall"] == pytest.approx(bill.wall)
        assert all(value >= 0 for value in items.values())


def test_an_exchange_costs_what_the_link_does() -> None:
    """44 all-reduces, the opening, the embedding and the logits; each later by the latency."""
    graph, nodes = tinyllama(), make_nodes(*[make_machine()] * 2)
    near = decode_wall(graph, (1, 1), nodes, make_link(latency=0.0))
    far = decode_wall(graph, (1, 1), nodes, make_link(latency=100e-6))
    assert 44 * 100e-6 <= far - near <= 48 * 100e-6


def test_nodes_of_one_host_share_its_memory() -> None:
    graph = tinyllama()
    machine = weights_only(cpus=2, together_gain=1.2)
    apart = [EngineNode(machine=machine, threads=1, host=f"host {i}") for i in range(2)]
    beside = [EngineNode(machine=machine, threads=1, host="host") for _ in range(2)]
    alone = decode_wall(graph, (1,), apart[:1], FREE_LINK)
    assert decode_wall(graph, (1, 1), apart, FREE_LINK) < 0.55 * alone
    together = decode_wall(graph, (1, 1), beside, FREE_LINK)
    assert together == pytest.approx(alone / 1.2, rel=0.01)
    # The smaller share is done first and leaves the memory to the larger: better than in step.
    uneven = decode_wall(graph, (3, 1), beside, FREE_LINK)
    assert together < uneven < alone
    crowd = [EngineNode(machine=machine, threads=2, host="host") for _ in range(2)]
    assert decode_wall(graph, (1, 1), crowd, FREE_LINK) > together


def test_more_nodes_than_work_are_refused() -> None:
    graph = tinyllama()
    with pytest.raises(ValueError, match="1 machines for 2 nodes"):
        decode_wall(graph, (1, 1), make_nodes(make_machine()), FREE_LINK)
    machine = make_machine()
    only_q4 = dataclasses.replace(
        machine, products=tuple(p for p in machine.products if p.format == "q4")
    )
    with pytest.raises(ValueError, match="knows the formats q4, not q8"):
        predict_step(
            graph, make_split(graph.spec, (1,)), make_nodes(only_q4), same(FREE_LINK), DECODE,
            weight_format="q8", kv_format="f16",
        )  # fmt: skip


# --- shares ---


def chosen(*speeds: float, stages: int = 1, link: LinkProfile | None = None) -> list[float]:
    nodes = make_nodes(*[make_machine(bytes_per_s=speed) for speed in speeds])
    load = Load(prompt_tokens=256, new_tokens=128)
    choice = choose_shares(tinyllama(), nodes, same(link or make_link()), load, stages=stages)
    whole = sum(choice.shares)
    return [float(share / whole) for share in choice.shares]


def test_equal_machines_get_equal_shares() -> None:
    assert chosen(20e9, 20e9) == [0.5, 0.5]
    assert chosen(20e9) == [1.0]
    assert chosen(20e9, 20e9, 20e9) == pytest.approx([1 / 3] * 3)


def test_a_faster_machine_gets_more() -> None:
    fast, slow = chosen(60e9, 20e9)
    assert fast == pytest.approx(0.75, abs=0.04) and slow == pytest.approx(1 - fast)
    assert chosen(20e9, 60e9) == pytest.approx([slow, fast], abs=0.04)
    fast, _ = chosen(60e9, 20e9, stages=2)  # stages work in turn: the fast one as much as it may
    assert fast > 0.85


def test_the_choice_is_no_worse_than_any_other() -> None:
    graph = tinyllama()
    nodes = make_nodes(make_machine(bytes_per_s=45e9), make_machine(bytes_per_s=20e9))
    load = Load(prompt_tokens=256, new_tokens=128)
    choice = choose_shares(graph, nodes, same(make_link()), load)

    def wall(shares: Sequence[Fraction | int]) -> float:
        split = make_split(graph.spec, shares)
        return predict(graph, split, nodes, same(make_link()), load).decode.wall

    best = min(wall((part, 32 - part)) for part in range(1, 32))
    assert wall(choice.shares) <= best * 1.02
    assert choice.gain == pytest.approx(wall((1, 1)) / wall(choice.shares))


def test_groups_of_streams_keep_all_stages_at_work() -> None:
    graph, nodes = tinyllama(), make_nodes(make_machine(), make_machine())
    links = same(make_link())

    def predicted(shares: Sequence[int], streams: int, stages: int = 2) -> Prediction:
        load = Load(prompt_tokens=64, new_tokens=8, streams=streams)
        return predict(graph, make_split(graph.spec, shares, stages=stages), nodes, links, load)

    even, uneven = predicted((1, 1), 16), predicted((3, 1), 16)
    assert even.decode_tokens_per_s == pytest.approx(16 / even.period)
    # A group's step is that of half of the streams.
    half = predict_step(
        graph, make_split(graph.spec, (1, 1), stages=2), nodes, links,
        profile_step(Load(prompt_tokens=64, new_tokens=8, streams=8)),
        weight_format="q4", kv_format="f16",
    )  # fmt: skip
    assert even.decode.wall == half.wall <= even.period
    # The larger stage sets the pace: it has a step of each group to compute.
    assert uneven.period > 1.2 * uneven.decode.wall
    alone = predicted((3, 1), 1)
    assert alone.period == alone.decode.wall
    together = predicted((3, 1), 16, stages=1)
    assert together.period == together.decode.wall


def test_a_profile_gives_the_planners_rates() -> None:
    machine = make_machine(bytes_per_s=20e9, flop_per_s=1e12, together_gain=1.5)
    both, one = rates_from_profile(machine), rates_from_profile(machine, threads=1)
    assert one.weight_rate("q4", "likely") == pytest.approx(20e9)
    assert both.weight_rate("q8", "likely") == pytest.approx(30e9)
    assert one.compute_rate("q4", 128, "likely") == pytest.approx(1e12)
    assert both.compute_rate("q4", 128, "likely") == pytest.approx(2e12)
    assert one.compute_rate("q4", 1, "likely") == pytest.approx(2 * 20e9 * 32 / 18)
    assert one.kv_bytes_per_s.likely == pytest.approx(1e10)
    assert one.attention_flop_per_s.likely == pytest.approx(4e10)
    assert one.weight_rate("q4", "slow") < 20e9 < one.weight_rate("q4", "fast")
    assert one.overhead(False, "likely") == pytest.approx(1.1e-6)
    link = link_rates_from_profile(make_link(latency=40e-6, bytes_per_s=1e9))
    assert link.message_s.likely == pytest.approx(10e-6)
    assert link.latency_s.likely == pytest.approx(31e-6, rel=0.01)
    assert link.transfer_s(1 << 20, "likely") == pytest.approx(1.05e-3, rel=0.01)


# --- a recorded machine ---


@pytest.mark.parametrize(
    ("shape", "format", "shares", "stages", "prompt"),
    [("smollm2-135m", "q4", (1,), 1, 128), ("tinyllama-1.1b", "q4", (1, 1), 1, 128),
     ("tinyllama-1.1b", "q4", (3, 1), 1, 2000), ("qwen3-0.6b", "q4", (1, 1), 2, 1000)],
)  # fmt: skip
def test_predictions_from_a_recorded_profile_stay(
    shape: str, format: str, shares: tuple[int, ...], stages: int, prompt: int
) -> None:
    """A change here is a change of the model of cost: look at it, then write the new figures.

    ``BANDWEAVE_PROFILE=tests/data/profile.json bandweave probe`` records another machine.
    """
    profile = recorded_profile()
    graph = build_graph(find_shape(shape).spec())
    threads = 2 // len(shares)
    nodes = [EngineNode(machine=profile.machines[HERE], threads=threads, host="here")] * len(shares)
    link = profile.link(HERE, HERE)
    assert link is not None
    load = Load(prompt_tokens=prompt, new_tokens=64, weight_format=format)
    split = make_split(graph.spec, shares, stages=stages)
    found = predict(graph, split, nodes, same(link), load)
    expected = RECORDED_TOKENS_PER_S[shape, shares, stages]
    assert (found.decode_tokens_per_s, found.prefill_tokens_per_s) == pytest.approx(
        expected, rel=1e-3
    )
    assert math.isfinite(found.prefill_seconds)


RECORDED_TOKENS_PER_S = {
    ("smollm2-135m", (1,), 1): (250.794, 1299.7),
    ("tinyllama-1.1b", (1, 1), 1): (37.569, 138.032),
    ("tinyllama-1.1b", (3, 1), 1): (22.5542, 77.531),
    ("qwen3-0.6b", (1, 1), 2): (23.4254, 154.886),
}


def test_the_more_of_a_cache_weights_take_the_less_they_stay_in_it() -> None:
    graph, size = tinyllama(), 600 << 20
    memory = weights_only()
    faster = [
        dataclasses.replace(one, cached=True, seconds_per_byte=one.seconds_per_byte / 4)
        for one in memory.products
        if one.rows == 1
    ]
    walls = []
    for cache in (0, size, 2 * size, 4 * size, 1000 * size):
        machine = dataclasses.replace(
            memory, products=(*memory.products, *faster), cache_bytes=cache
        )
        walls.append(decode_wall(graph, (1,), make_nodes(machine), FREE_LINK))
    assert walls[0] == decode_wall(graph, (1,), make_nodes(memory), FREE_LINK)
    assert walls[0] >= walls[1] > walls[2] > walls[3] > walls[4]
    assert walls[4] == pytest.approx(walls[0] / 4, rel=0.02)


# --- a run that is much slower ---


def _bill_of(*nodes: dict[str, float]) -> list[dict[str, float]]:
    return [{**dict.fromkeys(ITEMS, 0.0), **items, "wall": sum(items.values())} for items in nodes]


def test_a_run_that_is_much_slower_says_why() -> None:
    graph = tinyllama()
    nodes = make_nodes(make_machine(), make_machine())
    expected = predict_step(
        graph, make_split(graph.spec, (1, 1)), nodes, same(make_link()), DECODE,
        weight_format="q4", kv_format="f16",
    )  # fmt: skip
    names = ("node 0", "node 1 (10.0.0.2:9000)")
    plain = [dict(seconds) for seconds in expected.seconds]
    assert slowness_sentence(names, plain, expected) == ""
    wall = expected.wall

    def slow(node: int, item: str) -> str:
        late = [{**one, "exchange_wait": one["exchange_wait"] + 5 * wall, "wall": 6 * wall}
                for one in plain]  # fmt: skip
        late[node] = {**plain[node], item: plain[node][item] + 5 * wall, "wall": 6 * wall}
        return slowness_sentence(names, late, expected)

    assert "node 1 (10.0.0.2:9000) takes" in slow(1, "weights")
    assert "read weights" in slow(0, "weights")
    both = [{**one, "wire": one["wire"] + 5 * wall, "wall": 6 * wall} for one in plain]
    assert "the link" in slowness_sentence(names, both, expected)
    assert "threads" in slow(0, "other")
    assert slow(0, "weights").startswith("a token takes 6.0 times as long as predicted")


def test_equal_machines_stay_equal_within_the_probes_own_spread() -> None:
    """A noisy look at two machines of one kind is no reason for unequal shares."""

    def noisy(spread: float, factor: float, processor: str = "made up") -> list[Fraction]:
        slow = make_machine(bytes_per_s=20e9)
        fast = make_machine(bytes_per_s=20e9 * factor, processor=processor)
        machines = [
            dataclasses.replace(
                one, products=tuple(dataclasses.replace(p, spread=spread) for p in one.products)
            )
            for one in (slow, fast)
        ]
        load = Load(prompt_tokens=256, new_tokens=128)
        choice = choose_shares(tinyllama(), make_nodes(*machines), same(make_link()), load)
        return list(choice.shares)

    assert noisy(0.19, 1.2) == [1, 1]
    assert noisy(0.01, 1.5) != [1, 1]
    assert noisy(0.19, 1.2, "another") != [1, 1]
