"""The simulation agrees with the formulas where both apply, and shows what they cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bandweave.models.registry import build_graph
from bandweave.planning.costs.cost import StepCost, decode_step, prefill
from bandweave.planning.costs.deployment import BANDWEAVE, Deployment, EngineTraits, Network
from bandweave.planning.machines.links import find_link
from bandweave.planning.machines.rates import LinkRates
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.planning.profile.prediction import Load, predict
from bandweave.planning.profile.profile import HERE
from bandweave.planning.search.columns import ANY_ENGINE
from bandweave.planning.search.layout import Layout, Setup, deploy
from bandweave.planning.simulation.exchange import play_exchange
from bandweave.planning.simulation.scenario import Outcome, Scenario, percentile
from bandweave.planning.simulation.sealing import sealed
from bandweave.planning.simulation.server import Batch, PlannedServer, ProbedServer
from bandweave.planning.simulation.simulation import simulate
from bandweave.planning.simulation.takeover import (
    Arrangement,
    Holding,
    Takeover,
    standby_bytes,
)
from bandweave.programs.split import make_split
from bandweave.synth.shapes import find_shape
from tests.helpers.profiles import make_link, make_machine
from tests.test_plan_search import link, node, question

FOR_EVER = 10**9


def pipeline(
    layers: tuple[int, ...],
    joined: LinkRates,
    streams: int,
    *,
    engine: EngineTraits = ANY_ENGINE,
) -> tuple[Deployment, StepCost]:
    asked = question(streams=streams, context=1024)
    network = Network(default=joined)
    there = Setup(nodes=(node(),) * len(layers), networks=(network,), engine=engine)
    layout = Layout(
        stages=tuple((i,) for i in range(len(layers))), shares=((1.0,),) * len(layers),
        layers=layers,
    )  # fmt: skip
    deployment = deploy(asked, there, network, layout)
    return deployment, decode_step(deployment, asked.decoding)


def run(deployment: Deployment, streams: int, **more: float) -> Outcome:
    values = {"prompt": 1, "answer": FOR_EVER, "seconds": 20.0, "warm_up_s": 5.0, **more}
    return simulate([PlannedServer(deployment)], Scenario(streams=streams, context=1024, **values))  # type: ignore[arg-type]


@pytest.mark.parametrize("us", [2, 15_000])
def test_a_single_stream_is_the_formula(us: float) -> None:
    deployment, formula = pipeline((11, 11, 10), link(us, 1), 1)
    outcome = run(deployment, 1)
    assert percentile(outcome.gaps_s, 0.5) == pytest.approx(formula.period_s)
    assert outcome.tokens_per_s == pytest.approx(formula.tokens_per_s, rel=0.01)


@pytest.mark.parametrize("layers", [(11, 11, 10), (16, 8, 8), (4, 20, 8)])
def test_a_saturated_pipeline_is_its_slowest_stage(layers: tuple[int, ...]) -> None:
    deployment, formula = pipeline(layers, link(1, 10), 12)
    outcome = run(deployment, 12)
    assert outcome.tokens_per_s == pytest.approx(formula.tokens_per_s, rel=0.01)
    slowest = formula.busy_s.index(max(formula.busy_s))
    uses = [stage.utilisation for stage in outcome.stages]
    assert uses[slowest] == pytest.approx(1.0, abs=0.02)
    assert max(uses) == uses[slowest]


def test_latency_bound() -> None:
    """The gap is the sum of the latencies where they outweigh everything else."""
    deployment, _ = pipeline((8, 8, 8, 8), link(200_000, 1), 1)
    outcome = run(deployment, 1, seconds=60.0)
    assert percentile(outcome.gaps_s, 0.5) == pytest.approx(4 * 0.2, rel=0.1)
    assert max(stage.utilisation for stage in outcome.stages) < 0.02


def test_streams_hide_latency() -> None:
    deployment, formula = pipeline((11, 11, 10), link(15_000, 1), 64)
    outcome = run(deployment, 64)
    alone = run(pipeline((11, 11, 10), link(15_000, 1), 1)[0], 1)
    assert outcome.tokens_per_s > 10 * alone.tokens_per_s
    # The formula keeps a stage waiting for the link; events do not.
    assert outcome.tokens_per_s >= formula.tokens_per_s


def test_an_engine_without_overlap_is_one_server() -> None:
    alone = replace(BANDWEAVE, overlaps_stages=False)
    deployment, formula = pipeline((16, 16), link(50, 1), 4, engine=alone)
    outcome = run(deployment, 4)
    assert len(outcome.stages) == 1
    assert outcome.tokens_per_s == pytest.approx(formula.tokens_per_s, rel=0.01)


@pytest.mark.parametrize("layers", [(16, 16), (20, 12), (11, 11, 10)])
def test_bandweaves_groups_keep_its_stages_at_work(layers: tuple[int, ...]) -> None:
    """Each step has an even part of the streams; the slowest stage sets the pace."""
    joined, streams = link(50, 1), 12
    deployment, formula = pipeline(layers, joined, streams, engine=BANDWEAVE)
    outcome = run(deployment, streams)
    assert len(outcome.stages) == len(layers)
    assert outcome.tokens_per_s == pytest.approx(formula.tokens_per_s, rel=0.02)
    slowest = max(formula.busy_s)
    assert formula.period_s == pytest.approx(slowest, rel=0.05)
    # One stream has nobody to share the stages with.
    one, single = pipeline(layers, joined, 1, engine=BANDWEAVE)
    assert single.period_s == single.step_s
    assert run(one, 1).tokens_per_s == pytest.approx(single.tokens_per_s, rel=0.01)


def test_groups_gain_where_rows_cost() -> None:
    """Reading weights for two halves of the rows takes as long as for all; products take half."""

    def gain(streams: int) -> float:
        deployment, formula = pipeline((16, 16), link(5, 10), streams, engine=BANDWEAVE)
        alone = replace(deployment, engine=replace(BANDWEAVE, overlaps_stages=False))
        before = decode_step(alone, question(streams=streams, context=1024).decoding)
        return before.period_s / formula.period_s

    assert gain(1) == 1.0
    assert gain(2) == pytest.approx(1.0, abs=0.2)
    assert 1.7 < gain(20_000) <= 2.0
    assert gain(2) < gain(2000) < gain(20_000)


def test_bandweaves_prompts_follow_each_other_through_the_stages() -> None:
    deployment, _ = pipeline((16, 16), link(5, 1), 1, engine=BANDWEAVE)
    work = question(prompt=2048).reading
    alone = replace(deployment, engine=replace(BANDWEAVE, overlaps_stages=False))
    both, one = prefill(deployment, work).total_s, prefill(alone, work).total_s
    assert 0.5 * one < both < 0.62 * one  # eight steps: nine stages' times in the place of sixteen
    outcome = run(deployment, 1, prompt=2048, answer=5, arrivals_per_s=0.01, seconds=2000.0)
    assert percentile(outcome.first_tokens_s, 0.1) == pytest.approx(both, rel=0.05)


def test_the_first_token_takes_the_prefill() -> None:
    deployment, _ = pipeline((16, 16), link(5, 1), 1)
    outcome = run(deployment, 1, prompt=1024, answer=5, arrivals_per_s=0.01, seconds=2000.0)
    reading = prefill(deployment, question(prompt=1024).reading)
    assert percentile(outcome.first_tokens_s, 0.1) == pytest.approx(reading.total_s, rel=0.05)


def test_arrivals_are_served_or_wait() -> None:
    deployment, _ = pipeline((16, 16), link(5, 1), 4)
    calm = run(deployment, 4, prompt=64, answer=20, arrivals_per_s=0.5, seconds=200.0)
    assert calm.tokens_per_s == pytest.approx(0.5 * 20, rel=0.25)
    assert calm.waiting < 5
    busy = run(deployment, 4, prompt=64, answer=20, arrivals_per_s=50, seconds=200.0)
    assert busy.waiting > 100
    assert percentile(busy.first_tokens_s, 0.9) > 10 * percentile(calm.first_tokens_s, 0.9)


def test_failures_cost_time_and_reading_again() -> None:
    deployment, _ = pipeline((16, 16), link(5, 1), 4)
    whole = run(deployment, 4, prompt=64, answer=1000, seconds=400.0)
    failing = run(deployment, 4, prompt=64, answer=1000, seconds=400.0, mean_uptime_s=100.0,
                  repair_s=10.0)  # fmt: skip
    assert whole.failures == 0 and whole.available == 1.0
    assert failing.failures > 0 and failing.recomputed_tokens > 0
    assert failing.available < 1.0
    assert failing.tokens_per_s < whole.tokens_per_s
    # Two nodes, each down 10 s of 110.
    assert failing.available == pytest.approx((100 / 110) ** 2, abs=0.12)


def test_replicas_share_requests() -> None:
    deployment, formula = pipeline((16, 16), link(1, 10), 4)
    scenario = Scenario(streams=4, prompt=1, answer=FOR_EVER, context=1024, seconds=10, warm_up_s=3)
    outcome = simulate([PlannedServer(deployment)] * 3, scenario)
    assert outcome.tokens_per_s == pytest.approx(3 * formula.tokens_per_s, rel=0.02)
    assert len(outcome.stages) == 6


def test_the_seed_decides_everything() -> None:
    deployment, _ = pipeline((16, 16), link(5, 1), 4)
    options = {"prompt": 64, "answer": 20, "arrivals_per_s": 2.0, "mean_uptime_s": 50.0}
    first, again, other = (run(deployment, 4, seed=seed, **options) for seed in (1, 1, 2))
    assert first == again
    assert first.gaps_s != other.gaps_s


def test_percentile() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert [percentile(values, part) for part in (0.0, 0.25, 0.5, 0.99, 1.0)] == [1, 1, 2, 4, 4]
    assert percentile([], 0.5) != percentile([], 0.5)  # not a number


def test_a_step_of_answers_and_prompts_reads_weights_once() -> None:
    deployment, _ = pipeline((16, 16), link(50, 1), 4, engine=BANDWEAVE)
    server = PlannedServer(deployment)
    reading = {"context": 1024, "rows": 16, "prompts": 1, "span": 16}

    def seconds(batch: Batch) -> float:
        return sum(work + way for work, way in server.times(batch))

    answers = seconds(Batch(context=1024, decoding=4))
    prompts = seconds(Batch(**reading))
    both = seconds(Batch(decoding=4, **reading))
    assert max(answers, prompts) < both < 0.75 * (answers + prompts)


@pytest.mark.parametrize("engine", [ANY_ENGINE, BANDWEAVE])
def test_a_given_number_of_requests_comes_to_its_end(engine: EngineTraits) -> None:
    deployment, _ = pipeline((16, 16), link(50, 1), 4, engine=engine)
    options = {"prompt": 300, "answer": 20, "seconds": 1e6, "warm_up_s": 0.0}
    few, many = (run(deployment, 4, requests=count, **options) for count in (6, 60))
    assert (few.requests, few.tokens) == (6, 120)
    assert (many.requests, many.tokens) == (60, 1200)
    assert 5 * few.seconds < many.seconds < 15 * few.seconds
    assert not few.cut_short and few.waiting == 0
    arriving = run(deployment, 4, requests=6, arrivals_per_s=0.1, **options)
    assert arriving.requests == 6 and arriving.seconds > few.seconds


def probed(nodes: int, us: float, *, max_rows: int = 256) -> tuple[ProbedServer, Load]:
    graph = build_graph(find_shape("tinyllama-1.1b").spec())
    split = make_split(graph.spec, (1,) * nodes)
    machine = EngineNode(machine=make_machine(), threads=1, host=HERE)
    joined = make_link(latency=us * 1e-6)
    server = ProbedServer(
        graph=graph,
        split=split,
        nodes=[machine] * nodes,
        links=lambda a, b: joined,
        max_rows=max_rows,
    )
    return server, Load(prompt_tokens=100, new_tokens=20, max_rows=max_rows)


@pytest.mark.parametrize(("nodes", "us"), [(1, 0.0), (2, 5.0), (2, 2000.0)])
@pytest.mark.parametrize("max_rows", [256, 40])
def test_one_request_on_probed_machines_is_the_prediction(
    nodes: int, us: float, max_rows: int
) -> None:
    server, load = probed(nodes, us, max_rows=max_rows)
    expected = predict(server.graph, server.split, server.nodes, server.links, load)
    scenario = Scenario(
        streams=1, prompt=load.prompt_tokens, answer=load.new_tokens, context=110, requests=1,
        seconds=1e6,
    )  # fmt: skip
    outcome = simulate([server], scenario)
    steps = (load.new_tokens - 1) * expected.decode_seconds_per_token
    assert outcome.seconds == pytest.approx(expected.prefill_seconds + steps, rel=0.03)
    assert outcome.first_tokens_s[0] == pytest.approx(expected.prefill_seconds, rel=0.1)


@pytest.mark.parametrize("streams", [1, 8])
def test_stages_of_probed_machines_are_the_prediction(streams: int) -> None:
    server, load = probed(2, 5.0)
    server = replace(server, split=make_split(server.graph.spec, (1, 1), stages=2))
    load = replace(load, streams=streams)
    expected = predict(server.graph, server.split, server.nodes, server.links, load)
    scenario = Scenario(
        streams=streams, prompt=1, answer=FOR_EVER, context=110, seconds=20.0, warm_up_s=5.0
    )
    outcome = simulate([server], scenario)
    assert len(outcome.stages) == 2
    assert outcome.tokens_per_s == pytest.approx(expected.decode_tokens_per_s, rel=0.05)


def test_prompts_that_come_together_share_steps() -> None:
    server, _ = probed(1, 0.0)
    scenario = Scenario(streams=4, prompt=128, answer=10, context=130, requests=4, seconds=1e6)
    first = simulate([server], scenario).first_tokens_s
    # The answers begun take two rows of the second step, which the last prompt lacks.
    assert first[0] == first[1] < first[2] < first[3] < 1.1 * first[2]


def test_a_slow_link_makes_one_machine_the_faster() -> None:
    def rate(nodes: int, us: float) -> float:
        scenario = Scenario(streams=4, prompt=100, answer=20, context=110, requests=8, seconds=1e6)
        return simulate([probed(nodes, us)[0]], scenario).tokens_per_s

    assert rate(2, 5.0) > rate(1, 0.0) > rate(2, 20_000.0)


# What happens when machines fail


class Fixed:
    """A server of one stage whose steps take so long, whatever is in them."""

    chunk_rows, mixes = 256, True

    def __init__(self, machines: int, step_s: float = 0.01) -> None:
        self.machines = tuple(f"m{number}" for number in range(machines))
        self.stages = (self.machines,)
        self._step_s = step_s

    def times(self, batch: Batch) -> list[tuple[float, float]]:
        return [(self._step_s, 0.0)]


class Lines:
    """Machines that hold equal parts, ``least`` of which hold the model."""

    def __init__(self, count: int, *, least: int = 1, spares: int = 0) -> None:
        self.machines = [f"m{number}" for number in range(count)]
        self._least, self._wanted = least, count - spares
        self._known: dict[tuple[int, ...], Arrangement] = {}

    def arrange(self, up: frozenset[int]) -> Arrangement | None:
        chosen = tuple(sorted(up)[: self._wanted])
        if len(chosen) < self._least:
            return None
        if chosen not in self._known:
            part = 1 / len(chosen)
            held = {
                one: Holding(layers=(0.0, 1.0), share=(rank * part, (rank + 1) * part),
                             weight_bytes=12e9 * part)
                for rank, one in enumerate(chosen)
            }  # fmt: skip
            self._known[chosen] = Arrangement(server=Fixed(len(chosen)), holdings=held)
        return self._known[chosen]


def failing(lineups: list[Lines], takeover: Takeover | None, **more: Any) -> Outcome:
    values: dict[str, Any] = {
        "streams": 4, "prompt": 64, "answer": 10**6, "context": 100, "seconds": 2000.0,
        "mean_uptime_s": 1500.0, "repair_s": 200.0, "takeover": takeover, "seed": 3,
    }  # fmt: skip
    servers = []
    for lineup in lineups:
        whole = lineup.arrange(frozenset(range(len(lineup.machines))))
        assert whole is not None
        servers.append(whole.server)
    return simulate(servers, Scenario(**{**values, **more}), lineups)


def test_others_take_over_in_parts_that_add_up() -> None:
    takeover = Takeover(silent_part=0.0, plan_s=0.5, load_bytes_per_s=2e9)
    outcome = failing([Lines(4)], takeover, answer=300)
    waiting = failing([Lines(4)], None, answer=300)
    assert outcome.failures > 2 and outcome.recoveries
    alone = [one for one in outcome.recoveries if (one.before, one.after) == (4, 3)]
    assert alone and all(one.notice_s == pytest.approx(0.3) for one in alone)
    for one in alone:
        # The last machine keeps a quarter of the 12 GB and gets a third, or its neighbour does.
        assert one.load_s in (pytest.approx(2e9 / 2e9 / 2), pytest.approx(1.0), pytest.approx(1.5))
        assert one.prefill_s is not None and 0 < one.prefill_s < 1
    assert outcome.available > waiting.available + 0.1
    assert outcome.tokens > 1.1 * waiting.tokens
    # What streams felt is what the parts say.
    parts = [one.notice_s + one.plan_s + one.load_s + (one.prefill_s or 0)
             for one in outcome.recoveries]  # fmt: skip
    assert outcome.silences_s[-1] == pytest.approx(max(parts), rel=0.2)
    assert percentile(waiting.silences_s, 0.5) > 100


def test_silent_failures_take_longer_to_notice() -> None:
    closed, silent = (
        failing([Lines(4)], Takeover(silent_part=part)) for part in (0.0, 1.0)
    )  # fmt: skip
    assert min(one.notice_s for one in silent.recoveries) >= 5.0
    assert max(one.notice_s for one in closed.recoveries) < 5.0
    slow = Takeover(silent_part=1.0)
    assert slow.notice_s(0.5, step_s=2.0) == 20.0  # ten steps


def test_standby_weights_need_no_loading() -> None:
    outcome = failing([Lines(4)], Takeover(silent_part=0.0, standby=True, load_bytes_per_s=1e9))
    first = outcome.recoveries[0]
    assert first.load_s == 0.0
    # A second failure before what is kept was brought up to date has to load.
    hasty = failing([Lines(6)], Takeover(standby=True, load_bytes_per_s=1e8), mean_uptime_s=300.0)
    assert any(one.load_s > 0 for one in hasty.recoveries)


def test_where_those_left_cannot_hold_the_model_they_wait_for_a_machine() -> None:
    outcome = failing([Lines(4, least=4)], Takeover(silent_part=0.0), repair_s=100.0)
    assert outcome.recoveries
    assert all(one.waited_s > 50 for one in outcome.recoveries if one.before == 4)
    spared = failing([Lines(5, least=4, spares=1)], Takeover(silent_part=0.0), repair_s=100.0)
    first = spared.recoveries[0]
    assert (first.waited_s, first.before, first.after) == (0.0, 5, 4)
    assert spared.available > outcome.available


def test_streams_go_on_at_another_replica() -> None:
    lineups = [Lines(2, least=2), Lines(2, least=2)]
    outcome = failing(lineups, Takeover(silent_part=0.0), arrivals_per_s=0.2, answer=2000,
                      streams=8, repair_s=300.0)  # fmt: skip
    assert outcome.moved > 0
    assert percentile(outcome.silences_s, 0.1) < 2.0


def test_a_machine_that_is_back_is_taken_in_without_losing_what_was_said() -> None:
    outcome = failing([Lines(3)], Takeover(silent_part=0.0), answer=5000)
    assert outcome.returns > 0
    assert outcome.requests > 0
    again = failing([Lines(3)], Takeover(silent_part=0.0), answer=5000)
    assert again == outcome  # and the seed decides it all


def test_what_a_machine_lacks_is_what_it_did_not_hold() -> None:
    quarter = Holding(layers=(0, 1), share=(0.25, 0.5), weight_bytes=3e9)
    third = Holding(layers=(0, 1), share=(0, 1 / 3), weight_bytes=4e9)
    assert third.lacks(quarter) == pytest.approx(3e9)
    assert third.lacks(None) == 4e9
    assert third.lacks(third) == 0
    later = Holding(layers=(0.5, 1), share=(0, 1), weight_bytes=6e9)
    assert later.lacks(Holding(layers=(0, 0.75), share=(0, 1), weight_bytes=9e9)) == pytest.approx(
        3e9
    )


def test_standby_keeps_every_stretch_once() -> None:
    lines = Lines(4)
    everybody = frozenset(range(4))
    whole = lines.arrange(everybody)
    without = [lines.arrange(everybody - {one}) for one in range(4)]
    assert whole is not None
    kept = standby_bytes(whole, [one for one in without if one is not None])
    # The first has 0 to 1/4, and 0 to 1/3 after any loss: a twelfth of 12 GB.
    assert kept[0] == pytest.approx(1e9)
    # The second has 1/4 to 1/2, and needs 0 to 1/3 or 1/3 to 2/3.
    assert kept[1] == pytest.approx(3e9 + 2e9)


# The exchange among many


def test_an_exchange_among_many_waits_for_the_slowest_message() -> None:
    joined = link(30, 10)
    two, some, many = (play_exchange(joined, n, 8192, two_step=False) for n in (2, 16, 256))
    assert joined.latency_s.likely < two.mean_s < 3 * joined.latency_s.likely
    assert two.mean_s < some.mean_s < many.mean_s
    assert many.p99_s >= many.mean_s
    # What 255 messages of 8 KB take on one port of 10 GB/s is the least.
    assert many.mean_s > 255 * 8192 / 10e9
    assert play_exchange(joined, 256, 8192, two_step=True).mean_s < many.mean_s
    assert play_exchange(joined, 16, 8192, two_step=False) == some


def test_links_that_encrypt_cost_microseconds() -> None:
    plain = find_link("ethernet-10g")
    one = sealed(plain)
    assert 0 < one.latency_s.likely - plain.latency_s.likely < 2e-6
    assert 0.6 < one.bytes_per_s.likely / plain.bytes_per_s.likely < 0.8
    bus = find_link("pcie-4")
    assert sealed(bus) is bus
