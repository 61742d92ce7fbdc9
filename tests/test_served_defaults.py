"""What a model's makers advise for the choice of tokens, where a request says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bandweave.generation.request import Request
from bandweave.serving.answers.served import Defaults
from bandweave.serving.served_session import defaults_of
from bandweave.text.files import TextError
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def found(folder: Path, content: dict[str, Any] | None, *, gguf: bool = False) -> Defaults:
    if content is not None:
        (folder / "generation_config.json").write_text(json.dumps(content))
    one: Any = SimpleNamespace(is_gguf=gguf, path=folder)
    return defaults_of(one)


def test_what_is_advised_and_what_is_not(tmp_path: Path) -> None:
    assert found(tmp_path, None) == Defaults()
    assert found(tmp_path, {"eos_token_id": 2, "top_p": None}) == Defaults()
    advised = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05,
               "repetition_penalty": 1.05, "do_sample": True}  # fmt: skip
    assert found(tmp_path, advised) == Defaults(
        temperature=0.6, top_k=20, top_p=0.95, min_p=0.05, repetition_penalty=1.05
    )
    assert found(tmp_path, {"top_k": -1}).top_k == 0
    assert found(tmp_path, advised, gguf=True) == Defaults()


@pytest.mark.parametrize(
    "advised",
    [{"temperature": -1}, {"top_p": 2}, {"top_k": "many"}, {"min_p": True},
     {"repetition_penalty": 0}],
)  # fmt: skip
def test_advice_that_makes_no_sense(tmp_path: Path, advised: dict[str, Any]) -> None:
    with pytest.raises(TextError, match=next(iter(advised))):
        found(tmp_path, advised)


def test_requests_that_say_nothing_follow_it() -> None:
    def play(request: Request, tokenizer: Tokenizer) -> Script:
        return Script(tokens=[5])

    defaults = Defaults(temperature=0.6, top_k=20, top_p=0.95)
    with ServerThread(served_by(play, defaults=defaults)) as server:
        server.post("/v1/chat/completions", CHAT)
        params = server.engine.requests[-1].params
        assert (params.temperature, params.top_k, params.top_p) == (0.6, 20, 0.95)
        server.post("/v1/completions", {"prompt": "a", "temperature": 0, "top_k": 0, "top_p": 1})
        params = server.engine.requests[-1].params
        assert (params.temperature, params.top_k, params.top_p) == (0.0, 0, 1.0)
