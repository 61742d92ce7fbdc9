"""Who holds what of a model, chosen from what was measured; and how a status shows it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from bandweave.cli.status import status_lines
from bandweave.models.registry import build_graph
from bandweave.planning.profile.prediction import Load
from bandweave.planning.search.measured import plan_measured, reasons
from bandweave.synth.shapes import find_shape
from tests.helpers.profiles import make_link, make_machine, make_nodes

_LOAD = Load(prompt_tokens=64, new_tokens=64)


def plan(speeds: Sequence[float], latency: float, rooms: Sequence[int], need: int = 100, **settled):
    nodes = make_nodes(*(make_machine(bytes_per_s=speed * 10e9) for speed in speeds))

    def needs(shares: Sequence[Fraction], stages: int) -> list[int]:
        whole = sum(shares)
        return [int(need * share / whole) for share in shares]

    graph = build_graph(find_shape("tinyllama-1.1b").spec())
    return plan_measured(
        graph, nodes, lambda a, b: make_link(latency=latency), _LOAD,
        rooms=lambda numbers: [rooms[number] for number in numbers], needs=needs, **settled,
    )  # fmt: skip


def test_fast_links_join_all_and_slow_ones_leave_the_slow_out() -> None:
    found = plan([1.0, 1.0, 1.0], 1e-6, [1000] * 3)
    assert found is not None and found.best.machines == (0, 1, 2) and found.best.stages == 1
    found = plan([1.0, 1.0, 1.0], 0.5, [1000] * 3)
    assert found is not None and len(found.best.machines) == 1
    assert found.everybody is not None and found.everybody.seconds > found.best.seconds
    sentences = reasons(found, ["a", "b", "c"])
    assert sentences[0].startswith("one machine alone: ")
    assert sentences[-1].startswith("b and c are left out: with all machines it would be ")


def test_memory_decides_where_speed_would_not() -> None:
    found = plan([1.0, 1.0], 0.5, [60, 60])
    assert found is not None and found.best.machines == (0, 1)
    assert plan([1.0, 1.0], 0.5, [40, 40]) is None
    found = plan([1.0, 1.0, 1.0], 0.5, [70, 70, 5])
    assert found is not None and len(found.best.machines) == 2


def test_what_is_settled_stays_so() -> None:
    found = plan([1.0, 1.0, 1.0], 0.5, [1000] * 3, everybody=True)
    assert found is not None and len(found.best.machines) == 3
    found = plan([1.0, 1.0], 1e-6, [1000] * 2, stages=2)
    assert found is not None and found.best.stages == 2


def test_a_faster_machine_gets_more() -> None:
    found = plan([3.0, 1.0], 1e-6, [1000] * 2)
    assert found is not None and found.best.machines == (0, 1)
    assert found.best.shares[0] > 1.5 * found.best.shares[1]


def test_a_status_fits_eighty_columns() -> None:
    machine = {
        "host": "a-machine-with-a-long-name", "worker": "w", "processor": "p", "cpus": 128,
        "addresses": ["[2001:db8:1234:5678:9abc:def0:1234:5678]:7101", "10.0.0.1:7101"],
        "threads": None, "memory_bytes": 512_000_000_000, "free_bytes": 500_000_000_000,
        "version": "1", "placed_by": "ray", "seconds": 360_000.0,
    }  # fmt: skip
    model = {
        "command": "bandweave serve x", "pid": 1, "peer": "p", "model": "m" * 40,
        "nodes": [{"worker": "w", "share": 0.25}], "why": ["because " * 30],
        "streams": {"running": 3, "waiting": 1},
        "links": [{"nodes": [0, 1], "transport": "tcp", "latency_seconds": 1e-5,
                   "bytes_per_s": None, "address": "10.0.0.1:7101",
                   "routes": [{"address": "10.0.0.1:7101", "seconds": 1e-5},
                              {"address": "10.1.0.1:7101", "seconds": 1e-3}]}],
        "recoveries_total": 1,
        "recoveries": [{"kind": "failed", "cause": "node 1 ended " * 9, "nodes_before": 2,
                        "nodes_after": 1, "seconds": {"noticed": 0.1, "loaded": 0.2}}],
        "outage": {"reason": "too few machines"},
    }  # fmt: skip
    idle = [{**machine, "worker": role} for role in ("out", "spare", "ready", "in")]
    model["machines"] = [
        {"worker": "out", "role": "left out", "reason": "with it 3 tokens/s " * 9},
        {"worker": "spare", "role": "spare", "reason": ""},
        {"worker": "ready", "role": "ready", "reason": "is busy"},
        {"worker": "in", "role": "serving", "stands_in": True, "reason": "it is slow"},
    ]
    model["groups"] = [
        {"group": 0, "serves": True, "streams": 2, "nodes": ["node 0 (10.0.0.1:7101)"] * 9},
        {"group": 1, "serves": False, "streams": 0, "nodes": ["node 0"], "reason": "memory"},
    ]
    model["standby"] = {"where": "memory", "over": True, "num_bytes": [10**9, 10**9],
                        "reasons": []}  # fmt: skip
    model["recoveries"][0] |= {"newcomers": ["node 2"], "retired": ["node 3"]}
    found = {"head": "10.0.0.1:7100", "machines": [machine, *idle], "gone": ["x is gone"],
             "notes": {"ray": "Ray places workers"}, "models": [model], "ray": None}  # fmt: skip
    lines = status_lines(found)
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for wanted in ("25%", "3 streams, 1 waiting", "10.0.0.1:7101 (10 us), which answers sooner "
                   "than 10.1.0.1:7101 (1 ms)", "2 to 1 nodes; node 2 came in; node 3 went",
                   "noticed 100 ms, loaded 200 ms", "is left out: with it 3 tokens/s",
                   "is held ready, and takes part once another machine fails",
                   "yet: is busy.", "takes part while another machine is missing; it was left out "
                   "at first: it is slow", "): 2 streams.", "answers nobody now, memory",
                   "Standby weights in memory: 2 GB ready", "of group 0 meet at",
                   "Answers wait: too few machines", "Ray places workers."):  # fmt: skip
        assert wanted in text
    # What a controller reports may be anything.
    wild = {**model, "links": 3, "why": None, "nodes": [{}, 3], "recoveries": ["x"], "streams": [],
            "machines": [3, {}, {"worker": "out", "role": 3, "reason": []}], "groups": [3, {}],
            "standby": {"num_bytes": [True, "x"], "reasons": 3}}  # fmt: skip
    assert status_lines({**found, "models": [wild, {"command": "", "pid": 2}]})
