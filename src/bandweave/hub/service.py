"""Service: the hub as this machine's user reaches it. Questions, answers, and retries.

Endpoint, token, proxies, offline mode and time limits are those of the package ``huggingface_hub``,
whose HTTP client asks. Redirects within the hub are followed here, others are the answer: their
headers say what a file is, and the token goes nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from bandweave import __version__, files
from bandweave.hub.patience import Patience
from bandweave.hub.refusals import HubError, Subject, Unreachable, busy, refusal, wait_seconds

MOST_CONNECTIONS = 16  # of this process at a time
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_HOPS = 5
_SILENT_COST = 3  # of patience, where a question gets no answer: each may take ten seconds


class Service:
    """One for a process; see ``service``."""

    def __init__(self) -> None:
        try:
            from huggingface_hub import constants, get_token
            from huggingface_hub.utils import get_session
        except ImportError as error:
            raise HubError(
                "models of the hub need the Python package huggingface_hub; `pip install "
                "huggingface_hub`, or name a model folder"
            ) from error
        self.endpoint = constants.ENDPOINT.rstrip("/")
        self.connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        try:
            self._client = get_session()
        except ImportError as error:
            raise Unreachable(
                "the SOCKS proxy that ALL_PROXY or HTTPS_PROXY names needs the Python package "
                "socksio; `pip install socksio`, or unset the variable"
            ) from error
        except ValueError as error:
            raise Unreachable(
                f"the proxy that ALL_PROXY or HTTPS_PROXY names cannot be used: {error}"
            ) from error
        # Its own function for these asks the hub which program calls it.
        self._own = {"user-agent": f"bandweave/{__version__}"}
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        if token:
            self._own["authorization"] = f"Bearer {token}"
        connect, read = constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT
        self._timeout = (float(connect), float(read), float(read), None)
        names = {base.__module__.partition(".")[0] for base in type(self._client).__mro__}
        library = importlib.import_module("httpx2" if "httpx2" in names else "httpx")
        self._transport_error: type[Exception] = library.TransportError
        self._invalid: tuple[type[Exception], ...] = (library.InvalidURL, library.DecodingError)

    @property
    def logged_in(self) -> bool:
        """Whether questions carry a token."""
        return "authorization" in self._own

    def subject(self, repo: str, revision: str = "", path: str = "") -> Subject:
        """For sentences."""
        return Subject(
            endpoint=self.endpoint,
            repo=repo,
            revision=revision,
            path=path,
            logged_in=self.logged_in,
        )

    def file_url(self, subject: Subject) -> str:
        """Where the hub answers about a file."""
        revision, path = quote(subject.revision, safe=""), quote(subject.path)
        return f"{self.endpoint}/{subject.repo}/resolve/{revision}/{path}"

    def own_host(self, url: str) -> bool:
        """Whether an address is the hub's own, which alone may see the token."""
        one, own = urlsplit(url), urlsplit(self.endpoint)
        return (one.scheme, one.netloc) == (own.scheme, own.netloc)

    def ask(self, url: str, subject: Subject, *, most: int) -> bytes:
        """The content behind an address of the hub, of at most ``most`` bytes; tries again where
        that may help. ``HubError`` says what is wrong."""
        patience = Patience()
        while True:
            try:
                with self.open("GET", url, patience, subject) as response:
                    content = bytearray()
                    for piece in response.iter_bytes():
                        content += piece
                        if len(content) > most:
                            raise HubError(f"{url} has more than {most} bytes; is that right?")
                    return bytes(content)
            except self._transport_error as error:
                patience.wait(self.unreachable(error), cost=_SILENT_COST)

    def ask_json(self, url: str, subject: Subject, *, most: int) -> dict[str, Any]:
        """The JSON object behind an address of the hub."""
        content = self.ask(url, subject, most=most)
        return files.parse_object(content, url, HubError, "; is HF_ENDPOINT a hub?")

    @contextlib.contextmanager
    def open(self, method: str, url: str, patience: Patience, subject: Subject) -> Iterator[Any]:
        """The hub's answer, after redirects within it; one that leads elsewhere is an answer, and
        so is the file itself."""
        for _ in range(_MOST_HOPS):
            with self._answer(method, url, patience) as response:
                status = response.status_code
                if status in _REDIRECTS:
                    url = urljoin(url, response.headers.get("location", ""))
                    if self.own_host(url):
                        continue
                elif not 200 <= status < 300:
                    raise refusal(status, response.headers, subject)
                yield response
                return
        raise HubError(f"{self.endpoint} redirects {subject.repo} in circles; try again later")

    @contextlib.contextmanager
    def _answer(self, method: str, url: str, patience: Patience) -> Iterator[Any]:
        """An answer of any status that does not ask to come again."""
        while True:
            try:
                response = self.send(method, url)
            except self._transport_error as error:
                patience.wait(self.unreachable(error), cost=_SILENT_COST)
                continue
            with contextlib.closing(response):
                if response.status_code not in _TEMPORARY:
                    yield response
                    return
                seconds = wait_seconds(response.headers)
            patience.wait(busy(response.status_code, self.endpoint, seconds), seconds)

    def send(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """One request, whose answer has to be closed. ``transport_error`` where none comes;
        ``Unreachable`` where none is to be asked for."""
        own = dict(self._own)
        if not self.own_host(url):
            own.pop("authorization", None)
        # Bytes as they are: ranges are of them, not of what a compression makes of them.
        own |= {"accept-encoding": "identity", **(headers or {})}
        try:
            request = self._client.build_request(method, url, headers=own, timeout=self._timeout)
            return self._client.send(request, stream=True, follow_redirects=False)
        except self._invalid as error:
            raise HubError(f"the hub's address {url[:100]} is none: {error}") from error
        except self._transport_error:
            raise
        except ConnectionError as error:  # what the package raises where it may not ask
            raise Unreachable(
                "HF_HUB_OFFLINE is set, and more of the hub is needed; unset it, or name a model "
                "that is whole here"
            ) from error

    @property
    def transport_error(self) -> type[Exception]:
        """What a connection that fails raises."""
        return self._transport_error

    def unreachable(self, error: Exception) -> Unreachable:
        """The sentence for a connection that failed."""
        why = str(error) or type(error).__name__
        return Unreachable(
            f"{self.endpoint} cannot be reached ({why}); check the network and try again: what "
            "came so far is kept"
        )


@functools.cache
def service() -> Service:
    """The one of this process: connections, token and limits are shared."""
    return Service()
