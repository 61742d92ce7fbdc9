"""What the system says of processors, from made-up trees of its files; and who goes where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave import _native
from bandweave.host import control_groups, machine
from bandweave.host.binding import Binding, bind_node, spans_memories
from bandweave.host.control_groups import cpu_quota, memory_limits
from bandweave.host.machine import numa_nodes, usable_cpus

TWO_SOCKETS = (tuple(range(0, 8)), tuple(range(8, 16)))
TAKING_TURNS = (tuple(range(0, 16, 2)), tuple(range(1, 16, 2)))  # as some firmware numbers them
SIXTEEN = tuple(range(16))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# --- quotas ---


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/a/b\n", {"cpu.max": "max", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        ("0::/seen/from/outside\n", {"cpu.max": "400000 100000"}, 4),  # inside a container
        (
            "3:memory:/x\n2:cpu,cpuacct:/x\n",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "150000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "50000",
            },
            3,
        ),
        (
            "2:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("2:cpuset:/\n", {"cpu.max": "100000 100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_quota(own: str, files: dict[str, str], expected: float | None, tmp_path: Path) -> None:
    root = tree(tmp_path / "cgroup", files)
    root.mkdir(exist_ok=True)
    (tmp_path / "own").write_text(own)
    assert cpu_quota(root, tmp_path / "own") == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "1000", "memory.current": "400"}, [600]),
        (
            "0::/a/b\n",
            {"a/b/memory.max": "max", "a/b/memory.current": "1",
             "a/memory.max": "900", "a/memory.current": "950"},
            [0],
        ),
        (  # what fills the file cache is given back
            "0::/a/b\n",
            {"a/b/memory.max": "1000", "a/b/memory.current": "900",
             "a/b/memory.stat": "anon 300\nfile 550\ninactive_file 400\nactive_file 100\n"
                                "file_dirty 30\nfile_writeback 20\nslab_reclaimable 50\n",
             "a/memory.max": "2000", "a/memory.current": "1900",
             "a/memory.stat": "inactive_file 200\n"},
            [600, 300],
        ),
        (  # where processes are slowed down, they should not be already
            "0::/\n",
            {"memory.max": "1000", "memory.high": "800", "memory.current": "400",
             "memory.stat": "inactive_file 100\n"},
            [500],
        ),
        (
            "3:memory:/x\n",
            {"memory/x/memory.limit_in_bytes": "5000", "memory/x/memory.usage_in_bytes": "2000"},
            [3000],
        ),
        (  # v1 counts for a group alone, and in all below it
            "3:memory:/x\n",
            {"memory/x/memory.limit_in_bytes": "5000", "memory/x/memory.usage_in_bytes": "4000",
             "memory/x/memory.stat": "inactive_file 1\nactive_file 2\ntotal_inactive_file 2500\n"
                                     "total_active_file 500\ntotal_dirty 100\n"},
            [3900],
        ),
        (  # v1 and v2 side by side
            "3:memory:/x\n0::/x\n",
            {"memory/x/memory.limit_in_bytes": "5000", "memory/x/memory.usage_in_bytes": "2000",
             "unified/x/memory.max": "1000", "unified/x/memory.current": "300"},
            [3000, 700],
        ),
        ("0::/\n", {"memory.max": "max", "memory.current": "400"}, []),
        ("0::/\n", {"memory.max": "nonsense", "memory.current": "400"}, []),
        ("2:cpu:/\n", {"memory.max": "1000", "memory.current": "400"}, []),
    ],
)  # fmt: skip
def test_memory_of_a_container(
    own: str, files: dict[str, str], expected: list[int], tmp_path: Path
) -> None:
    root = tree(tmp_path / "cgroup", files)
    (tmp_path / "own").write_text(own)
    assert [limit.available for limit in memory_limits(root, tmp_path / "own")] == expected


def test_no_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path / "nothing") is None


@pytest.mark.parametrize(("quota", "count"), [("max", 4), ("250000", 2), ("90000", 1), ("9e9", 4)])
def test_threads_do_not_outnumber_a_quota(
    quota: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "allowed_cpus", lambda: (2, 3, 5, 7))
    monkeypatch.setattr(
        control_groups, "_CGROUPS", tree(tmp_path, {"cpu.max": f"{quota} 100000", "own": "0::/"})
    )
    monkeypatch.setattr(control_groups, "_OWN_CGROUPS", tmp_path / "own")
    assert usable_cpus() == (2, 3, 5, 7)[:count]


# --- memory nodes ---


def test_numa_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_cpus", lambda: (0, 1, 2, 4, 5, 9))
    root = tree(
        tmp_path,
        {
            "node0/cpulist": "0-3\n",
            "node1/cpulist": "4-7,9\n",
            "node2/cpulist": "\n",  # memory without processors
            "node10/cpulist": "12-15\n",  # none of them ours
            "possible": "0-10\n",
        },
    )
    assert numa_nodes(root) == ((0, 1, 2), (4, 5, 9))
    assert numa_nodes(tmp_path / "none") == ((0, 1, 2, 4, 5, 9),)


def test_numa_nodes_here() -> None:
    together = sorted(cpu for cpus in numa_nodes() for cpu in cpus)
    assert together == list(machine.allowed_cpus())


@pytest.mark.parametrize("numa", [TWO_SOCKETS, TAKING_TURNS])
def test_nodes_stay_in_one_memory(numa: tuple[tuple[int, ...], ...]) -> None:
    two = [bind_node(node, 2, 8, usable=SIXTEEN, allowed=SIXTEEN, numa=numa) for node in range(2)]
    assert two == [Binding(pinned=cpus, home=cpus) for cpus in numa]
    four = [bind_node(node, 4, 4, usable=SIXTEEN, allowed=SIXTEEN, numa=numa) for node in range(4)]
    assert [binding.home for binding in four] == [numa[0], numa[0], numa[1], numa[1]]
    assert not any(spans_memories(binding.pinned, numa) for binding in four)
    # Fewer threads than processors: not pinned, but at home.
    some = bind_node(1, 2, 3, usable=SIXTEEN, allowed=SIXTEEN, numa=numa)
    assert some == Binding(home=numa[1])
    alone = bind_node(0, 1, 16, usable=SIXTEEN, allowed=SIXTEEN, numa=numa)
    assert sorted(alone.pinned) == list(SIXTEEN) and spans_memories(alone.pinned, numa)
    assert alone.home == ()


def test_one_memory_binds_as_ever() -> None:
    numa = (SIXTEEN,)
    assert bind_node(1, 2, 8, usable=SIXTEEN, allowed=SIXTEEN, numa=numa).pinned == SIXTEEN[8:]
    assert bind_node(0, 2, 4, usable=SIXTEEN, allowed=SIXTEEN, numa=numa) == Binding()
    # A quota of four processors says nothing of which.
    assert bind_node(0, 1, 4, usable=SIXTEEN[:4], allowed=SIXTEEN, numa=numa) == Binding()


@given(
    nodes=st.integers(1, 9),
    threads=st.integers(1, 9),
    cut=st.integers(1, 15),
    missing=st.sets(st.integers(0, 15), max_size=10),
)
def test_bindings_never_overlap(nodes: int, threads: int, cut: int, missing: set[int]) -> None:
    allowed = tuple(cpu for cpu in SIXTEEN if cpu not in missing)
    halves = (tuple(c for c in allowed if c < cut), tuple(c for c in allowed if c >= cut))
    numa = tuple(half for half in halves if half)
    bindings = [
        bind_node(node, nodes, threads, usable=allowed, allowed=allowed, numa=numa)
        for node in range(nodes)
    ]
    pinned = [cpu for binding in bindings for cpu in binding.pinned]
    assert sorted(pinned) == (list(allowed) if nodes * threads == len(allowed) else [])
    for binding in bindings:
        assert not binding.home or threads <= len(binding.home)
        assert set(binding.pinned) <= set(binding.home or allowed)


def test_placing_leaves_panels_empty() -> None:
    size = _native.matrix_bytes("q8", 700, 96, 96)
    matrix = _native.Matrix(_native.Arena(size), "q8", 700, 96, 96)
    cpus = list(machine.allowed_cpus())
    _native.place([matrix], [*cpus, cpus[0]])
    assert not matrix.panels.any()
    other = _native.Matrix(_native.Arena(size), "q8", 700, 96, 96)
    weights = np.linspace(-1, 1, 700 * 96, dtype=np.float32).reshape(700, 96)
    for one in (matrix, other):
        one.clear()
        one.pack(0, weights)
    assert matrix.panels.tobytes() == other.panels.tobytes()
