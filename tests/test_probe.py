"""Profiles: what they look up, how they are read and kept; the probe itself on a small scale."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.cli import output
from bandweave.engine.options import EngineOptions
from bandweave.environment import read_environment
from bandweave.handshake.secret import make_secret
from bandweave.messages import MessageError, decode, encode
from bandweave.models.registry import build_graph
from bandweave.planning.profile.interpolation import interpolate
from bandweave.planning.profile.profile import (
    HERE,
    SCHEMA_VERSION,
    MachineProfile,
    Profile,
    link_name,
    median_and_spread,
    stale_reason,
)
from bandweave.planning.search.fit import fitting_shares
from bandweave.probing.links import SIZES, Schedule, message_bytes
from bandweave.probing.machine import Scope, probe_machine, thread_counts
from bandweave.probing.messages import ProbeLinks, ProbeMachine
from bandweave.probing.session import probe_here, probe_hosts
from bandweave.probing.stopwatch import Setting, take_turns
from bandweave.programs.split import make_split
from bandweave.programs.work import Reduce, Step, step_work
from bandweave.record import from_json, to_json
from bandweave.serving import prediction
from bandweave.serving.profile_store import read_profile, save_profile
from tests.helpers.command import bandweave, environment
from tests.helpers.profiles import make_link, make_machine, recorded_profile

SMALL = Scope(formats=("q4",), kv_formats=("f16",), rows=(1, 32), together=(1,), rounds=1,
              streamed_bytes=0)  # fmt: skip
FEW_SIZES = ((64, 4), (4096, 2))

positive = st.floats(1e-12, 1e12)
points = st.dictionaries(st.integers(1, 10000), positive, min_size=1, max_size=6)


def made_up(**links: Any) -> Profile:
    return Profile(machines={HERE: make_machine()}, links={link_name(HERE, HERE): make_link()})


# --- lookups ---


@given(points=points, x=st.floats(0.1, 20000))
def test_interpolation_stays_between_its_neighbours(points: dict[int, float], x: float) -> None:
    below = [k for k in points if k <= x] or [min(points)]
    above = [k for k in points if k >= x] or [max(points)]
    ends = sorted((points[max(below)], points[min(above)]))
    for logarithmic in (True, False):
        value = interpolate(points, x, logarithmic=logarithmic)
        assert ends[0] * (1 - 1e-9) <= value <= ends[1] * (1 + 1e-9)


@given(points=points)
def test_interpolation_gives_what_was_measured(points: dict[int, float]) -> None:
    assert all(interpolate(points, key) == value for key, value in points.items())


def test_interpolation_is_a_power_law_or_a_line() -> None:
    assert interpolate({1: 10.0, 100: 1000.0}, 10) == pytest.approx(100.0)
    assert interpolate({0: 10.0, 100: 1000.0}, 50, logarithmic=False) == 505.0
    assert interpolate({1: 0.0, 3: 2.0}, 2) == 1.0


def test_median_and_spread() -> None:
    assert median_and_spread([3.0]) == (3.0, 0.0)
    assert median_and_spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2 / 3)
    assert median_and_spread([0.0, 0.0]) == (0.0, 0.0)
    with pytest.raises(ValueError):
        median_and_spread([])


def test_a_machine_knows_its_rates() -> None:
    machine = make_machine(bytes_per_s=20e9, flop_per_s=1e12)

    def rate(**changes: Any) -> float:
        asked = {"on_grid": False, "rows": 1, "threads": 1, **changes}
        return machine.seconds_per_byte("q4", **asked)

    assert rate() == pytest.approx(1 / 20e9)
    assert rate(threads=2) == pytest.approx(1 / 30e9) == rate(threads=64)
    assert rate(rows=128) == pytest.approx(128 * 2 * 32 / 18 / 1e12)
    assert rate(rows=256) == pytest.approx(2 * rate(rows=128))  # beyond what was measured
    assert rate(rows=8) < rate(rows=40) < rate(rows=128)
    assert rate(cached=True) == rate()  # nothing of the kind was measured
    assert machine.read_bytes_per_s(2) == 30e9
    assert machine.element_seconds("rope", 1) == 1e-10 and machine.element_seconds("other", 1) == 0


def test_a_link_is_a_latency_and_a_rate() -> None:
    link = make_link(latency=20e-6, bytes_per_s=1e9)
    assert link.at(8192).wait_seconds == pytest.approx(15e-6 + 8192e-9)
    assert link.at(1 << 26).wait_seconds == pytest.approx(4 * link.at(1 << 24).wait_seconds)
    assert link.latency_seconds == pytest.approx(20e-6, rel=0.01)
    assert link.bytes_per_s == pytest.approx(1e9, rel=0.01)


# --- files ---


def test_what_cannot_be_kept_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It took a minute to measure."""
    from bandweave.cli import main
    from bandweave.probing import session

    monkeypatch.setattr(session, "probe_here", lambda **options: made_up())
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "profile.json"
    monkeypatch.setenv("BANDWEAVE_PROFILE", str(path))
    for more in ((), ("--json",)):
        with pytest.raises(OSError, match="is not kept: .*; set BANDWEAVE_PROFILE"):
            try:
                main.cli(["probe", *more], standalone_mode=False)
            except main.output.JsonFailure as failure:
                assert failure.value["machines"] and failure.__cause__ is not None
                raise failure.__cause__ from None
    assert "an operation" in capsys.readouterr().out


def test_profiles_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "some" / "profile.json"
    assert read_profile(path) == Profile() == read_profile(None)
    profile = made_up()
    save_profile(path, profile)
    assert read_profile(path) == profile
    assert [entry.name for entry in path.parent.iterdir()] == ["profile.json"]
    newer = Profile(machines={"host:1": make_machine(processor="other")})
    both = profile.joined(newer)
    assert set(both.machines) == {HERE, "host:1"} and both.links == profile.links


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.update(schema=99), f"schema version {SCHEMA_VERSION}"),
        (lambda p: p.pop("links"), "lacks the field 'links'"),
        (lambda p: p.update(more=1), "unknown field 'more'"),
        (lambda p: p["machines"]["here"].update(cpus="two"), "cpus must be a whole number"),
        (lambda p: p["machines"]["here"].update(cpus=True), "cpus must be a whole number"),
        (lambda p: p["machines"]["here"].update(cpus=0), "at least 1 processor"),
        (lambda p: p["machines"]["here"].update(products=[]), "no products"),
        (lambda p: p["machines"]["here"]["step"].update(seconds_per_step=-1.0), "at least 0"),
        (lambda p: p["machines"]["here"]["step"].update(seconds_per_step=math.inf), "at least 0"),
        (lambda p: p["machines"]["here"]["reads"][0].update(bytes_per_s=0), "makes no sense"),
        (lambda p: p["machines"]["here"].update(reads={}), "must be a list"),
        (lambda p: p.update(machines=[]), "must be an object"),
    ],
)  # fmt: skip
def test_wrong_profiles_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    value = made_up().to_json()
    change(value)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=words) as caught:
        read_profile(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "\0", "[" * 100_000])
def test_files_that_are_no_profiles(tmp_path: Path, content: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="cannot be used"):
        read_profile(path)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda x: st.lists(x) | st.dictionaries(st.text(), x)))  # fmt: skip
def test_any_json_is_refused_with_a_sentence(value: Any) -> None:
    with pytest.raises(ValueError):
        Profile.from_json(value)
    with pytest.raises(ValueError):
        from_json(Profile, value)


def test_where_the_profile_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDWEAVE_PROFILE", "/some/file")
    assert read_environment().profile == Path("/some/file")
    monkeypatch.setenv("BANDWEAVE_PROFILE", "off")
    assert read_environment().profile is None
    monkeypatch.delenv("BANDWEAVE_PROFILE")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert read_environment().profile == Path("/data/bandweave/profile.json")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert read_environment().profile == Path("/home/me/.local/share/bandweave/profile.json")
    monkeypatch.setattr(sys, "platform", "darwin")
    folder = "/home/me/Library/Application Support/bandweave"
    assert read_environment().profile == Path(folder, "profile.json")


def test_profiles_grow_stale() -> None:
    machine = make_machine()
    now = {"version": machine.version, "numerics_version": machine.numerics_version}
    assert stale_reason(machine, **now) == ""
    assert stale_reason(machine, **now, processor="made up") == ""
    assert "another processor" in stale_reason(machine, **now, processor="new")
    assert "numerics version" in stale_reason(machine, **{**now, "numerics_version": 99})
    assert "bandweave" in stale_reason(machine, **{**now, "version": "99"})


# --- measuring ---


def test_thread_counts() -> None:
    assert thread_counts(1) == (1,) and thread_counts(2) == (1, 2)
    assert thread_counts(6) == (1, 2, 4, 6)


def test_all_take_their_turn() -> None:
    turns: list[str] = []

    def note(name: str) -> float:
        turns.append(name)
        return 1.0

    found = take_turns({name: lambda name=name: note(name) for name in "ab"}, 2)
    assert found == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    assert "".join(turns) == "ab" + "ab" + "ba"


def test_a_probe_measures_everything() -> None:
    cpus = (tuple(sorted(os.sched_getaffinity(0))) or (0,))[:2]
    seen: list[tuple[int, int]] = []
    try:
        machine = probe_machine(
            threads=2, setting=Setting(spin=False), scope=SMALL,
            on_progress=lambda done, total: seen.append((done, total)),
        )  # fmt: skip
    finally:
        os.sched_setaffinity(0, cpus if len(cpus) > 1 else os.sched_getaffinity(0))
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]
    assert {(p.on_grid, p.cached, p.rows, p.threads) for p in machine.products} == {
        (on_grid, cached, rows, threads)
        for on_grid in (False, True) for threads in (1, 2)
        for rows, cached in ((1, False), (1, True), (32, False))
    }  # fmt: skip
    assert all(0 < p.seconds_per_byte < 1e-3 for p in machine.products)
    assert {(a.streamed, a.threads) for a in machine.attention} == {
        (streamed, threads) for streamed in (False, True) for threads in (1, 2)
    }
    kinds = {"rms_norm", "gated_mul", "rope", "kv_append", "all_reduce_add", "quantise_q4",
             "outputs_q4", "attention"}  # fmt: skip
    assert {one.kind for one in machine.elements} == kinds
    assert all(one.seconds_per_op > 0 for one in machine.overheads)
    assert [read.threads for read in machine.reads] == [1, 2]
    assert 0 < machine.step.seconds_per_step < 0.1
    assert from_json(type(machine), json.loads(json.dumps(to_json(machine)))) == machine


def test_links_of_this_machine_are_measured() -> None:
    schedule = Schedule(num_nodes=3, sizes=FEW_SIZES, rounds=1)
    seen: list[str] = []
    profile = probe_here(
        nodes=3, threads=1, scope=SMALL, schedule=schedule,
        on_progress=lambda what, done, total: seen.append(what),
    )  # fmt: skip
    assert set(profile.links) == {"here shared", "here tcp"}
    assert profile.links["here tcp"].transport == "tcp"
    assert profile.link(HERE, HERE) == profile.links["here shared"]
    assert profile.links["here shared"].transport == "shared"
    for link in profile.links.values():
        assert [time.payload_bytes for time in link.times] == [
            message_bytes(width) for width, _ in FEW_SIZES
        ]
        assert all(time.wait_seconds + time.wire_seconds > 0 for time in link.times)
    assert set(seen) == {"this machine: processors and memory", "shared memory",
                         "TCP of this machine"}  # fmt: skip


def test_messages_are_as_long_as_the_engines() -> None:
    """What the probe calls the size of a message is what ``programs.work`` calls it."""
    with Folder.open(demo_folder()) as folder:
        spec = folder.spec
    step = Step(rows=3, keys=1.0, logit_rows=1)
    work = step_work(build_graph(spec), make_split(spec, (1, 1)), step, format="q4")
    sizes = {
        meeting.payload_bytes + 32
        for segment, _ in work for meeting in segment.meetings if isinstance(meeting, Reduce)
    }  # fmt: skip
    assert sizes == {message_bytes(3 * spec.hidden_size)}
    assert message_bytes(SIZES[0][0]) < 300 and message_bytes(SIZES[-1][0]) > 16e6


class Worker:
    """``bandweave worker`` on a port of this machine."""

    def __init__(self, token: Path) -> None:
        command = [sys.executable, "-m", "bandweave", "worker", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, "--token-file", str(token), "--threads", "1"],
            stderr=subprocess.PIPE, text=True, env=environment("probe"),
        )  # fmt: skip
        assert self.process.stderr is not None
        self.address = self.process.stderr.readline().split()[-1]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[list[str], bytes, Path]]:
    token = tmp_path / "token"
    secret = make_secret()
    token.write_bytes(secret + b"\n")
    token.chmod(0o600)
    started = [Worker(token) for _ in range(2)]
    try:
        yield [worker.address for worker in started], secret, token
    finally:
        for worker in started:
            worker.close()


def test_hosts_are_measured(workers: tuple[list[str], bytes, Path]) -> None:
    addresses, secret, token = workers
    schedule = Schedule(num_nodes=2, sizes=FEW_SIZES, rounds=1)
    profile = probe_hosts(addresses, secret, scope=SMALL, schedule=schedule)
    assert set(profile.machines) == set(addresses)
    assert all(machine.cpus == 1 for machine in profile.machines.values())
    assert profile.link(*addresses) is not None and len(profile.links) == 1
    # Afterwards the workers serve again, and the command's prediction finds the profile.
    path = token.parent / "profile.json"
    save_profile(path, profile)
    done = bandweave(
        "run", "demo", "--hosts", ",".join(addresses), "--token-file", token, "--prompt", "Hi",
        "--max-tokens", "4", "--json", BANDWEAVE_PROFILE=str(path),
    )  # fmt: skip
    predicted = done.json["predicted"]
    assert predicted["decode_tokens_per_s"] > 0
    assert len(predicted["weight_bytes_per_token_by_node"]) == 2


# --- the command ---


def test_the_command_keeps_and_shows(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    variables = {"BANDWEAVE_PROFILE": str(path)}
    empty = bandweave("probe", "--show", **variables)
    assert empty.status == 0 and "No machine was measured" in empty.out
    found = bandweave("probe", "--quick", "--json", **variables).json
    assert found["file"] == str(path) and set(found["links"]) == {"here shared", "here tcp"}
    assert read_profile(path).machines[HERE].quick
    shown = bandweave("probe", "--show", **variables)
    *lines, last = shown.out.splitlines()  # the last names the file, however long
    assert max(map(len, lines)) <= 80 and last.startswith("kept in ")
    for word in ("plain read", "q4", "attention", "shared", str(path)):
        assert word in shown.out
    run = bandweave("run", "demo", "--prompt", "Hi", "--max-tokens", "6", "--nodes", "2",
                    "--verbose", **variables)  # fmt: skip
    assert "predicted)" in run.err and "\npredicted " in run.err
    path.write_text("{}")
    broken = bandweave("probe", "--show", **variables)
    assert broken.status == 2 and "cannot be used" in broken.err
    unbothered = bandweave("run", "demo", "--prompt", "Hi", "--max-tokens", "2", **variables)
    assert unbothered.status == 0 and "predicted" not in unbothered.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--hosts", "a:1"), "--token-file"),
        (("--token-file", "x"), "--hosts"),
        (("--hosts", ","), "names no host"),
        (("--threads", "0"), "0"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    done = bandweave("probe", *arguments)
    assert done.status == 2 and words in done.err and len(done.err.splitlines()) == 1


# --- shares by profile ---


def test_unequal_hosts_get_unequal_shares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = ("10.0.0.1:7000", "10.0.0.2:7000")
    fast = make_machine(bytes_per_s=60e9)
    slow = make_machine(bytes_per_s=20e9, processor="an older one")
    link = make_link(latency=5e-6)
    profile = Profile(machines={hosts[0]: fast, hosts[1]: slow}, links={link_name(*hosts): link})
    options = EngineOptions(shares=(Fraction(1),) * 2, hosts=hosts, secret=b"x" * 32, fit=True)

    def shares(profile: Profile, options: EngineOptions = options) -> tuple[Fraction, ...]:
        monkeypatch.setattr(prediction, "stored_profile", lambda: profile)
        with Folder.open(demo_folder()) as folder:
            return prediction.choose_split(folder, options, output.say).shares

    first, second = shares(profile)
    assert first > second
    said = capsys.readouterr().err
    assert said.startswith("shares ") and len(said.splitlines()) == 1
    same = dataclasses.replace(profile, machines={hosts[0]: fast, hosts[1]: fast})
    assert shares(same) == (1, 1)
    assert shares(Profile()) == (1, 1)  # nothing is known
    stale = dataclasses.replace(slow, version="0.0")
    assert shares(dataclasses.replace(profile, machines={hosts[0]: fast, hosts[1]: stale})) == (
        1,
        1,
    )
    assert shares(profile, dataclasses.replace(options, fit=False)) == (1, 1)  # the user chose
    assert capsys.readouterr().err == ""


def test_machines_of_one_kind_get_equal_shares_whatever_one_look_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = ("10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000")
    calm, noisy = make_machine(bytes_per_s=60e9), make_machine(bytes_per_s=30e9)
    other = make_machine(bytes_per_s=30e9, processor="an older one")
    links = {
        link_name(a, b): make_link(latency=5e-6) for a in hosts for b in hosts if a < b
    }  # fmt: skip

    def shares(*machines: MachineProfile) -> tuple[Fraction, ...]:
        names = hosts[: len(machines)]
        profile = Profile(machines=dict(zip(names, machines, strict=True)), links=links)
        monkeypatch.setattr(prediction, "stored_profile", lambda: profile)
        options = EngineOptions(
            shares=(Fraction(1),) * len(names), hosts=names, secret=b"x" * 32, fit=True
        )
        with Folder.open(demo_folder()) as folder:
            return prediction.choose_split(folder, options, output.say).shares

    assert shares(calm, noisy) == (1, 1)
    said = capsys.readouterr().err
    assert said.startswith("(10.0.0.2:7000 read its memory 2.0 times slower")
    assert shares(calm, make_machine(bytes_per_s=55e9)) == (1, 1)
    assert capsys.readouterr().err == ""
    first, second, third = shares(calm, noisy, other)
    assert first == second > third


def test_wanted_shares_shrink_where_memory_is_short() -> None:
    def needs(shares: Any) -> list[int]:
        return [int(1000 * share / sum(shares)) for share in shares]

    wanted = (Fraction(3), Fraction(1))
    assert fitting_shares([800, 800], needs, wanted) == wanted
    found = fitting_shares([500, 800], needs, wanted)
    assert found is not None and all(
        need <= room for need, room in zip(needs(found), [500, 800], strict=True)
    )
    assert fitting_shares([500, 400], needs, wanted) is None


def test_the_recorded_profile_is_one() -> None:
    profile = recorded_profile()
    assert profile.machines[HERE].formats == ("q4", "q8", "bf16", "f32")
    assert set(profile.links) == {"here shared", "here tcp"}


# --- what a node is asked ---

MACHINE = ProbeMachine(threads=1, pin=False, isa="", scope=SMALL)
LINKS = ProbeLinks(
    names=("node 0", "node 1"),
    addresses=(("10.0.0.1", 7000), ("10.0.0.2", 7000)),
    schedule=Schedule(num_nodes=2, sizes=FEW_SIZES, rounds=1),
    cpus=(),
    isa="",
    spin=True,
    stall_seconds=5.0,
    shared=True,
)


def test_what_a_node_is_asked_to_measure_survives_the_way() -> None:
    for asked in (MACHINE, LINKS):
        assert decode(type(asked), json.loads(json.dumps(encode(asked)))) == asked


@pytest.mark.parametrize(
    ("asked", "path", "value"),
    [
        (MACHINE, ("scope", "formats"), ["q5"]),
        (MACHINE, ("scope", "kv_formats"), ["f64"]),
        (MACHINE, ("scope", "rows"), [0]),
        (MACHINE, ("scope", "rows"), []),
        (MACHINE, ("scope", "together"), [1 << 40]),
        (MACHINE, ("scope", "rounds"), 10**9),
        (MACHINE, ("scope", "streamed_bytes"), 1 << 60),
        (MACHINE, ("threads",), -1),
        (MACHINE, ("pin",), 1),
        (LINKS, ("names",), ["node 0"]),
        (LINKS, ("addresses",), [["10.0.0.1", 7000]]),
        (LINKS, ("addresses",), [["10.0.0.1", 7000], ["10.0.0.2", 70000]]),
        (LINKS, ("schedule", "num_nodes"), 1),
        (LINKS, ("schedule", "num_nodes"), 10**9),
        (LINKS, ("schedule", "rounds"), 0),
        (LINKS, ("schedule", "sizes"), [[1 << 30, 1 << 30]]),
        (LINKS, ("schedule", "sizes"), [[0, 1]]),
        (LINKS, ("stall_seconds",), 1e300),
        (LINKS, ("isa",), None),
    ],
)
def test_what_makes_no_sense_is_not_measured(asked: Any, path: tuple[str, ...], value: Any) -> None:
    message = json.loads(json.dumps(encode(asked)))
    place = message
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(MessageError):
        decode(type(asked), message)
