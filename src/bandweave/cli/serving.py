"""Serving: what a command does while its server answers: it loads, and waits for the end."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from bandweave.cli.watch import watch_loading
from bandweave.executors.executor import StepError
from bandweave.mesh.address import format_address, is_unspecified
from bandweave.serving.answers.served import Served
from bandweave.serving.http.server import Server
from bandweave.serving.session import Session
from bandweave.serving.status.sampler import Sampler
from bandweave.serving.status.service import Service
from bandweave.serving.watcher import Watch, Watcher

_LOOK_SECONDS = 0.2


def check_exposure(sock: socket.socket, listen: str, has_keys: bool) -> None:
    """``ValueError`` where other machines could ask whatever they like."""
    host = sock.getsockname()[0]
    if not has_keys and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise ValueError(
            f"--listen {listen} lets other machines ask; give --key-file with the keys of those "
            "who may, or listen at 127.0.0.1"
        )


class Serving:
    """A service on a server, over a session."""

    def __init__(self, service: Service, server: Server, drain: float) -> None:
        self._service, self._server, self._drain = service, server, drain

    @property
    def watch(self) -> Watch:
        """Tells the user and the server's clients how far the model is loaded."""
        return self._watch

    def run(self, session: Session, served: Served, tell: Callable[[], None]) -> None:
        """Serves until a signal comes, and whatever it raises. ``tell`` is called when requests are
        answered. Nodes that fail are followed by others; ``StepError`` where that is beyond
        hope."""
        try:
            with Sampler(session.engine) as sampler:
                engine = session.engine
                self._service.ready(served, sampler, lambda: getattr(engine, "outage", None))
                tell()
                while not sampler.failure:
                    self._server.check()
                    time.sleep(_LOOK_SECONDS)
            raise StepError(sampler.failure)
        except BaseException:
            self._server.stop(self._drain)
            raise

    @contextlib.contextmanager
    def _watch(self, name: str, nodes: int) -> Iterator[Watcher]:
        service = self._service
        with watch_loading(name, nodes) as shown:

            class Both(Watcher):
                def remark(self, sentence: str) -> None:
                    shown.remark(sentence)

                def waiting(self, node: str) -> None:
                    service.wait(f"the model is loading: waiting for {node}")
                    shown.waiting(node)

                def gathering(self, lack: str) -> None:
                    service.wait(f"the model is loading: waiting for {lack}")
                    shown.gathering(lack)

                def loading(self, progress: Sequence[tuple[int, int]]) -> None:
                    done, whole = (sum(column) for column in zip(*progress, strict=True))
                    if whole:
                        service.wait(f"the model is loading: {100 * done // whole} %")
                    shown.loading(progress)

            yield Both()


def base_url(sock: socket.socket) -> str:
    """What programs of this machine are given; those of others, where the server listens at all
    addresses."""
    host, port = sock.getsockname()[:2]
    if is_unspecified(host):
        host = socket.gethostname()
    return f"http://{format_address((host, port))}/v1"


def example(url: str, *, chats: bool, keys: bool) -> str:
    """A line for a shell that asks for an answer."""
    path = "/chat/completions" if chats else "/completions"
    body = {"messages": [{"role": "user", "content": "Hi"}]} if chats else {"prompt": "Once"}
    key = ' -H "Authorization: Bearer $KEY"' if keys else ""
    kind = " -H 'Content-Type: application/json'"  # old versions of curl have no --json
    return f"curl {url}{path}{key}{kind} -d '{json.dumps(body)}'"
