"""What a door takes from those who know the secret: nothing that they say ends it, or anybody
else's stay."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bandweave.handshake.handshake import connect
from bandweave.handshake.hello import NO_NODE, Hello
from bandweave.membership import door as doors
from bandweave.membership.attendance import ask_status
from bandweave.membership.door import Door
from bandweave.membership.messages import (
    MOST_REPORT_BYTES,
    Announcement,
    Attend,
    Machine,
    Report,
    Roster,
)
from bandweave.mesh.channel import Channel, ChannelClosed
from bandweave.messages import encode
from tests.fuzz.door import machine
from tests.helpers.connections import SECRET, wait_until


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def door(said: list[str]) -> Iterator[Door]:
    with Door(("127.0.0.1", 0), SECRET, log=said.append) as opened:
        yield opened


@contextlib.contextmanager
def visit(door: Door, *messages: Any) -> Iterator[Channel]:
    """Somebody who knows the secret and says this."""
    own = Hello(purpose="cluster", node=NO_NODE, session="")
    channel = connect(door.address, SECRET, own, name="the door").channel("the door")
    with contextlib.closing(channel):
        for message in messages:
            channel.send(message if isinstance(message, dict) else encode(message))
        yield channel


def ended(door: Door, *messages: Any) -> None:
    """Whoever says this is sent away, whatever he is told before."""
    with visit(door, *messages) as channel, pytest.raises(ChannelClosed):
        while True:
            channel.receive(10)


def workers(door: Door) -> list[str]:
    return [one.worker for one in door.machines]


def test_a_worker_says_once_what_it_is(door: Door, said: list[str]) -> None:
    first, other = machine("first-worker"), machine("other-worker")
    with visit(door, Announcement(machine=first)):
        assert door.wait((), 10) == (first,)
        with visit(door, Announcement(machine=other), Announcement(machine=first)):
            assert wait_until(lambda: any("said already what it is" in line for line in said), 10)
        ended(door, Attend(name="x", pid=1), Announcement(machine=other))
        assert wait_until(lambda: workers(door) == ["first-worker"], 10)


def test_there_are_no_more_members_than_can_be_told_of(
    door: Door, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "MOST_MEMBERS", 2)
    with contextlib.ExitStack() as stack:
        for number in range(2):
            name = Announcement(machine=machine(f"worker-{number}"))
            stack.enter_context(visit(door, name))
            assert wait_until(lambda number=number: len(door.machines) == number + 1, 10)
        for number in range(2, 9):  # of which none is kept, though all are remembered for a while
            ended(door, Announcement(machine=machine(f"worker-{number}")))
        assert workers(door) == ["worker-0", "worker-1"]
        assert "is one too many: a cluster has 2 machines" in said[-1]
        stack.enter_context(visit(door, Announcement(machine=machine("worker-1"))))  # dials again
        assert wait_until(lambda: sum("has joined" in line for line in said) == 3, 10)
        assert workers(door) == ["worker-0", "worker-1"]


def test_workers_that_come_and_go_push_nobody_out_who_stays(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "MOST_MEMBERS", 3)
    stays = machine("worker-that-stays")
    with visit(door, Announcement(machine=stays)):
        assert door.wait((), 10) == (stays,)
        for number in range(12):
            with visit(door, Announcement(machine=machine(f"worker-{number}"))):
                assert wait_until(lambda: len(door.machines) == 2, 10)
            assert wait_until(lambda: door.machines == (stays,), 10)
        assert [one.machine for one in ask_status(door.where, SECRET).members] == [stays]


def test_reports_that_no_message_can_hold_are_left_out(door: Door) -> None:
    """Each fits into a message of its own, and two do not fit into one of the head's."""
    long = Report(text=json.dumps({"a": '"' * (MOST_REPORT_BYTES // 4 - 100)}))
    short = Report(text='{"model": "m"}')
    with contextlib.ExitStack() as stack:
        for name, report in (("short", short), ("long", long), ("long too", long)):
            stack.enter_context(visit(door, Attend(name=name, pid=1), report))

        def told() -> dict[str, str]:
            return {one.name: one.report for one in ask_status(door.where, SECRET).controllers}

        assert wait_until(lambda: told().get("short") == short.text, 20)
        assert told() == {"short": short.text, "long": "", "long too": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": ("10.0.0.1\x1b[2J:7000",)},
        {"addresses": (f"{'a' * 300}:7000",)},
        {"addresses": tuple(f"{'a' * 200}{number}:7000" for number in range(20))},
        {"host": "a\nb"},
        {"worker": "w" * 65},
        {"cpus": 0},
    ],
    ids=str,
)
def test_what_no_honest_worker_says_of_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="machine|worker"):
        machine(**change)


def test_a_name_that_would_move_the_cursor_is_none() -> None:
    with pytest.raises(ValueError, match="no name"):
        Attend(name="\x1b[2J", pid=1)


def test_a_roster_of_the_longest_machines_fits_into_a_message() -> None:
    text = "w" * 64
    one = Machine(**{**vars(machine(text)), "addresses": (f"{'a' * 250}:7000",) * 7})
    told = json.dumps(encode(Roster(machines=(one,) * doors.MOST_MEMBERS, seconds=1.0)))
    assert len(told) < MOST_REPORT_BYTES
