"""A model on machines that joined: who is left out, held ready or in which group, what becomes of
that when machines go and come, and that the status says so."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from bandweave.cli.status import status_json, status_lines
from bandweave.cluster.cluster import Cluster
from bandweave.engine.options import EngineOptions
from bandweave.membership.attendance import ask_status
from bandweave.membership.door import Door
from bandweave.planning.profile.profile import Profile, link_name
from bandweave.run_options import RunOptions
from bandweave.serving.cluster_report import Reporter
from bandweave.serving.gathering import Gathering
from bandweave.serving.session import Session, open_session
from bandweave.serving.wish import Wish
from tests.helpers.connections import SECRET
from tests.helpers.lasting import Streams, asks, undisturbed, wait_until
from tests.helpers.members import Member
from tests.helpers.profiles import make_link, make_machine
from tests.test_failover_hosts import DEMO, node_of

_OPTIONS = EngineOptions(run=RunOptions(context=512, streams=3))
_KINDS = asks(grammars=False, embeds=False)  # the planner may choose several stages


def expected() -> list[list[tuple[object, ...]]]:
    alone = EngineOptions(threads=1, run=_OPTIONS.run)
    return undisturbed(DEMO, alone, embeds=False)[: len(_KINDS)]


class _Cluster:
    """A head, its members by name, and what its status says."""

    def __init__(self, stack: ExitStack) -> None:
        self.door = stack.enter_context(Door(("127.0.0.1", 0), SECRET))
        self._stack, self.members = stack, dict[str, Member]()

    def join(self, name: str, listen: str = "127.0.0.1:0") -> None:
        known = self.door.machines
        self.members[name] = self._stack.enter_context(Member(self.door.where, listen))
        assert len(self.door.wait(known, 30.0)) == len(known) + 1

    def leave(self, name: str) -> None:
        known = self.door.machines
        member = self.members.pop(name)
        member.process.kill()
        member.process.wait()
        assert len(self.door.wait(known, 30.0)) == len(known) - 1

    def told(self) -> dict[str, Any]:
        found = status_json(self.door.where, ask_status(self.door.where, SECRET))
        return {**found, "ray": None}

    def text(self) -> str:
        lines = status_lines(self.told())
        assert max(map(len, lines)) <= 80
        return " ".join(" ".join(lines).split())

    def role(self, name: str) -> dict[str, Any]:
        address = self.members[name].address
        (model,) = self.told()["models"]
        workers = [m.worker for m in self.door.machines if m.addresses == (address,)]
        return next((one for one in model["machines"] if one["worker"] in workers), {})

    def becomes(self, name: str, role: str, **more: object) -> bool:
        return wait_until(lambda: self.role(name).items() >= {"role": role, **more}.items(), 60.0)


@contextlib.contextmanager
def serving(cluster: _Cluster, wish: Wish, options: EngineOptions = _OPTIONS) -> Iterator[Session]:
    gathering = Gathering(cluster.door, wish)
    said: list[str] = []
    with (
        open_session("demo", options, tell=said.append, gathering=gathering) as session,
        Reporter(gathering, session),
    ):
        yield session


def measured(monkeypatch: pytest.MonkeyPatch, found: Profile) -> None:
    """Instead of a look at machines that share two processors."""
    monkeypatch.setattr("bandweave.serving.gathering.measure_members", lambda *_: found)


@pytest.mark.timeout(240)
def test_one_that_is_left_out_stands_in_and_goes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        cluster = _Cluster(stack)
        # Machines of three hosts, as far as addresses tell.
        for number, name in enumerate(("anna", "bert", "carl"), 1):
            cluster.join(name, f"127.0.0.{number}:0")
        names = [cluster.members[name].address for name in ("anna", "bert", "carl")]
        speeds = (1e9, 1e9, 1e7)
        measured(
            monkeypatch,
            Profile(
                machines={
                    name: make_machine(bytes_per_s=speed, processor=f"of speed {speed}")
                    for name, speed in zip(names, speeds, strict=True)
                },
                links={
                    link_name(names[a], names[b]): make_link(latency=1e-6)
                    for b in range(3) for a in range(b)
                },
            ),
        )  # fmt: skip
        session = stack.enter_context(serving(cluster, Wish()))
        assert len(session.engine.nodes) == 2
        assert cluster.becomes("carl", "left out") and cluster.becomes("anna", "serving")
        assert "is left out: with all machines it would be" in cluster.text()
        (model,) = cluster.told()["models"]
        assert "left out" not in " ".join(model["why"]) and "predicted" in model["why"][0]

        # It leaves and joins again: it is the same machine.
        listen = cluster.members["carl"].address
        cluster.leave("carl")
        cluster.join("carl", listen)
        assert cluster.becomes("carl", "left out")

        # Nobody is missing for long where a worker starts another node.
        os.kill(node_of(cluster.members["bert"]), signal.SIGKILL)
        engine = session.engine
        assert isinstance(engine, Cluster)

        def whole() -> bool:
            found = {node.name.partition("(")[2].rstrip(")") for node in engine.nodes}
            return found == set(names[:2]) and engine.num_recoveries > 0 and engine.serves

        assert wait_until(whole) and cluster.becomes("carl", "left out")

        # Another one fails: it stands in, and the status does not say anything else.
        streams = Streams(session.engine, _KINDS)
        streams.wait_for(100)
        listen = cluster.members["bert"].address
        cluster.leave("bert")
        assert cluster.becomes("carl", "serving", stands_in=True)
        assert streams.hearts() == expected()
        text = cluster.text()
        assert "takes part while another machine is missing; it was left out at first" in text
        assert "is left out:" not in text
        assert len(session.engine.nodes) == 2
        assert wait_until(lambda: len(cluster.told()["models"][0]["nodes"]) == 2)

        # That one is back, and it goes.
        streams = Streams(session.engine, _KINDS)
        cluster.join("bert", listen)
        assert cluster.becomes("bert", "serving") and cluster.becomes("carl", "left out")
        assert streams.hearts() == expected()
        assert len(session.engine.nodes) == 2
        text = cluster.text()
        assert "is left out:" in text and "went, since nobody was missing any more" in text


@pytest.mark.timeout(240)
def test_two_copies_a_spare_machine_and_standby_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, Profile())
    with ExitStack() as stack:
        cluster = _Cluster(stack)
        for name in ("anna", "bert", "carl", "dora", "emil"):
            cluster.join(name)
        options = replace(_OPTIONS, standby="memory")
        session = stack.enter_context(serving(cluster, Wish(replicas=2, spare=1), options))
        engine = session.engine
        groups = getattr(engine, "groups", ())
        assert [len(group.nodes) for group in groups] == [2, 2]
        roles = {name: cluster.role(name) for name in cluster.members}
        assert sorted(one["group"] for one in roles.values()) == [0, 0, 0, 1, 1]
        (spare,) = [name for name, one in roles.items() if one["role"] != "serving"]
        assert roles[spare]["group"] == 0 and cluster.becomes(spare, "spare")
        assert wait_until(lambda: engine.standby is not None and engine.standby.over, 60.0)  # type: ignore[union-attr]
        assert wait_until(lambda: "ready for the loss of a node" in cluster.text())
        text = cluster.text()
        for wanted in ("Group 0 (node 0", "Group 1 (node 0", "group 1: 0 - 1", "is held ready, and",
                       "group 0: Equal shares"):  # fmt: skip
            assert wanted in text, text

        # A machine of the first group goes: its streams go on in the other one, and the spare
        # machine takes its place.
        streams = Streams(engine, _KINDS)
        streams.wait_for(100)
        lost = next(name for name, one in roles.items() if one["group"] == 0 and name != spare)
        cluster.leave(lost)
        assert cluster.becomes(spare, "serving", group=0)
        assert streams.hearts() == expected()
        assert [len(group.nodes) for group in groups] == [2, 2]

        # A newcomer is the spare one where one is missing.
        cluster.join("fritz")
        assert cluster.becomes("fritz", "spare", group=0)
        assert Streams(engine, _KINDS).hearts() == expected()
