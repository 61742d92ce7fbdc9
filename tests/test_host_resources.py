"""What several nodes of one host leave each other: nothing is counted twice, nothing shared out
that is not shared."""

from __future__ import annotations

from fractions import Fraction

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import fit_to_hosts
from bandweave.host.control_groups import MemoryLimit
from bandweave.messages import Description
from bandweave.nodes.host_resources import node_rooms, node_threads, short_of_memory
from bandweave.planning.profile.bill import bill_the_link

GB = 10**9
ONE, THREE = Fraction(1), Fraction(3)


def machine(
    host: str = "a",
    *,
    free: int = 8 * GB,
    groups: dict[str, int] | None = None,
    cpus: tuple[int, ...] = (0, 1, 2, 3),
    usable: int | None = None,
    threads: int = 0,
) -> Description:
    limits = {**(groups or {}), "host": free}
    return Description(
        host_id=host,
        memory=tuple(MemoryLimit(group=g, available=n) for g, n in limits.items()),
        cpus=cpus,
        usable_cpus=len(cpus) if usable is None else usable,
        threads=threads,
    )


def test_nodes_of_one_host_share_its_memory() -> None:
    assert node_rooms([machine("a"), machine("b")], [ONE, ONE]) == [8 * GB, 8 * GB]
    assert node_rooms([machine("a"), machine("a")], [ONE, ONE]) == [4 * GB, 4 * GB]
    assert node_rooms([machine("a"), machine("a"), machine("b")], [THREE, ONE, ONE]) == [
        6 * GB, 2 * GB, 8 * GB
    ]  # fmt: skip
    # Nobody knows whether hosts without a name are one.
    assert node_rooms([machine(""), machine("")], [ONE, ONE]) == [8 * GB, 8 * GB]


def test_containers_have_limits_of_their_own_inside_the_hosts() -> None:
    two = [machine(groups={"x": GB}), machine(groups={"y": 9 * GB})]
    assert node_rooms(two, [ONE, ONE]) == [GB, 4 * GB]
    together = [machine(groups={"x": GB}), machine(groups={"x": GB})]
    assert node_rooms(together, [ONE, ONE]) == [GB // 2, GB // 2]
    assert short_of_memory(together, [GB // 2, GB // 2]) == []
    assert short_of_memory(together, [GB, GB // 2]) == [([0, 1], 3 * GB // 2, GB)]
    assert short_of_memory(two, [2 * GB, GB]) == [([0], 2 * GB, GB)]
    # What is free may change between one answer and the next.
    moved = [machine(free=3 * GB), machine(free=2 * GB)]
    assert short_of_memory(moved, [GB, 3 * GB // 2]) == [([0, 1], 5 * GB // 2, 2 * GB)]


def test_threads_are_shared_out_where_processors_are_shared() -> None:
    assert node_threads([machine("a"), machine("b")], None) == [0, 0]
    assert node_threads([machine("a"), machine("a")], None) == [2, 2]
    assert node_threads([machine("a")] * 3, None) == [1, 1, 1]
    assert node_threads([machine("a", cpus=(0,))] * 3, None) == [1, 1, 1]
    assert node_threads([machine("a"), machine("a")], 3) == [3, 3]  # the user knows
    assert node_threads([machine("a", threads=4), machine("a")], None) == [0, 2]
    apart = [machine("a", cpus=(0, 1)), machine("a", cpus=(2, 3))]
    assert node_threads(apart, None) == [0, 0]
    quota = [machine("a", usable=2), machine("a", usable=2)]
    assert node_threads(quota, None) == [1, 1]
    assert node_threads([machine(""), machine("")], None) == [0, 0]


def test_a_host_that_is_short_is_named() -> None:
    names = ("node 0 (10.0.0.1:7000)", "node 1 (10.0.0.2:7000)")
    with Folder.open(demo_folder()) as folder:
        for fit in (True, False):
            options = EngineOptions(
                shares=(ONE, ONE), hosts=("a:1", "b:1"), secret=b"s" * 32, fit=fit
            )
            enough = [machine("a"), machine("b")]
            assert fit_to_hosts(folder, options, 1024, enough, names).shares == (1, 1)
            short = [machine("a", free=24 * GB), machine("b", free=GB // 1000)]
            with pytest.raises(MemoryError) as raised:
                fit_to_hosts(folder, options, 1024, short, names)
            sentence = str(raised.value)
            assert "node 1 (10.0.0.2:7000) needs 0." in sentence and "node 0" not in sentence
            assert "there are 0.00 GB available" in sentence and "smaller share" in sentence


# --- the link on the bill ---


def bill(*nodes: tuple[float, float, float]) -> list[dict[str, float]]:
    """Work, wait and wire of each node, which add up to the wall time."""
    return [
        {"weights": work, "exchange_wait": wait, "wire": wire, "wall": work + wait + wire}
        for work, wait, wire in nodes
    ]


def test_what_all_nodes_wait_for_is_the_wire() -> None:
    slow_link = bill_the_link(bill((2.0, 8.0, 0.0), (1.0, 9.0, 0.0)), [(0, 1)])
    assert [(one["exchange_wait"], one["wire"]) for one in slow_link] == [(0, 8), (1, 8)]
    unequal = bill_the_link(bill((9.5, 0.25, 0.25), (3.0, 6.75, 0.25)), [(0, 1)])
    assert [(one["exchange_wait"], one["wire"]) for one in unequal] == [(0.0, 0.5), (6.5, 0.5)]
    for one in (*slow_link, *unequal):
        assert one["weights"] + one["exchange_wait"] + one["wire"] == one["wall"]


def test_a_stage_that_waits_for_another_does_not_wait_for_the_wire() -> None:
    stages = bill_the_link(bill((5.0, 5.0, 0.0), (5.0, 5.0, 0.0)), [(0,), (1,)])
    assert [(one["exchange_wait"], one["wire"]) for one in stages] == [(5, 0), (5, 0)]
    linked = bill_the_link(bill((5.0, 7.0, 0.0), (5.0, 7.0, 0.0)), [(0,), (1,)])
    assert [(one["exchange_wait"], one["wire"]) for one in linked] == [(5, 2), (5, 2)]
    overlapping = bill_the_link(bill((9.0, 1.0, 0.0), (8.0, 2.0, 0.0)), [(0,), (1,)])
    assert [one["wire"] for one in overlapping] == [0, 0]


def test_one_node_has_no_wire() -> None:
    (one,) = bill_the_link(bill((5.0, 0.0, 0.0)), [(0,)])
    assert one["wire"] == one["exchange_wait"] == 0
