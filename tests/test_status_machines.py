"""The machines of a real engine, as the status tells of them: who holds what, where a step's time
goes, and what was to be expected."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.hub.resolve import resolve_model
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.planning.profile.prediction import Load
from bandweave.planning.profile.profile import HERE, HERE_SHARED, Profile
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.serving.prediction import Predictor, limit_tokens_per_s
from bandweave.serving.profile_store import save_profile
from bandweave.serving.session import Session
from bandweave.serving.status.accounts import Accounts
from bandweave.serving.status.machines import machines_of
from bandweave.serving.texts import open_tokenizer
from tests.helpers.machines import pretend_machines
from tests.helpers.profiles import make_link, make_machine, make_nodes

_OPTIONS = EngineOptions(
    shares=(Fraction(1), Fraction(1)),
    threads=1,
    run=RunOptions(context=256, max_rows=64, streams=4),
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with (
        Folder.open(resolve_model("demo")) as folder,
        Engine.start(folder, _OPTIONS, ThreadLauncher()) as engine,
    ):
        yield Session(
            name="demo", folder=folder, options=_OPTIONS, engine=engine,
            tokenizer=open_tokenizer(folder), template=None, load_seconds=0.0,
        )  # fmt: skip


def test_the_bill_of_a_real_engine_adds_up(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDWEAVE_PROFILE", "off")
    found = machines_of(session)
    pretended = pretend_machines()
    assert set(found.plan) == set(pretended.plan)  # so tests of the page see what there is
    assert set(found.plan["nodes"][0]) == set(pretended.plan["nodes"][0])
    assert set(found.links[0]) == set(pretended.links[0])
    assert found.expect(1, 64) is None  # nothing was measured
    assert found.links[0]["latency_seconds"] is None

    accounts = Accounts(found)
    params = SamplingParams(temperature=0, max_tokens=40)
    requests = [Request(tokens=(9, 8, 7, first), params=params) for first in (5, 6, 7)]
    accounts._run(1.0)
    session.engine.generate(requests)
    accounts._run(1.0)
    bill = accounts.bill
    assert bill is not None and bill.steps == 39 and bill.rows == pytest.approx(3)
    for seconds in bill.seconds:
        parts = sum(value for name, value in seconds.items() if name != "wall")
        assert parts == pytest.approx(seconds["wall"], rel=0.05)
        assert min(seconds.values()) >= 0
    assert bill.seconds[0]["weights"] > 0 and bill.seconds[0]["sampling"] > 0
    assert sum(bill.weight_bytes) > 1e6 and bill.wire_bytes["activations"] > 0
    assert bill.wire_bytes["weights"] == bill.wire_bytes["kv"] == 0
    assert accounts.measured == pytest.approx(3 / bill.seconds[0]["wall"])
    assert len(accounts.busy) == 2 and 0 < min(accounts.busy) <= max(accounts.busy) <= 1


def test_a_stored_profile_says_what_to_expect(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "profile.json"
    machine, link = make_machine(), make_link(latency=43e-6)
    save_profile(path, Profile(machines={HERE: machine}, links={HERE_SHARED: link}))
    monkeypatch.setenv("BANDWEAVE_PROFILE", str(path))
    monkeypatch.setattr("bandweave.serving.prediction.why_stale", lambda name, machine: "")
    found = machines_of(session)
    one, three = found.expect(1, 64), found.expect(3, 64)
    assert one is not None and three is not None
    assert 0 < one.predicted < one.limit
    assert one.predicted < three.predicted < three.limit == pytest.approx(3 * one.limit)
    assert found.links[0]["latency_seconds"] == pytest.approx(43e-6, rel=0.05)


def test_the_limit_is_of_machines_that_read_at_once_and_stages_that_wait() -> None:
    with Folder.open(resolve_model("demo")) as folder:
        nodes, link = make_nodes(make_machine(bytes_per_s=1e9), make_machine()), make_link()
        predictor = Predictor(nodes=tuple(nodes), links={(0, 1): link})
        for stages in (1, 2):
            split = make_split(folder.spec, (1, 1), stages=stages)
            load = Load(prompt_tokens=64, new_tokens=1, streams=2)
            prediction = predictor.predict(folder, split, load)
            each = prediction.decode.weight_bytes
            times = [each[0] / 1e9, each[1] / 20e9]
            seconds = sum(times) if stages == 2 else max(times)
            found = limit_tokens_per_s(predictor, split, prediction)
            assert found == pytest.approx(2 / seconds)
