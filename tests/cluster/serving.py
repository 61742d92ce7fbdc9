"""What tests ask of a server on one of a cluster's machines, and of its head."""

from __future__ import annotations

import contextlib
import json
from http.client import HTTPConnection
from typing import Any

from tests.helpers.cluster_machines import Machine
from tests.helpers.networks import End

_PORT = 8080


def status(machine: Machine) -> dict[str, Any]:
    return json.loads(machine.run("status", "--json"))


def inside(machine: Machine, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """The status and the JSON of an answer from the server on that machine."""

    def ask() -> tuple[int, Any]:
        with contextlib.closing(HTTPConnection("127.0.0.1", _PORT, timeout=30)) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or "{}")

    end = End(name=machine.namespace, interface="", address="", link_local="")
    return end.inside(ask)


def answered(machine: Machine) -> str:
    """A chat's answer."""
    body = {"messages": [{"role": "user", "content": "What is 12 + 30?"}], "max_tokens": 24,
            "temperature": 0}  # fmt: skip
    status, found = inside(machine, "POST", "/v1/chat/completions", body)
    assert status == 200, found
    return found["choices"][0]["message"]["content"]


def ready(machine: Machine) -> bool:
    try:
        return inside(machine, "GET", "/health")[0] == 200
    except OSError:
        return False


def serving(found: dict[str, Any]) -> dict[str, Any] | None:
    models = found["models"]
    return found if models and models[0].get("nodes") else None
