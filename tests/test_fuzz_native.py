"""A short run of the fuzzers: the same inputs every time, under the address and undefined-behaviour
sanitizers. ``make fuzz`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.fuzzer import build_fuzzer, run_fuzzer, write_seeds

pytestmark = pytest.mark.timeout(
    900
)  # the first test compiles, for half a minute on two idle cores

SEED = 7


@pytest.fixture(scope="module")
def fuzzer() -> Path:
    return build_fuzzer(quick=True)


def test_changed_dumps_are_refused_or_run(fuzzer: Path, tmp_path: Path) -> None:
    found = run_fuzzer(fuzzer, "dumps", inputs=200, seed=SEED, dumps=write_seeds(tmp_path))
    assert found.inputs == 200
    assert found.count("accepted: ran") > 20
    assert found.count("refused: ") > 50


def test_programs_run_alike_on_any_threads_and_spoilt_ones_are_refused(fuzzer: Path) -> None:
    found = run_fuzzer(fuzzer, "programs", inputs=100, seed=SEED)
    assert found.inputs == 100
    assert found.count("accepted: ran") > 25
    assert found.count("refused: ") > 15


def test_altered_transcripts_end_in_the_right_answer_or_an_error(fuzzer: Path) -> None:
    found = run_fuzzer(fuzzer, "transcripts", inputs=60, seed=SEED)
    assert found.inputs == 60
    assert found.count("accepted: right") > 5
    assert found.count("checksum is wrong") > 5
    assert found.count("was tampered with") > 5
    assert found.count("made no progress") > 1


def test_altered_records_are_refused(fuzzer: Path) -> None:
    found = run_fuzzer(fuzzer, "records", inputs=1500, seed=SEED)
    assert found.inputs == 1500
    assert found.count("accepted: whole") > 50
    assert found.count("refused: tampered") > 500


def test_what_a_member_of_a_team_throws_reaches_the_caller(fuzzer: Path) -> None:
    found = run_fuzzer(fuzzer, "teams", inputs=300, seed=SEED)
    assert found.outcomes.keys() == {"done", "thrown"}
