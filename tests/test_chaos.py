"""Chaos: streams whose nodes are killed, stopped and slowed lose nothing and change no byte, and
workers outlive whatever happens to their sessions. The driver would say so if it were otherwise."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from benchmarks.chaos import __main__ as chaos
from benchmarks.chaos import hosts, table, workers
from benchmarks.chaos.answers import NoAnswer, says_something, told
from benchmarks.chaos.faults import MACHINE, NOTHING, PROCESS, story
from benchmarks.chaos.questions import KINDS, questions
from benchmarks.chaos.report import PART_NAMES, as_json, figures_of, lines
from benchmarks.chaos.silences import PARTS, REST, Felt, back, silence_after, silences, spoke
from benchmarks.chaos.streams import Crowd, Heard
from benchmarks.chaos.trial import Found
from benchmarks.crowd import Question

_CHAT = "/v1/chat/completions"

# --- answers ---


def chunk(text: str, end: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "x", "created": 1, "choices": [
        {"index": 0, "delta": {"content": text}, "finish_reason": end, **more}]}  # fmt: skip


def stream(*parts: dict[str, Any]) -> bytes:
    return b"".join(f"data: {json.dumps(part)}\n\n".encode() for part in parts) + b"data: [DONE]\n"


def test_an_answer_is_what_it_says_however_it_was_cut() -> None:
    whole = told(_CHAT, stream(chunk("one two", "stop")))
    other = {**chunk(" two", "stop"), "id": "y", "created": 2}
    assert told(_CHAT, b": waits\n\n" + stream(chunk("one"), other)) == whole
    assert told(_CHAT, stream(chunk("one twO", "stop"))) != whole
    assert told(_CHAT, stream(chunk("one two", "length"))) != whole
    logprobs = {"content": [{"token": "one", "logprob": -0.5}]}
    assert told(_CHAT, stream(chunk("one two", "stop", logprobs=logprobs))) != whole


@pytest.mark.parametrize(
    "content",
    [b"", stream(chunk("one")), stream(chunk("one"), {"error": {"message": "lost"}}), b"data: {x\n",
     b'{"error": {"message": "no"}}'],
)  # fmt: skip
def test_half_an_answer_is_none(content: bytes) -> None:
    with pytest.raises(NoAnswer):
        told(_CHAT, content)


def test_signs_of_life_are_no_tokens() -> None:
    assert says_something(b'data: {"choices": []}')
    assert says_something(b'{"message": {}}')
    for line in (b"", b" ", b": still here", b'data: {"type": "ping"}', b"event: ping",
                 b"data: [DONE]"):  # fmt: skip
        assert not says_something(line)


def test_questions_and_faults_are_those_of_their_seed() -> None:
    assert questions(30, 1, 50) == questions(30, 1, 50) != questions(30, 2, 50)
    assert {one.kind for one in questions(30, 1, 50)} == set(KINDS)
    kinds = (*PROCESS, *MACHINE)
    first = list(islice(story(1, 4, kinds, pauses=(1, 2)), 40))
    assert first == list(islice(story(1, 4, kinds, pauses=(1, 2)), 40))
    assert first != list(islice(story(2, 4, kinds, pauses=(1, 2)), 40))
    assert {fault.blows[0].kind for fault in first[: len(kinds)]} == set(kinds)
    assert any(len(fault.blows) == 2 for fault in first)
    assert all(len({blow.node for blow in fault.blows}) == len(fault.blows) for fault in first)
    assert {blow.node for fault in first for blow in fault.blows} == {0, 1, 2, 3}


# --- silences ---


def heard(asked: float, *came: float, over: float | None = None) -> Heard:
    return Heard(number=0, asked=asked, came=list(came), over=over)


def test_a_silence_lasts_from_the_fault_to_the_token_that_ends_it() -> None:
    # Some tokens were still on their way; the silence began at 10.1 and ended at 12.5.
    assert silence_after(heard(5, 6, 9.9, 10.05, 10.1, 12.5, 12.6), 10.0) == pytest.approx(2.5)
    assert silence_after(heard(9, 13), 10.0) == pytest.approx(3.0)  # it had said nothing yet
    assert silence_after(heard(11, 12), 10.0) is None
    assert silence_after(heard(5, 6, over=7), 10.0) is None
    assert silence_after(heard(5, 6), 10.0) is None  # and says nothing more
    # A pause much later is no consequence.
    assert silence_after(heard(5, 9.9, 10.2, 10.4, 15, 30), 10.0) == pytest.approx(5.0)
    assert silences([heard(5, 6, 11), heard(5, 6, 12), heard(20, 21)], 10.0) == (1.0, 2.0)


def test_streams_are_back_when_all_have_gone_on() -> None:
    went_on, silent = heard(5, 6, 12), heard(5, 6)
    assert back([went_on], 10.0, 12.5, 2.0)
    assert not back([went_on, silent], 10.0, 12.5, 2.0)
    assert not back([went_on], 10.0, 20.0, 2.0)  # and then nothing came


def recovered(kind: str, seconds: float) -> dict[str, Any]:
    return {"kind": kind, "seconds": dict.fromkeys(PARTS, seconds)}


def test_a_silence_is_told_in_parts_beside_what_passes_without_a_fault(tmp_path: Path) -> None:
    """Those that just spoke apart from those that waited anyway; what no part says is the rest."""
    assert spoke(heard(5, 9.2, 12), 10.0) and not spoke(heard(5, 8.9, 12), 10.0)
    assert not spoke(heard(9.5, 10.1), 10.0)  # asked, and has said nothing yet
    felt = [
        Felt(title=NOTHING, kind=NOTHING, at_s=1.0, silences=(0.1, 5.0), spoke=(0.1,)),
        Felt(title="kill 0", kind="kill", at_s=9.0, silences=(1.0, 1.0, 7.0), spoke=(1.0,),
             recoveries=(recovered("failed", 0.1), recovered("joined", 9.0))),
        Felt(title="kill 1", kind="kill", at_s=9.0, silences=(3.0,), spoke=(3.0,),
             recoveries=(recovered("failed", 0.5),)),
        Felt(title="slow 1", kind="slow", at_s=12.0, silences=(0.5,), spoke=(0.5,)),
    ]  # fmt: skip
    kills = figures_of(felt[1:3])
    assert (kills["times"], kills["median_s"], kills["worst_s"]) == (2, 2.0, 3.0)
    assert (kills["waited_median_s"], kills["waited_worst_s"]) == (4.0, 7.0)
    assert kills["parts"]["noticed"] == (pytest.approx(0.3), 0.5)
    assert kills["parts"][REST] == (pytest.approx(0.8), pytest.approx(1.0))  # 0.6 and 1.0
    assert figures_of(felt[3:])["parts"] == {}
    found = Found(asked=3, felt=felt)
    said = "\n".join(lines(found))
    assert max(map(len, said.splitlines())) <= 80
    assert all(name in said for name in PART_NAMES.values())
    assert not Found(asked=3, felt=felt[:1]).fine  # nothing was tried
    assert as_json(found)["all"]["times"] == 3
    path = tmp_path / "found.json"
    path.write_text(json.dumps(as_json(found)))
    header, _, *rows = table.rows([json.loads(path.read_text())] * 2)
    assert header.startswith("| fault | times | next token, s | notice | plan |")
    assert rows[0] == "| nothing | 2 | 0.10 (0.10) |  |  |  |  |  |"
    assert rows[1].startswith("| kill | 4 | 2.00 (3.00) | 0.30 (0.50) |")


def test_a_trial_is_fine_only_if_something_was_tried_and_nothing_was_wrong() -> None:
    felt = [Felt(title="kill 0", kind="kill", at_s=1.0, silences=(0.5,))]
    assert Found(asked=3, felt=felt).fine
    for wrong in (
        Found(asked=3),
        Found(felt=felt),
        Found(asked=3, felt=felt, lost=["x"]),
        Found(asked=3, felt=felt, changed=["x"]),
        Found(asked=3, felt=felt, left=["x"]),
    ):
        assert not wrong.fine


# --- a crowd and a server that fails it ---


async def _crowd(answers: list[bytes]) -> Crowd:
    """One question asked as often as there are answers; each is sent as it is."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    question = Question(kind="chat", path=_CHAT, body=b"{}", streams=True)
    crowd = Crowd(port=server.sockets[0].getsockname()[1], questions=[question], patience=5.0)
    for _ in answers:
        await crowd.once()
    server.close()
    return crowd


def response(content: bytes, *, ends: bool = True, status: str = "200 OK") -> bytes:
    body = b"%x\r\n%s\r\n" % (len(content), content) + (b"0\r\n\r\n" if ends else b"")
    return f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body


def test_a_lost_stream_and_a_changed_byte_are_seen() -> None:
    good, other = stream(chunk("one", "stop")), stream(chunk("two", "stop"))
    crowd = asyncio.run(_crowd([response(good)] * 3))
    assert (len(crowd.heard), crowd.lost, crowd.changed) == (3, [], [])
    assert all(one.came and one.over for one in crowd.heard)
    crowd = asyncio.run(_crowd([response(good), response(other), response(good)]))
    assert [one.text for one in crowd.changed] == [told(_CHAT, other)] and not crowd.lost
    for lost in (response(stream(chunk("one")), ends=False), response(stream(chunk("one"))), b"",
                 response(b'{"error": 1}', status="503 Unavailable")):  # fmt: skip
        crowd = asyncio.run(_crowd([response(good), lost]))
        assert len(crowd.lost) == 1 and crowd.lost[0].failure and not crowd.changed


# --- the real thing ---


@pytest.mark.alone  # thirty streams on four nodes leave no processor to others' clocks
@pytest.mark.timeout(400)
def test_nothing_is_lost_and_no_byte_changes_whatever_happens_to_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a minute; ``make chaos`` takes ten."""
    log, found = tmp_path / "log", tmp_path / "found"
    status = chaos.main(["--seconds", "25", "--pauses", "1", "2", "--log", str(log),
                         "--json", str(found)])  # fmt: skip
    said = capsys.readouterr().out
    assert status == 0, said + log.read_text()[-3000:]
    titles = " ".join(one["title"] for one in json.loads(found.read_text())["faults"])
    # How many come in the time depends on how long the machine takes over each.
    assert len({"kill", "stop", "slow"} & set(titles.split())) >= 2, said


@pytest.mark.late
@pytest.mark.timeout(300)
def test_machines_that_are_cut_off_or_lose_power_take_no_stream_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if why := hosts.why_not():
        pytest.skip(why)
    log = tmp_path / "log"
    status = chaos.main(["--hosts", "--seconds", "30", "--streams", "14", "--pauses", "1", "2",
                         "--kinds", "power,cut,cut in,cut out", "--single",
                         "--log", str(log)])  # fmt: skip
    assert status == 0, capsys.readouterr().out + log.read_text()[-3000:]


def test_workers_outlive_whatever_happens_to_their_sessions() -> None:
    """A few seconds; ``make faults`` takes as long as it is told."""
    assert workers.play(0.2, 1, 2, tell=lambda sentence: None) == []
