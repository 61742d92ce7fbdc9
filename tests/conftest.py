"""What all tests share: nothing of theirs is kept in the user's folders."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_cache_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDWEAVE_CACHE", "off")
