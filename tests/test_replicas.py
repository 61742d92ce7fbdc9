"""Groups that each hold the whole model: one answers for another that loses a node, and no byte
tells."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.cluster.group_choice import GroupLoad, Prefixes, choose_group, pages_of
from bandweave.cluster.groups import group_options
from bandweave.cluster.replicas import Replicas
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import node_needs
from bandweave.executors.executor import PAGE_SIZE, StepError
from bandweave.generation.request import Request
from bandweave.nodes.local_launcher import LocalLauncher
from bandweave.planning.profile.profile import Profile, link_name
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.serving.replica_count import settle_replicas
from bandweave.serving.texts import open_tokenizer
from tests.helpers.lasting import (
    GREEDY,
    Ask,
    Streams,
    asks,
    harm,
    learn,
    pids,
    prompt,
    undisturbed,
    wait_until,
)
from tests.helpers.profiles import make_link, make_machine

RUN = RunOptions(context=512, streams=3)
FOUR = EngineOptions(shares=(Fraction(1),) * 4, threads=1, run=RUN, replicas=2)
DEMO = str(demo_folder())


@contextmanager
def replicas(
    folder: Folder, options: EngineOptions
) -> Iterator[tuple[Replicas, list[LocalLauncher]]]:
    launchers: list[LocalLauncher] = []

    def make(group: EngineOptions) -> LocalLauncher:
        launchers.append(LocalLauncher(spare=group.spare))
        return launchers[-1]

    with Replicas.start(folder, options, make=make) as one:
        learn(one, open_tokenizer(folder), folder.spec.vocab_size)
        yield one, launchers


def moved(engine: Replicas) -> list[int]:
    """Streams of each move from one group to another."""
    return [one.streams for one in engine.recoveries() if one.kind == "moved"]


def whole(engine: Replicas) -> bool:
    return all(group.serves and len(group.nodes) == 2 for group in engine.groups)


def test_a_group_dies_and_another_goes_on_at_once() -> None:
    expected = undisturbed(DEMO, replace(FOUR, replicas=1))
    with Folder.open(DEMO) as folder, replicas(folder, FOUR) as (engine, launchers):
        assert [len(group.nodes) for group in engine.groups] == [2, 2]
        for node in (0, 1):
            streams = Streams(engine, asks())
            streams.wait_for(150)
            assert all(one["streams"] for one in engine.group_states())
            busy = [one["streams"] for one in engine.group_states()]
            dies, before = busy.index(max(busy)), sum(moved(engine))
            killed = harm(launchers[dies], node)
            assert streams.hearts() == expected
            assert streams.next_after(killed) < 5
            assert sum(moved(engine)) > before
            assert wait_until(lambda one=engine.groups[dies]: one.recoveries()[-1].kind == "joined")
            assert wait_until(lambda: whole(engine))
        assert all(one.over for one in engine.recoveries())
        assert all(one.node.startswith("group ") for one in engine.recoveries())
        assert wait_until(lambda: all(one.state == "serving" for one in engine.health().nodes))
        state = engine.state()
        assert (state.running, state.waiting) == (0, 0) and state.ended > 0
        assert engine.outage is None


def test_all_groups_fail_in_turn_while_none_is_whole() -> None:
    """Then whoever is back first has everything to do."""
    expected = undisturbed(DEMO, replace(FOUR, replicas=1))
    options = replace(FOUR, shares=(Fraction(1),) * 2)
    with Folder.open(DEMO) as folder, replicas(folder, options) as (engine, launchers):
        streams = Streams(engine, asks())
        streams.wait_for(120)
        harm(launchers[0], 0)
        harm(launchers[1], 0)
        assert streams.hearts() == expected
        assert wait_until(lambda: all(group.serves for group in engine.groups))
        assert Streams(engine, asks()).hearts() == expected


def test_a_conversation_returns_to_where_it_was_read() -> None:
    shared = prompt(3, 5 * PAGE_SIZE)
    with Folder.open(DEMO) as folder, replicas(folder, FOUR) as (engine, _):
        histories: list[tuple[int, ...]] = []
        for seed in range(3):
            tokens = (*prompt(seed, 3), *shared)
            result = engine.generate([Request(tokens=tokens, params=GREEDY)])[0]
            histories.append((*tokens, *result.tokens, 7, 8))
        for tokens in histories:
            again = engine.generate([Request(tokens=tokens, params=GREEDY)])[0]
            assert again.timing.reused_tokens >= 5 * PAGE_SIZE


def test_requests_of_one_call_are_shared_out() -> None:
    asked = [Request(tokens=prompt(seed, 40), params=GREEDY) for seed in range(6)]
    with Folder.open(DEMO) as folder, replicas(folder, FOUR) as (engine, _):
        expected = [engine.groups[0].generate([one])[0].tokens for one in asked]
        before = [group.state().ended for group in engine.groups]
        found = engine.generate(asked)
        assert [one.tokens for one in found] == expected
        ended = [
            group.state().ended - old for group, old in zip(engine.groups, before, strict=True)
        ]
        assert sum(ended) == 6 and min(ended) >= 2
        with pytest.raises(ValueError, match="vocabulary"):
            engine.generate([*asked[:2], Request(tokens=(10**6,), params=GREEDY)])
        endless = replace(asked[0], params=replace(GREEDY, max_tokens=None))
        streams = Streams(engine, [Ask([endless, replace(endless, tokens=prompt(9, 20))])])
        streams.wait_for(20)
        engine.cancel()
        assert [one.reason for one in streams.told[0].results.values()] or streams.hearts()
        assert all(one[1] == "cancelled" for one in streams.hearts()[0])


def test_whoever_is_closed_leaves_nobody_waiting() -> None:
    with Folder.open(DEMO) as folder, replicas(folder, FOUR) as (engine, launchers):
        streams = Streams(engine, asks())
        streams.wait_for(50)
        running = [pid for launcher in launchers for pid in pids(launcher).values()]
    assert all(one.over.wait(5) for one in streams.told)
    assert any(isinstance(one.failure, StepError) for one in streams.told)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in running)
    with pytest.raises(StepError, match="closed"):
        Streams(engine, asks())


def test_one_group_that_cannot_start_ends_all() -> None:
    launchers: list[LocalLauncher] = []

    def make(group: EngineOptions) -> LocalLauncher:
        fails = LocalLauncher(python="/nowhere/python")
        launchers.append(fails if launchers else LocalLauncher())
        return launchers[-1]

    with Folder.open(DEMO) as folder, pytest.raises(OSError):
        Replicas.start(folder, FOUR, make=make)
    assert not any(pids(one) for one in launchers)


# --- rules ---


def loads(*each: Sequence[int]) -> list[GroupLoad]:
    return [
        GroupLoad(serves=bool(serves), unread=unread, streams=streams, cached=cached)
        for serves, unread, streams, cached in each
    ]


@pytest.mark.parametrize(
    ("groups", "prompt_tokens", "order"),
    [
        (loads((1, 0, 0, 0), (1, 0, 0, 0)), 100, [0, 1]),
        (loads((1, 0, 2, 0), (1, 0, 1, 0)), 100, [1, 0]),
        (loads((1, 0, 2, 0), (1, 0, 1, 0), (1, 0, 0, 0)), 100, [2, 1, 0]),
        (loads((1, 0, 4, 4096), (1, 0, 0, 0)), 5000, [0, 1]),  # much is read already
        (loads((1, 6000, 4, 4096), (1, 0, 0, 0)), 5000, [1, 0]),  # but it would wait
        (loads((0, 0, 0, 4096), (1, 9000, 50, 0)), 5000, [1, 0]),
        (loads((0, 0, 0, 0), (0, 0, 0, 64)), 100, [1, 0]),
    ],
)
def test_the_group_where_a_prompt_is_read_the_soonest(
    groups: list[GroupLoad], prompt_tokens: int, order: list[int]
) -> None:
    assert choose_group(groups, prompt_tokens) == order


def test_what_a_group_has_read_is_known_by_pages_and_salts() -> None:
    tokens = prompt(1, 4 * PAGE_SIZE + 5)
    pages = pages_of(tokens, "")
    assert len(pages) == 4 and pages_of(tokens[: 3 * PAGE_SIZE - 1], "") == pages[:2]
    assert not set(pages) & set(pages_of(tokens, "a")) and pages_of((), "a") == []
    other = pages_of((0, *tokens[1:]), "")
    assert not set(pages) & set(other)
    known = Prefixes(6)
    known.note(pages)
    assert known.cached(pages) == 4 * PAGE_SIZE and known.cached(other) == 0
    known.note(other)  # two pages have to go: the ends of what was noted first
    assert known.cached(pages) == 2 * PAGE_SIZE and known.cached(other) == 4 * PAGE_SIZE
    known.clear()
    assert known.cached(other) == 0


def test_nodes_are_divided_into_neighbours() -> None:
    hosts = tuple(f"h{n}:1" for n in range(5))
    options = EngineOptions(
        shares=tuple(map(Fraction, (1, 2, 3, 4, 5))), hosts=hosts, secret=b"x" * 32, replicas=2,
        spare=3, spare_hosts=("s0:1", "s1:1", "s2:1"),
    )  # fmt: skip
    first, second = group_options(options)
    assert first.hosts == hosts[:3] and second.hosts == hosts[3:]
    assert [list(map(int, one.shares)) for one in (first, second)] == [[1, 2, 3], [4, 5]]
    assert (first.spare_hosts, second.spare_hosts) == (("s0:1", "s2:1"), ("s1:1",))
    assert (first.spare, second.spare, first.replicas, second.all_nodes) == (2, 1, 1, 0)
    here = [(one.first_node, one.all_nodes, len(one.shares)) for one in group_options(FOUR)]
    assert here == [(0, 4, 2), (2, 4, 2)]
    with pytest.raises(ValueError, match="leave 2 for one"):
        group_options(replace(options, stages=3))
    with pytest.raises(ValueError, match="6 copies of the model on 5 nodes"):
        replace(options, replicas=6)


def test_as_many_groups_as_pay_and_fit() -> None:
    hosts = tuple(f"10.0.0.{n}:7000" for n in range(4))
    links = {
        link_name(a, b): make_link(latency=2e-3) for a in hosts for b in hosts if a < b
    }  # fmt: skip
    run = RunOptions(context=512, streams=8, weight_format="q4")
    options = EngineOptions(
        shares=(Fraction(1),) * 4, hosts=hosts, secret=b"x" * 32, run=run, replicas=0
    )
    said: list[str] = []
    with Folder.open(DEMO) as folder:

        def most(count: int) -> int:
            """Bytes of the fullest node of so many."""
            split = make_split(folder.spec, (Fraction(1),) * count)
            each = replace(options, shares=options.shares[:count], hosts=hosts[:count])
            return max(one.total_bytes for one in node_needs(folder, split, each, 512))

        def chosen(memory: float, **more: object) -> int:
            machine = replace(make_machine(), memory_bytes=int(memory / 0.9))
            profile = Profile(machines=dict.fromkeys(hosts, machine), links=links)
            return settle_replicas(folder, replace(options, **more), said.append, profile).replicas

        assert chosen(2 * most(1)) == 4  # a link that slow is worth no step
        assert said[-1].startswith("4 copies of the model: the machines' profiles promise ")
        assert most(1) > most(2) > most(4)
        assert chosen((most(1) + most(2)) / 2) == 2
        assert chosen((most(2) + most(4)) / 2) == 1
        assert chosen(2 * most(1), replicas=3) == 3  # the user chose
        assert len(said) == 2
        assert settle_replicas(folder, options, said.append, Profile()).replicas == 1
        assert "bandweave probe" in said[-1]
