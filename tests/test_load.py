"""``bandweave.load``: answers and streams, for threads and event loops, are the command's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bandweave
from bandweave.membership.attendance import ask_status
from bandweave.membership.door import Door
from tests.helpers.command import bandweave as run_command
from tests.helpers.connections import SECRET
from tests.helpers.members import Member

QUESTION = "What is 17 + 25?"


@pytest.fixture(scope="module")
def model() -> Iterator[bandweave.Model]:
    with bandweave.load("demo", nodes=2, threads=1, streams=3, cache=False) as model:
        yield model


def test_an_answer_is_the_commands(model: bandweave.Model) -> None:
    command = run_command("run", "demo", "--prompt", QUESTION, "--max-tokens", "30", "--json").json
    answer = model.chat(QUESTION, max_tokens=30, logprobs=1)
    assert answer.text == command["text"] and list(answer.tokens) == command["tokens"]
    assert answer.finish_reason == command["finish_reason"]
    assert answer.finish_reason == "stop"  # by a token that is no text
    assert [one.ids[0] for one in answer.logprobs] == list(answer.tokens[:-1])
    said = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer.text}]
    again = model.chat([*said, {"role": "user", "content": "And 25 + 17?"}], max_tokens=30)
    assert again.cached_tokens >= answer.prompt_tokens


def test_pieces_are_the_whole(model: bandweave.Model) -> None:
    sampling = {"max_tokens": 20, "temperature": 0.9, "seed": 5}
    whole = model.generate("A link has", **sampling).text
    assert "".join(model.stream("A link has", **sampling)) == whole
    assert model.generate(model.encode("A link has"), **sampling).text == whole
    asked = model.chat("What is memory?", **sampling).text
    assert "".join(model.chat_stream("What is memory?", **sampling)) == asked
    assert model.decode(model.encode("A link")) == "A link"


def test_tasks_and_threads_side_by_side(model: bandweave.Model) -> None:
    questions = [f"What is {n} + {n}?" for n in range(6)]
    alone = [model.chat(question, max_tokens=16).text for question in questions]
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = model.chat(questions[number], max_tokens=16).text

    async def many() -> list[str]:
        async def piecewise(question: str) -> str:
            return "".join([piece async for piece in model.achat_stream(question, max_tokens=16)])

        whole = [model.achat(question, max_tokens=16) for question in questions]
        pieces = [piecewise(question) for question in questions]
        answers = await asyncio.gather(*whole)
        return [*(answer.text for answer in answers), *await asyncio.gather(*pieces)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    assert asyncio.run(many()) == [*alone, *alone]
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == alone


def test_who_leaves_early_has_ended_the_answer(model: bandweave.Model) -> None:
    stream = model.stream("Once upon a time there was", max_tokens=900, seed=3, temperature=1.0)
    next(stream)
    stream.close()  # type: ignore[attr-defined]

    async def leave() -> None:
        pieces = model.astream("Once upon a time there was", max_tokens=900, temperature=1.0)
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
        task = asyncio.create_task(model.agenerate("Once", max_tokens=900, temperature=1.0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    model.generate("x", max_tokens=1)  # a step later
    state = model.session.engine.state()
    assert state.running == state.waiting == 0


def test_mistakes_end_in_a_sentence(model: bandweave.Model) -> None:
    with pytest.raises(ValueError, match="temprature.*what can be given is.*temperature"):
        model.generate("x", temprature=1)
    with pytest.raises(ValueError, match="temperature is -1"):
        model.generate("x", temperature=-1)
    with pytest.raises(ValueError, match="the prompt is empty"):
        model.generate([])
    with pytest.raises(ValueError, match="the context holds 1024"):
        model.generate([1] * 1024)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        bandweave.lode  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises((ValueError, OSError)):
        bandweave.load("/there/is/no/such/model", cache=False)


def test_on_the_machines_of_a_cluster(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes(SECRET)
    token.chmod(0o600)
    with (
        Door(("127.0.0.1", 0), SECRET) as door,
        Member(door.where) as first,
        Member(door.where) as second,
        bandweave.load("demo", nodes=1, threads=1, cache=False) as alone,
    ):
        with bandweave.load(
            "demo", cluster=door.where, token_file=token, shares=[2, 1], streams=2, cache=False
        ) as model:
            assert model.chat(QUESTION, max_tokens=20).tokens == alone.chat(
                QUESTION, max_tokens=20
            ).tokens  # fmt: skip
            hosts = {node.name.partition("(")[2].rstrip(")") for node in model.session.engine.nodes}
            assert hosts == {first.address, second.address}
            deadline = time.monotonic() + 30
            while not (found := ask_status(door.where, SECRET).controllers):
                assert time.monotonic() < deadline
            assert found[0].name == "bandweave.load demo"
        with pytest.raises(ValueError, match="hosts names machines, and a cluster has its own"):
            bandweave.load("demo", cluster=door.where, hosts=["h:1"], token_file=token)
        with pytest.raises(ValueError, match="2 copies of the model need 2 machines at least"):
            bandweave.load("demo", cluster=door.where, token_file=token, nodes=1, replicas=2)
        where = door.where
    with pytest.raises(ValueError, match="is `bandweave up` running there"):
        bandweave.load("demo", cluster=where, token_file=token)
