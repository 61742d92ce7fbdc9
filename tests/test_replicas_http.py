"""A server with groups of nodes, spare ones and weights on standby: its clients get their bytes,
and it tells of all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.command import bandweave, start_command
from tests.test_failover_http import CASES, Client, status, tool_user
from tests.test_serve_cli import Started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    model = tool_user(tmp_path_factory.mktemp("model") / "demo")
    with start_command(
        "serve", model, "--nodes", "4", "--replicas", "2", "--spare", "2", "--threads", "1",
        "--standby-weights", "memory", "--listen", "127.0.0.1:0", "--json",
    ) as command:  # fmt: skip
        started = Started(command)
        yield started
        command.process.send_signal(signal.SIGINT)
        outcome = command.finish()
        assert "Traceback" not in outcome.err and command.none_left()
        assert "standby weights: " in outcome.err and "group 0: node" in outcome.err


def until(server: Started, condition: Any) -> dict[str, Any]:
    deadline = time.monotonic() + 40
    while not condition(told := status(server)):
        assert time.monotonic() < deadline, told
        time.sleep(0.1)
    return told


def settled(told: dict[str, Any]) -> bool:
    states = [one["state"] for one in told["members"]]
    there = states.count("serving") == 4 and states.count("spare") == 2 and len(states) == 6
    ready = told["standby"]["over"] and all(one["serves"] for one in told["groups"])
    return there and ready and all(one["over"] for one in told["recoveries"])


def test_clients_get_their_bytes_and_the_status_tells_why(server: Started) -> None:
    undisturbed = [client.text for client in [Client(server.port, *case) for case in CASES]]
    told = until(server, settled)
    assert [len(group["nodes"]) for group in told["groups"]] == [2, 2]
    assert told["standby"]["where"] == "memory" and sum(told["standby"]["num_bytes"]) > 0
    assert told["standby"]["reasons"] == []
    clients = [Client(server.port, *case) for case in CASES]
    while sum(len(client.events) for client in clients) < 60:
        time.sleep(0.01)
    told = status(server)
    assert all(group["streams"] for group in told["groups"])
    name = told["groups"][0]["nodes"][1]
    os.kill(int(name.partition("pid ")[2].rstrip(")")), signal.SIGKILL)
    assert [client.text for client in clients] == undisturbed
    told = until(server, lambda told: told["recoveries_total"] and settled(told))
    kinds = [one["kind"] for one in told["recoveries"]]
    assert kinds.count("moved") == 1 and kinds.count("failed") == 1
    moved = told["recoveries"][kinds.index("moved")]
    assert moved["streams"] > 0 and moved["seconds"]["total"] < 5
    failed = told["recoveries"][kinds.index("failed")]
    assert failed["node"].startswith("group 0, node 1")
    assert (failed["nodes_before"], failed["nodes_after"]) == (2, 2)  # by the spare one
    metrics = server.ask("GET", "/metrics")[1].decode()
    assert 'bandweave_group_serves{group="1"} 1.0' in metrics
    assert 'bandweave_nodes{state="spare"} 2.0' in metrics
    assert "bandweave_standby_bytes " in metrics


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--replicas", "3", "--nodes", "2"), "3 copies of the model on 2 nodes"),
        (("--replicas", "many"), "--replicas is 'many'; it must be auto, or from 1"),
        (("--replicas", "2", "--nodes", "4", "--stages", "3"), "leave 2 for one"),
        (("--standby-weights", "disk", "--no-cache"), "leave out --no-cache"),
    ],
)
def test_what_makes_no_sense_is_said(options: tuple[str, ...], sentence: str) -> None:
    result = bandweave("serve", "demo", "--listen", "127.0.0.1:0", *options)
    assert result.status == 2 and sentence in result.err, result.err
