"""A bound on a process's memory, and what the process starts meanwhile."""

from __future__ import annotations

import resource
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bandweave.nodes.spawn import NodeSettings, end_process, spawn
from bandweave.text.chat_template import ChatTemplate
from tests.helpers.connections import LOCAL, SECRET


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="a bound of another process is unknown"
)
def test_a_node_does_not_inherit_the_bound_that_a_template_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    before = resource.getrlimit(resource.RLIMIT_AS)
    bounded, go_on = threading.Event(), threading.Event()
    real = resource.setrlimit

    def watched(kind: int, limits: tuple[int, int]) -> None:
        real(kind, limits)
        if kind == resource.RLIMIT_AS and limits != before:
            bounded.set()
            assert go_on.wait(30)

    monkeypatch.setattr(resource, "setrlimit", watched)
    settings = NodeSettings(name="node", node=0, session="s", address=LOCAL, secret=SECRET)
    with ThreadPoolExecutor(2) as pool:
        try:
            filled = pool.submit(template.render, [{"role": "user", "content": "hi"}])
            assert bounded.wait(30)
            started = pool.submit(spawn, settings)
        finally:
            go_on.set()
        assert filled.result(30) == "hi"
        process, channel = started.result(30)
    channel.close()
    try:
        assert resource.prlimit(process.pid, resource.RLIMIT_AS) == before
    finally:
        assert end_process(process, (10.0, 5.0, 5.0))
        if process.stdout is not None:
            process.stdout.close()
