"""Keys that share nothing of what was computed: nobody learns how a prompt of others begins."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import PAGE_SIZE
from bandweave.generation.pages import PagePool
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.run_options import RunOptions
from bandweave.serving.answers.answering import Answering
from bandweave.serving.http.keys import read_keys
from tests.helpers.command import bandweave
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by
from tests.test_http_keys import ANNA, BERT, key_file

PROMPT = tuple(range(3, 3 + 3 * PAGE_SIZE))


@pytest.mark.parametrize("num_states", [0, 8])
def test_pages_are_shared_within_a_salt_alone(num_states: int) -> None:
    pool = PagePool(64, num_states)

    def read(salt: str) -> int:
        """Tokens that were there already."""
        cached = pool.claim([*PROMPT, 9, 9], salt=salt)
        known = len(cached.tokens)
        pool.grow(cached, len(PROMPT) + 2)
        pool.keep_state(cached, len(PROMPT) + 2 - known)
        cached.tokens += [*PROMPT, 9, 9][known:]
        pool.settle(cached)
        pool.release(cached)
        return known

    assert [read(salt) for salt in ("", "a", "b")] == [0, 0, 0]
    assert all(read(salt) >= 2 * PAGE_SIZE for salt in ("", "a", "b"))
    # A partly filled page can be taken over by its own salt alone.
    assert len(pool.claim([*PROMPT[:-1], 9], salt="c").tokens) == 0


@pytest.mark.parametrize("speculate", ["off", "draft"])
def test_salts_never_show_in_an_answer(speculate: str) -> None:
    params = SamplingParams(temperature=0.8, seed=4, max_tokens=12)
    run = RunOptions(context=512, streams=2, speculate=speculate)
    draft = str(demo_folder()) if speculate == "draft" else ""
    options = EngineOptions(shares=(Fraction(1),), run=run, draft=draft)
    plain = Request(tokens=PROMPT, params=params)
    asked = [plain, plain, *(replace(plain, salt=salt) for salt in ("a", "a", "b", "b", ""))]
    with Folder.open(demo_folder()) as folder, Engine.start(folder, options) as engine:
        found = [engine.generate([one], digest=True)[0] for one in asked]
    assert len({(one.tokens, one.logits_digest) for one in found}) == 1
    reused = [one.timing.reused_tokens for one in found]
    assert [one > 0 for one in reused] == [False, True, False, True, False, True, True]


def test_each_key_has_a_salt_of_its_own(tmp_path: Path) -> None:
    keys = read_keys(key_file(tmp_path, f"{ANNA} anna\n{BERT} bert\n"))
    served = served_by(lambda request, tokenizer: Script(tokens=tokenizer.encode("Hello")))
    answering = served.answering
    private = Answering(answering.engine, answering.tokenizer, private=True)
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    for one, apart in ((answering, False), (private, True)):
        with ServerThread(replace(served, answering=one), keys=keys) as server:
            asked = server.engine.requests
            del asked[:]
            for key in (ANNA, ANNA, BERT):
                head = {"x-api-key": key}
                for path, body in (
                    ("/v1/chat/completions", chat),
                    ("/v1/chat/completions", {**chat, "cache_salt": "s"}),
                    ("/v1/completions", {"prompt": "Hi", "cache_salt": "s"}),
                    ("/v1/responses", {"input": "Hi", "model": "demo"}),
                    ("/v1/messages", {**chat, "model": "demo", "max_tokens": 5}),
                    ("/api/chat", {**chat, "model": "demo", "stream": False}),
                ):
                    assert server.post(path, body, head)[0] == 200, path
            anna, again, bert = asked[:6], asked[6:12], asked[12:]
            salts = [[request.salt for request in part] for part in (anna, again, bert)]
            assert salts[0] == salts[1]
            assert bool(set(salts[0]) & set(salts[2])) is not apart
            assert len(set(salts[0])) == 2 and salts[0][1] == salts[0][2]
            for wrong in ("", "x" * 1025, 5):
                body = {**chat, "cache_salt": wrong}
                assert server.post("/v1/chat/completions", body, {"x-api-key": ANNA})[0] == 400


def test_what_is_kept_apart_are_keys() -> None:
    result = bandweave("serve", "demo", "--private-cache")
    assert result.status == 2 and "give them with --key-file" in result.err
