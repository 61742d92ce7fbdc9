"""Messages between controllers and nodes come back as they were sent; nothing else is believed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.checkpoints.folder import Fingerprint
from bandweave.engine.assignment import Assignment
from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import CallOptions, Request, Timing
from bandweave.generation.sampling import SamplingParams
from bandweave.host.control_groups import MemoryLimit
from bandweave.messages import (
    Alive,
    Cancel,
    Description,
    EngineState,
    Finished,
    Join,
    Learnt,
    MessageError,
    Submit,
    Tokens,
    Vocabulary,
    decode,
    encode,
)
from bandweave.planning.profile.emulation import EmulatedLink
from bandweave.run_options import RunOptions

ASSIGNMENT = Assignment(
    model="/models/m",
    fingerprint=Fingerprint(config="a" * 64, headers="b" * 64, sample="c" * 64),
    shares=(Fraction(3, 7), Fraction(2)),
    stages=1,
    rank=1,
    run=RunOptions(context=4096),
    cpus=(0, 1),
)
JOIN = Join(
    generation=1,
    nodes=(0, 3),
    names=("node 0", "node 3"),
    addresses=(("10.0.0.1", 7000), ("10.0.0.2", 7000)),
    stall_seconds=5.0,
    emulate=EmulatedLink(name="slow", latency_seconds=0.001, bytes_per_s=1e6),
)
COOL = SamplingParams(frequency_penalty=-0.5, presence_penalty=2, max_tokens=None, seed=2**63)
SUBMIT = Submit(
    ids=(7, 8),
    requests=(
        Request(tokens=(1, 2, 3), params=COOL, end_tokens=frozenset({5, 2}), choice=3),
        Request(tokens=tuple(range(5000)), params=SamplingParams()),
    ),
    options=CallOptions(digest=True, reuse=False),
)
FINISHED = Finished(
    id=7, count=2, reason="stop", error="", logits_digest="ab", digests=("a", "b"),
    prompt_logprobs=(TokenLogprobs(logprob=-0.5),), embedding=(-0.25, 1.5),
    timing=Timing(prefill=0.5, decode_tokens=1),
)  # fmt: skip
DESCRIPTION = Description(
    host_id="x", memory=(MemoryLimit(group="host", available=5),), cpus=(0, 3), usable_cpus=2,
    threads=0,
)  # fmt: skip
RUN = json.loads(json.dumps(encode(ASSIGNMENT)))["run"]
WRONG = (-1, 1.5, float("nan"), "x" * 50, [[]], {"a": 1}, True, 10**400, [None])
ALL = (
    ASSIGNMENT, JOIN, SUBMIT, FINISHED, DESCRIPTION, Cancel(ids=(0, 4)),
    Tokens(ids=(0, 1), tokens=(17, 4)),
    Tokens(ids=(0, 1), tokens=(17, 4),
           logprobs=(None, TokenLogprobs(logprob=-1.5, ids=(4, 2), logprobs=(-1.5, -2.0)))),
    EngineState(running=1, waiting=2, pages=9, free_pages=3, kept_pages=2, preempted=1, steps=4,
                seconds=0.5, durations=(1, 3), read=7, written=8, ended=1),
    Vocabulary(first=2, texts=("YQ==", ""), end_tokens=(3,), last=True), Learnt(reason="none"),
    Alive(ids=(3, 1), tokens=(64, 0)),
)  # fmt: skip


def wire(message: Any) -> dict[str, Any]:
    return json.loads(json.dumps(encode(message)))


@pytest.mark.parametrize("message", ALL, ids=lambda one: type(one).__name__)
def test_messages_come_back(message: Any) -> None:
    assert decode(type(message), wire(message)) == message


@pytest.mark.parametrize("message", ALL, ids=lambda one: type(one).__name__)
def test_missing_unknown_and_other_fields_are_refused(message: Any) -> None:
    sound = wire(message)
    for field in sound:
        with pytest.raises(MessageError):
            decode(type(message), {key: value for key, value in sound.items() if key != field})
        for wrong in WRONG:
            if wrong == sound[field]:
                continue
            try:
                found = decode(type(message), {**sound, field: wrong})
            except MessageError as error:
                assert len(str(error)) < 300
                continue
            # Another value of the field's own kind: then it says just that.
            assert wire(found)[field] == wrong
    with pytest.raises(MessageError):
        decode(type(message), {**sound, "more": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"cache": "/home/somebody"},
        {"cache": "own"},
        {"shares": ["1e2000000000", "1"]},
        {"shares": ["1/0", "1"]},
        {"shares": ["9" * 5000, "1"]},
        {"shares": ["-1", "1"]},
        {"shares": ["0x10", "1"]},
        {"shares": ["1"]},
        {"shares": []},
        {"rank": 2},
        {"threads": 10**9},
        {"stages": 3},
        {"run": {}},
        {"run": 5},
        {"run": {**RUN, "context": None}},
        {"run": {**RUN, "context": 0}},
        {"run": {**RUN, "context": 2**60}},
        {"run": {**RUN, "streams": 0}},
        {"run": {**RUN, "max_rows": 10**9}},
        {"run": {**RUN, "weight_format": "q5"}},
        {"run": {**RUN, "kv_format": "\x1b[2J"}},
        {"run": {**RUN, "wire": "bf17"}},
        {"run": {**RUN, "speculate": "always"}},
        {"run": {**RUN, "speculate": "draft"}},
        {"run": {**RUN, "draft_tokens": 65}},
        {"fingerprint": "abc"},
        {"fingerprint": {"config": 1, "headers": "", "sample": ""}},
    ],
)
def test_assignments_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    start = time.monotonic()
    with pytest.raises(MessageError) as raised:
        decode(Assignment, {**wire(ASSIGNMENT), **change})
    assert time.monotonic() - start < 0.5 and len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 0},
        {"generation": 2**32},
        {"nodes": []},
        {"nodes": [0]},
        {"nodes": [3, 3]},
        {"nodes": [0, 0]},
        {"nodes": [0, 1024]},
        {"names": ["node 0"]},
        {"names": ["a", "b", "c"]},
        {"addresses": [["10.0.0.1", 7000]]},
        {"addresses": [["10.0.0.1", 0], ["b", 1]]},
        {"addresses": [["10.0.0.1", 70000], ["b", 1]]},
        {"addresses": [["10.0.0.1"], ["b"]]},
        {"stall_seconds": 0},
        {"stall_seconds": 1e300},
        {"emulate": {"name": "x", "latency_seconds": -1, "bytes_per_s": 1}},
        {"emulate": {"name": "x", "latency_seconds": 1, "bytes_per_s": 0}},
    ],
)
def test_meetings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError) as raised:
        decode(Join, {**wire(JOIN), **change})
    assert len(str(raised.value)) < 300


def test_many_nodes() -> None:
    many = replace(ASSIGNMENT, shares=(Fraction(1),) * 1024, stages=16, rank=1023)
    assert decode(Assignment, wire(many)) == many
    with pytest.raises(ValueError, match="1025 nodes; there may be 1 to 1024"):
        replace(many, shares=(Fraction(1),) * 1025)
    all_of_them = replace(JOIN, nodes=tuple(range(1024)), names=("n",) * 1024, addresses=())
    assert decode(Join, wire(all_of_them)) == all_of_them


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.data())
def test_anything_else_is_an_error_with_a_sentence(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(ALL))
    sound = wire(message)
    for _ in range(data.draw(st.integers(1, 3))):
        sound[data.draw(st.sampled_from([*sound, "x"]))] = data.draw(JSON)
    try:
        decode(type(message), sound)
    except MessageError as error:
        assert str(error)
