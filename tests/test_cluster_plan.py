"""Which machines of a cluster hold a model, in how many groups, and who is held ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs
from bandweave.membership.allotment import Allotment
from bandweave.membership.launcher import LeftOut
from bandweave.membership.messages import Machine
from bandweave.planning.profile.profile import Profile, link_name
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.serving.cluster_plan import ClusterPlanner
from bandweave.serving.cluster_problem import ClusterProblem
from bandweave.serving.group_planner import PlannedGroup
from bandweave.serving.machine_groups import held_ready, machine_groups
from bandweave.serving.replanning import Replanner
from bandweave.serving.wish import Wish
from tests.helpers.connections import SECRET
from tests.helpers.profiles import make_link, make_machine

_RUN = RunOptions(context=512, streams=8, weight_format="q4")
_OPTIONS = EngineOptions(run=_RUN, secret=SECRET)
_ROOM = 1 << 30  # more than enough


def machine(number: int, room: int = _ROOM, host_id: str = "") -> Machine:
    return Machine(
        worker=f"worker-{number:04}", host=f"host{number}", host_id=host_id,
        addresses=(f"10.0.0.{number}:7101",), processor="made up", cpus=2, threads=0,
        memory_bytes=room, total_bytes=room, version="1",
    )  # fmt: skip


def profile(
    machines: Sequence[Machine], speeds: Sequence[float], latencies: Mapping[int, float] | float
) -> Profile:
    """``latencies``: of all links, or of those that a machine has."""
    names = [one.addresses[0] for one in machines]

    def latency(a: int, b: int) -> float:
        if not isinstance(latencies, Mapping):
            return latencies
        return max(latencies.get(a, 1e-6), latencies.get(b, 1e-6))

    return Profile(
        machines={
            name: make_machine(bytes_per_s=speed, processor=f"of speed {speed}")
            for name, speed in zip(names, speeds, strict=True)
        },
        links={
            link_name(names[a], names[b]): make_link(latency=latency(a, b))
            for b in range(len(names)) for a in range(b)
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Iterator[Folder]:
    with Folder.open(str(demo_folder())) as opened:
        yield opened


def plan(
    folder: Folder, some: Sequence[Machine], known: Profile | None = None, **wish: object
) -> list[PlannedGroup] | None:
    wanted = Wish(**wish)  # type: ignore[arg-type]
    return ClusterPlanner(problem(folder, some, known or Profile(), wanted)).plan()


def problem(folder: Folder, some: Sequence[Machine], known: Profile, wish: Wish) -> ClusterProblem:
    return ClusterProblem(
        folder=folder, options=_OPTIONS, context=512, wish=wish, machines=some,
        names=[one.addresses[0] for one in some], profile=known,
    )  # fmt: skip


def most_bytes(folder: Folder, count: int) -> int:
    """Of the fullest of so many nodes."""
    shares = (Fraction(1),) * count
    asked = replace(_OPTIONS, shares=shares)
    needs = node_needs(folder, make_split(folder.spec, shares), asked, 512)
    return max(one.total_bytes for one in needs)


# --- groups ---


def test_machines_are_divided_alike_by_speed_by_memory_or_as_they_came() -> None:
    speeds, rooms = [4.0, 3.0, 2.0, 1.0], [1, 1, 5, 5]
    found = machine_groups(range(4), speeds, rooms, 2)
    assert found == [((0, 3), (1, 2)), ((0, 2), (1, 3)), ((0, 1), (2, 3))]
    assert machine_groups(range(4), None, rooms, 2) == found[1:]
    assert machine_groups([1, 3], speeds, rooms, 1) == [((1, 3),)]
    assert machine_groups(range(3), speeds, rooms, 4) == []
    # The fastest alone would be as fast as the others together, but every group has two stages.
    assert machine_groups(range(4), [9.0, 1.0, 1.0, 1.0], [1] * 4, 2, 2) == [
        ((0, 2), (1, 3)), ((0, 1), (2, 3)),
    ]  # fmt: skip
    for count in range(1, 6):
        for groups in machine_groups(range(5), [1.0] * 5, [1] * 5, count):
            assert sorted(one for group in groups for one in group) == list(range(5))


def test_the_slowest_the_smallest_or_the_last_are_held_ready() -> None:
    assert held_ready([3.0, 1.0, 2.0], [1, 9, 9], 1) == [(1,), (0,), (2,)]
    assert held_ready(None, [5, 5, 5], 1) == [(2,)]
    assert held_ready([1.0, 1.0, 1.0], [5, 5, 5], 2) == [(1, 2)]
    assert held_ready(None, [1], 0) == [()] and held_ready(None, [1], 1) == []


def test_two_copies_and_one_that_is_held_ready(folder: Folder) -> None:
    machines = [machine(number) for number in range(5)]
    groups = plan(folder, machines, replicas=2, spare=1)
    assert groups is not None and len(groups) == 2
    held = [one for group in groups for one in (*group.machines, *group.spare)]
    assert sorted(held) == list(range(5)) and [one.spare for one in groups] == [(4,), ()]
    assert [len(one.machines) for one in groups] == [2, 2]
    # One that is slow is held ready in the place of one that is quick.
    known = profile(machines, [1e9, 1e9, 1e7, 1e9, 1e9], 1e-6)
    groups = plan(folder, machines, known, replicas=2, spare=1)
    assert groups is not None and groups[0].spare == (2,)
    assert all("tokens/s predicted" in one.why[0] for one in groups)


def test_memory_decides_how_machines_are_divided(folder: Folder) -> None:
    whole, half = most_bytes(folder, 1), most_bytes(folder, 2)
    rooms = [whole, half, half, whole // 10]
    machines = [machine(number, int(1.1 * room)) for number, room in enumerate(rooms)]
    groups = plan(folder, machines[:3], replicas=2)
    assert groups is not None and [one.machines for one in groups] == [(0,), (1, 2)]
    assert plan(folder, machines[1:], replicas=2) is None
    # Workers of one host have its memory once.
    same = [machine(number, int(1.9 * whole), "one host") for number in range(2)]
    assert plan(folder, same, replicas=2) is None
    assert plan(folder, same) is not None


def test_who_is_left_out_is_held_ready_first(folder: Folder) -> None:
    machines = [machine(number) for number in range(3)]
    known = profile(machines, [1e9, 1e9, 1e9], {2: 0.5})
    (group,) = plan(folder, machines, known) or []
    assert group.machines == (0, 1) and group.left_out == (2,)
    assert group.reason.startswith("with all machines it would be ")
    (group,) = plan(folder, machines, known, spare=1) or []
    assert (group.machines, group.spare, group.left_out, group.reason) == ((0, 1), (2,), (), "")
    (group,) = plan(folder, machines, known, machines=3) or []
    assert len(group.machines) == 3 and not group.left_out


def test_shares_that_were_given_are_dealt_out_in_order(folder: Folder) -> None:
    machines = [machine(number) for number in range(5)]
    shares = tuple(map(Fraction, (1, 2, 3, 4)))
    groups = plan(folder, machines, machines=4, shares=shares, replicas=2, spare=1)
    assert groups is not None
    assert [(one.machines, tuple(map(int, one.shares)), one.spare) for one in groups] == [
        ((0, 1), (1, 2), (4,)), ((2, 3), (3, 4), ()),
    ]  # fmt: skip


def test_as_many_copies_as_pay(folder: Folder) -> None:
    machines = [machine(number) for number in range(4)]
    said: list[str] = []

    def copies(known: Profile, **wish: object) -> int:
        wanted = Wish(replicas=0, **wish)  # type: ignore[arg-type]
        groups = ClusterPlanner(problem(folder, machines, known, wanted), said.append).plan()
        assert groups is not None
        return len(groups)

    slow_links = profile(machines, [20e9] * 4, 2e-3)
    assert copies(slow_links) == 4 and "4 copies of the model" in said[-1]
    assert copies(slow_links, spare=1) == 3
    assert copies(slow_links, machines=4, stages=2) == 2
    assert copies(Profile()) == 1 and "bandweave probe" in said[-1]


def test_wishes_that_no_machine_could_grant() -> None:
    with pytest.raises(
        ValueError, match="^3 copies of the model need 3 machines at least, and .*2;"
    ):
        Wish(machines=2, replicas=3)
    with pytest.raises(ValueError, match="^1 copy of the model in 3 stages needs 3 machines"):
        Wish(machines=2, stages=3)
    wish = Wish(replicas=2, stages=2, spare=1)
    assert (wish.least_machines, wish.all_machines) == (5, None)
    assert Wish(machines=3, spare=1).all_machines == 4


# --- afterwards ---


def test_each_machine_belongs_to_one_group() -> None:
    members = [machine(number) for number in range(5)]
    allotment = Allotment([members[:3], members[3:]])
    assert [allotment.group_of(one, members) for one in members] == [0, 0, 0, 1, 1]
    left = [members[0], members[3], members[4]]
    fresh = machine(7)  # two are missing there
    assert allotment.group_of(fresh, [*left, fresh]) == 0
    back = replace(members[1], worker="another-name")
    assert allotment.group_of(back, [*left, back]) == 0
    lost = [members[0], members[1], members[2]]
    assert allotment.group_of(machine(8), [*lost, machine(8)]) == 1
    # A machine is known again even where the other group misses more.
    again = replace(members[2], worker="a-third-name")
    assert allotment.group_of(again, [members[0], again]) == 0


def test_one_that_was_left_out_is_known_again_unless_it_has_changed() -> None:
    one = LeftOut(machine=machine(1), reason="slow")
    assert one.is_of(machine(1)) and one.is_of(replace(machine(1), worker="another-name"))
    assert not one.is_of(replace(machine(1), worker="another-name", cpus=64))
    assert not one.is_of(machine(2))


def test_stages_are_planned_anew_where_that_is_much_better(folder: Folder) -> None:
    machines = [machine(number) for number in range(3)]
    names = tuple(one.addresses[0] for one in machines)
    known = profile(machines, [1e9] * 3, {2: 0.5})
    planner = Replanner(problem(folder, machines, known, Wish()))

    def chosen(*hosts: str, stages: int = 1) -> EngineOptions:
        count = len(hosts)
        return planner.choose(
            replace(_OPTIONS, hosts=hosts, shares=(Fraction(1),) * count, stages=stages)
        )

    near = chosen(*names[:2])
    assert near.stages == 1 and "tokens/s predicted" in planner.why(near)[0]
    far = chosen(*names[1:])  # half a second for every exchange
    assert far.stages == 2 and "2 stages" in planner.why(far)[0]
    assert chosen(*names[:2], stages=2).stages == 1  # and back
    # Of those that nobody measured it says nothing.
    asked = replace(_OPTIONS, hosts=("10.9.9.9:1", names[0]), shares=(Fraction(1),) * 2)
    assert planner.choose(asked) is asked and "those of the start" in planner.why(asked)[0]
    # What the user has settled stays.
    settled = Replanner(problem(folder, machines, known, Wish(stages=2)))
    asked = replace(_OPTIONS, hosts=names[:2], shares=(Fraction(1),) * 2, stages=2)
    assert settled.choose(asked).stages == 2
