"""RangeFetcher: brings ranges of one file of the hub.

The hub is asked once where a file lies: the address that it signs serves many ranges, until it
expires. What came of a range is never asked for again. Knows one file; writes nothing.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from bandweave.checkpoints.have import Origin
from bandweave.hub.patience import Patience
from bandweave.hub.refusals import HubError, busy, refusal, wait_seconds
from bandweave.hub.service import Service, service

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_MOST_SKIPPED = 8 << 20  # of an answer that begins too early


@dataclass(frozen=True, kw_only=True)
class _Address:
    """``signed``: it is not the hub's own, and expires."""

    url: str
    signed: bool


class _Again(Exception):
    """Another try may help, after so many ``seconds`` if the other side says so."""

    def __init__(self, error: HubError, seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.seconds = error, seconds


class RangeFetcher:
    """A ``Fetcher``. Threads share the address."""

    def __init__(self, hub: Service, origin: Origin) -> None:
        self._hub, self._origin = hub, origin
        self._subject = hub.subject(origin.repo, origin.commit, origin.path)
        self._address: _Address | None = None
        self._lock = threading.Lock()

    def fetch(self, start: int, stop: int) -> Iterator[bytes]:
        """As ``Fetcher`` says."""
        patience, position = Patience(), start
        while position < stop:
            try:
                with self._hub.connections:
                    for piece in self._pieces(self._find(patience), position, stop):
                        position += len(piece)
                        patience.renew()
                        yield piece
                if position < stop:
                    raise _Again(HubError(f"{self._name} ended too early; try again"))
            except _Again as again:
                patience.wait(again.error, again.seconds)
            except self._hub.transport_error as error:
                patience.wait(self._hub.unreachable(error))

    def close(self) -> None:
        """As ``Fetcher`` says; connections belong to the process."""

    @property
    def _name(self) -> str:
        return f"{self._origin.repo}/{self._origin.path}"

    def _pieces(self, address: _Address, start: int, stop: int) -> Iterator[bytes]:
        headers = {"range": f"bytes={start}-{stop - 1}"}
        response = self._hub.send("GET", address.url, headers)
        with contextlib.closing(response):
            skipped = self._check(response, address, start)
            left = stop - start
            for piece in response.iter_raw():
                if skipped:
                    cut = min(skipped, len(piece))
                    skipped, piece = skipped - cut, piece[cut:]
                if piece and left:
                    yield piece[:left]
                    left -= min(left, len(piece))
                if not left:
                    return

    def _check(self, response: Any, address: _Address, start: int) -> int:
        """Bytes to skip of an answer that can be used; raises for any other."""
        status = response.status_code
        if status == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != start:
                raise _Again(HubError(f"{self._name}: another range came than was asked for"))
            if match[3] not in ("*", str(self._origin.size)):
                raise self._changed(f"has {match[3]} bytes")
            return 0
        if status == 200:  # all of it, from its start
            if start > _MOST_SKIPPED:
                raise HubError(
                    f"{self._name}: the server gives whole files only; fetch them with `hf "
                    f"download {self._origin.repo}`, which bandweave then uses"
                )
            return start
        if status in (301, 302, 303, 307, 308) or (address.signed and status in (401, 403, 404)):
            self._forget(address)  # it has expired, or moved
            raise _Again(
                HubError(
                    f"{self._name}: the hub's storage answers {status} again and again; try again "
                    "later: what came so far is kept"
                )
            )
        if status == 416:
            raise self._changed("is shorter")
        if status in (408, 429) or status >= 500:
            seconds = wait_seconds(response.headers)
            raise _Again(busy(status, self._hub.endpoint, seconds), seconds)
        raise refusal(status, response.headers, self._subject)

    def _find(self, patience: Patience) -> _Address:
        """Where the file lies; the hub is asked by one thread alone."""
        with self._lock:
            if self._address is None:
                self._address = self._ask(patience)
            return self._address

    def _forget(self, address: _Address) -> None:
        with self._lock:
            if self._address == address:
                self._address = None

    def _ask(self, patience: Patience) -> _Address:
        url, origin = self._hub.file_url(self._subject), self._origin
        with self._hub.open("HEAD", url, patience, self._subject) as response:
            headers = response.headers
            etag = _plain(headers.get("x-linked-etag") or headers.get("etag", ""))
            size = headers.get("x-linked-size") or headers.get("content-length", "")
            commit = headers.get("x-repo-commit", "")
            location = headers.get("location", "")
            asked = str(response.url)
        if origin.sha256 and len(etag) == 64 and etag != origin.sha256:
            raise self._changed("holds something else")
        if location:
            size = headers.get("x-linked-size", "")  # the redirect has a length of its own
        if size.isdigit() and int(size) != origin.size:
            raise self._changed(f"has {size} bytes")
        if commit and len(origin.commit) == 40 and commit != origin.commit:
            raise self._changed(f"is that of commit {commit[:12]}")
        if location:
            return _Address(url=urljoin(asked, location), signed=True)
        return _Address(url=asked, signed=False)

    def _changed(self, how: str) -> HubError:
        return HubError(
            f"{self._name} at the hub {how} now, not what was begun here ({self._origin.size} "
            f"bytes of commit {self._origin.commit[:12]}); remove it with `bandweave cache remove "
            f"{self._origin.repo}` and start again"
        )


def range_fetcher(origin: Origin) -> RangeFetcher:
    """What brings ranges of a file of the hub; asks nothing yet."""
    return RangeFetcher(service(), origin)


def _plain(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
