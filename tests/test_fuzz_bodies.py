"""Some damaged and hostile bodies for every endpoint; `python -m tests.fuzz.bodies` posts many."""

from __future__ import annotations

import pytest

from tests.fuzz import bodies
from tests.helpers.scripted_engine import Script


def test_bodies_end_in_an_answer_or_one_error() -> None:
    tally = bodies.fuzz(300, seed=1)
    assert not tally.faults, "\n".join(tally.faults[:5])
    assert tally.statuses.total() == 300
    assert tally.statuses[200] > 20 and tally.statuses[400] > 80


def test_what_must_not_be_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(request: object, tokenizer: object) -> Script:
        raise OSError("broken")

    monkeypatch.setattr(bodies, "_play", broken)
    assert any("error of its own" in fault for fault in bodies.fuzz(40, seed=1).faults)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert bodies.main(["--inputs", "20", "--seed", "2"]) == 0
    assert " x 400" in capsys.readouterr().out
