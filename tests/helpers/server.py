"""The real HTTP layer on a real socket, over a scripted engine and the demo model's text."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Self

from bandweave.checkpoints.folder import Folder
from bandweave.generation.request import Request
from bandweave.hub.resolve import resolve_model
from bandweave.serving.answers.admission import Admission
from bandweave.serving.answers.answering import Answering
from bandweave.serving.answers.served import Served
from bandweave.serving.http.app import make_app
from bandweave.serving.http.limits import Limits
from bandweave.serving.http.server import Server
from bandweave.serving.status.service import Service
from bandweave.serving.texts import open_template, open_tokenizer
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.connections import wait_until
from tests.helpers.scripted_engine import Script, ScriptedEngine


@cache
def _demo() -> Served:
    with Folder.open(resolve_model("demo")) as folder:
        tokenizer = open_tokenizer(folder)
        return Served(
            name="demo",
            answering=Answering(ScriptedEngine(play=lambda request: Script(tokens=())), tokenizer),
            tokenizer=tokenizer,
            template=open_template(folder, tokenizer),
            admission=Admission(),
            vocab_size=folder.spec.vocab_size,
            fingerprint="bandweave-test",
        )


def served_by(
    play: Callable[[Request, Tokenizer], Script], *, context: int = 4096, **changes: Any
) -> Served:
    """The demo model's text over an engine that plays what ``play`` says. ``changes`` of
    ``Served``."""
    demo = _demo()
    engine = ScriptedEngine(play=lambda request: play(request, demo.tokenizer), context=context)
    answering = Answering(engine, demo.tokenizer)
    return replace(demo, **{"answering": answering, "admission": Admission(), **changes})


def until(condition: Callable[[], object]) -> None:
    """Waits for what must come soon."""
    assert wait_until(lambda: bool(condition()), 20)


class ServerThread:
    """A server in a thread of this process. ``engine``: the scripted one."""

    def __init__(
        self, served: Served | Service, limits: Limits | None = None, **options: Any
    ) -> None:
        """``options``: of ``make_app``."""
        self.served = served
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.app = make_app(served, limits=limits, **options)
        self.server = Server(self.app, limits)

    @property
    def engine(self) -> ScriptedEngine:
        served = self.served if isinstance(self.served, Served) else self.served.served
        assert served is not None
        engine = served.answering.engine
        assert isinstance(engine, ScriptedEngine)
        return engine

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(
        self, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and content of an answer. ``body``: bytes, or JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, content, {"Content-Type": "application/json",
                                                **(headers or {})})  # fmt: skip

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()

    def __enter__(self) -> Self:
        self.server.start(self._socket)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self._socket.close()
