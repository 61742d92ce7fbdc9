"""What all tests share: nothing of theirs is kept in the user's folders, and Ctrl-C works."""

from __future__ import annotations

import signal

import pytest


def pytest_sessionstart() -> None:
    """Shells ignore SIGINT in what they start in the background, and commands inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_cache_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDWEAVE_CACHE", "off")
