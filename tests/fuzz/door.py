"""Attacks on the door of a cluster's head: by strangers, and by members who say odd things.

``python -m tests.fuzz.door --inputs N --seed S`` makes N of them against one door of this process,
half without a proof and half after one, and prints what became of them. An honest worker and an
honest controller are there all the time. A door that ends, loses them, tells something that is no
sentence, believes what nobody may say, keeps somebody waiting, or grows, fails the run.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from bandweave.handshake.connection import Secured
from bandweave.handshake.encryption import ALWAYS, NEVER
from bandweave.handshake.handshake import HandshakeError, connect
from bandweave.handshake.hello import NO_NODE, Hello
from bandweave.membership.attendance import ask_status, attend
from bandweave.membership.caller import Caller
from bandweave.membership.door import Door
from bandweave.membership.messages import (
    MOST_MEMBERS,
    Announcement,
    AskStatus,
    Attend,
    Beat,
    Farewell,
    Machine,
    Report,
)
from bandweave.mesh.address import Address
from bandweave.mesh.channel import Channel, ChannelError
from bandweave.mesh.sealing import Sealer
from bandweave.messages import encode
from tests.fuzz import handshake
from tests.fuzz.command import command
from tests.fuzz.handshake import settled
from tests.fuzz.mutations import text_of
from tests.helpers.connections import SECRET, framed, wait_until

_LOOK_EVERY = 250
_SECONDS = 10.0  # for what an honest one asks; no bound but that it does not hang
_PIECES = 12  # messages of one visitor, at most
_GROWTH_BYTES = 32 << 20


def machine(worker: str = "w" * 32, **more: Any) -> Machine:
    return Machine(
        **{
            "worker": worker, "host": "studio", "host_id": "h" * 32,
            "addresses": ("10.0.0.2:7101", "[fe80::1%eth0]:7101"), "processor": "M3", "cpus": 12,
            "threads": 0, "memory_bytes": 1 << 36, "total_bytes": 1 << 37, "version": "0.1.0",
            **more,
        }
    )  # fmt: skip


class Attack(handshake.Attack):
    """Strangers and members."""

    def __init__(self, address: Address, seed: int) -> None:
        super().__init__(address, seed)
        self._workers = 0

    def member(self) -> str:
        """Somebody who knows the secret, and says messages of which some are odd."""
        own = Hello(purpose="cluster", node=NO_NODE, session="")
        encryption = self.random.choice((ALWAYS, NEVER))
        made = connect(
            self.address, SECRET, own, name="the door", timeout=_SECONDS, encryption=encryption
        )
        with contextlib.closing(made.socket):
            return self._say(made)

    def _say(self, made: Secured) -> str:
        count = self.random.randrange(1, _PIECES)
        messages = [self._message(first=number == 0) for number in range(count)]
        frames = [framed(text_of(message)) for message in messages]
        if self.random.random() < 0.2:
            at = self.random.randrange(len(frames))
            frames[at] = self.mutator.bytes(frames[at], self.random.randrange(1, 4))
        sealer = None if made.keys is None else Sealer(made.keys.send)
        made.socket.settimeout(_SECONDS)
        for data in frames:
            made.socket.sendall(data if sealer is None else sealer.seal(data))
        if self.random.random() < 0.3:
            return "said and gone"
        return self._answer(made)

    def _message(self, *, first: bool) -> Any:
        """One that may be said at its place, mostly; some of them with something odd in it."""
        self._workers += 1
        introductions = (
            Announcement(machine=machine(f"worker-{self._workers:08d}")),
            Announcement(machine=machine(self.random.choice(("w" * 32, "v" * 32)))),
            Attend(name="a controller", pid=1),
            AskStatus(),
        )
        report = Report(text='{"model": "m"}' * self.random.choice((1, 1, 1, 50_000)))
        later = (AskStatus(), Beat(), report, report, Farewell())
        wanted = introductions if first != (self.random.random() < 0.05) else later
        known = encode(self.random.choice(wanted))
        return self.mutator.json(known, self.random.choice((0, 0, 0, 0, 0, 0, 1, 2)))

    def _answer(self, made: Secured) -> str:
        channel = Channel(made.socket, "the door", keys=made.keys, max_message_bytes=1 << 25)
        try:
            return str(channel.receive(0.02).get("type"))
        except TimeoutError:
            return "heard"
        except ChannelError:
            return "ended"


def run(inputs: int, seed: int) -> dict[str, Any]:
    """What became of the inputs, and how this process grew. ``AssertionError`` where the door did
    not hold."""
    began, said = time.monotonic(), list[str]()
    with honest(said) as (door, look), contextlib.closing(Attack(door.address, seed)) as attack:
        _attack(attack, min(inputs // 5, 500), look)  # until what it keeps has been made
        attack.close()
        before = settled(os.getpid())
        _attack(attack, inputs, look)
        attack.close()
        assert wait_until(lambda: len(door.machines) == 1, 15), door.machines
        after = settled(os.getpid())
    assert not any("no answer" in key for key in attack.outcomes), attack.outcomes
    assert after["descriptors"] <= before["descriptors"], (before, after)
    assert after["threads"] <= before["threads"], (before, after)
    assert after["bytes"] - before["bytes"] < _GROWTH_BYTES, (before, after)
    odd = [line for line in said if not line.isprintable() or len(line) > 1000]
    assert not odd, odd[:3]
    return {
        "inputs": inputs,
        "outcomes": dict(sorted(attack.outcomes.items())),
        "before": before,
        "after": after,
        "lines_of_log": len(said),
        "seconds": round(time.monotonic() - began, 1),
    }


def _attack(attack: Attack, inputs: int, look: Any) -> None:
    for number in range(inputs):
        if number % 2:
            attack.once()
        else:
            try:
                outcome = attack.member()
            except (ConnectionError, HandshakeError):
                outcome = "ended"
            attack.outcomes[f"member: {outcome}"] += 1
        if number % _LOOK_EVERY == 0:
            look()
    look()


@contextlib.contextmanager
def honest(said: list[str]) -> Iterator[tuple[Door, Any]]:
    """A door with an honest worker and an honest controller; what looks whether they are well."""
    own = machine("honest-worker-of-the-fuzzer", host="honest")
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(Door(("127.0.0.1", 0), SECRET, log=said.append))
        lost = threading.Event()
        caller = Caller(
            door.address, SECRET, first=lambda: Announcement(machine=own),
            change=lambda trouble, lasting: lost.set() if trouble else None,
        )  # fmt: skip
        stack.callback(caller.close)
        caller.start()
        assert door.wait((), _SECONDS) == (own,)
        attendance = stack.enter_context(contextlib.closing(attend(door.where, SECRET, "honest")))
        attendance.tell(lambda: '{"model": "honest"}')

        def look() -> None:
            assert not lost.is_set(), "the honest worker was sent away"
            assert own in door.machines and len(door.machines) <= MOST_MEMBERS
            status = ask_status(door.where, SECRET, _SECONDS)
            assert own in [one.machine for one in status.members]
            assert "honest" in [one.name for one in status.controllers]
            assert wait_until(lambda: own in attendance.machines, _SECONDS)

        yield door, look


if __name__ == "__main__":
    command(run, __doc__)
