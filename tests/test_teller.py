"""Teller: what is told keeps its order, and nobody who tells waits for it."""

from __future__ import annotations

import threading
import time

import pytest

from bandweave.serving.answers import teller as module
from bandweave.serving.answers.teller import Teller
from tests.helpers.server import until


def test_works_are_done_in_order_and_nobody_waits_for_them() -> None:
    teller, done, free = Teller(), [], threading.Event()
    errors: list[Exception] = []

    def fail() -> None:
        raise OSError("broken")

    start = time.monotonic()
    teller.tell(lambda: done.append(free.wait(20)), errors.append)
    teller.tell(fail, errors.append)
    for index in range(100):
        teller.tell(lambda index=index: done.append(index), errors.append)
    assert time.monotonic() - start < 5 and not done
    free.set()
    until(lambda: len(done) == 101)
    assert done == [True, *range(100)]
    assert [str(error) for error in errors] == ["broken"]


def test_its_thread_ends_and_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.02)
    teller, done = Teller(), []

    def threads() -> int:
        return sum(thread.name == "teller" for thread in threading.enumerate())

    before = threads()
    for index in range(3):
        teller.tell(lambda index=index: done.append(index), lambda error: None)
        until(lambda index=index: index in done)
        until(lambda: threads() <= before)


def test_who_hears_of_an_error_may_have_gone() -> None:
    teller, done = Teller(), []

    def fail(error: object = None) -> None:
        raise RuntimeError("Event loop is closed")

    teller.tell(fail, fail)
    teller.tell(lambda: done.append(1), fail)
    until(lambda: done)
