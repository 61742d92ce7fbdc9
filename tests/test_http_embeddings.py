"""Embeddings over HTTP, as OpenAI's and Ollama's clients ask for them, on a scripted engine.

That any split gives the same numbers is said by tests/test_last_hidden.py."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bandweave.generation.request import Request
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

_CONTEXT = 64
_LONG = "word " * 200
_UNIT = [float(x) for x in np.array([0.6, 0.8], np.float32)]  # the engine's vector is (3, 4)


def _play(request: Request, tokenizer: Tokenizer) -> Script:
    assert request.embeds and request.params.max_tokens == 1
    return Script(tokens=[5], reads=[len(request.tokens)])


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with ServerThread(served_by(_play, context=_CONTEXT)) as server:
        yield server


def _post(server: ServerThread, path: str, body: dict[str, Any], status: int = 200) -> Any:
    found, _, content = server.post(path, {"model": "demo", **body})
    assert found == status, content
    return json.loads(content)


def _tokens(server: ServerThread, text: str) -> tuple[int, ...]:
    return tuple(server.served.tokenizer.encode(text))  # type: ignore[union-attr]


def test_floats_and_base64_are_the_same_numbers(server: ServerThread) -> None:
    texts = ["Once", "Once upon", "a time"]
    plain = _post(server, "/v1/embeddings", {"input": texts})
    assert [one["index"] for one in plain["data"]] == [0, 1, 2]
    assert {tuple(one["embedding"]) for one in plain["data"]} == {tuple(_UNIT)}
    count = sum(len(_tokens(server, text)) for text in texts)
    assert plain["usage"] == {"prompt_tokens": count, "total_tokens": count}
    packed = _post(server, "/embeddings", {"input": texts, "encoding_format": "base64"})
    for one in packed["data"]:
        vector = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
        assert [float(x) for x in vector] == _UNIT


def test_token_ids_are_read_as_they_are(server: ServerThread) -> None:
    _post(server, "/v1/embeddings", {"input": [5, 6, 7]})
    assert server.engine.requests[-1].tokens == (5, 6, 7)
    assert len(_post(server, "/v1/embeddings", {"input": [[5], [6, 7]]})["data"]) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": _LONG}, "input"),
        ({}, "input"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": ["a"] * 2049}, "input"),
    ],
)
def test_what_openais_clients_cannot_have(
    server: ServerThread, fields: dict[str, Any], param: str
) -> None:
    assert _post(server, "/v1/embeddings", fields, 400)["error"]["param"] == param


def test_ollamas_texts(server: ServerThread) -> None:
    """As its own clients and Open WebUI ask: several texts, which may be cut where they are told
    to be."""
    found = _post(server, "/api/embed", {"input": ["Once", "a time"], "truncate": True})
    count = len(_tokens(server, "Once")) + len(_tokens(server, "a time"))
    assert (found["embeddings"], found["prompt_eval_count"]) == ([_UNIT, _UNIT], count)
    assert found["model"] == "demo" and found["load_duration"] == 0 <= found["total_duration"]
    assert len(_post(server, "/api/embed", {"input": "Once"})["embeddings"]) == 1
    assert _post(server, "/api/embeddings", {"prompt": "Once"}) == {"embedding": _UNIT}


def test_ollamas_texts_are_cut_only_where_the_client_says_so(server: ServerThread) -> None:
    for fields in ({}, {"truncate": False}):
        refused = _post(server, "/api/embed", {"input": ["a", _LONG], **fields}, 400)
        assert "context" in refused["error"]
    assert "context" in _post(server, "/api/embeddings", {"prompt": _LONG}, 400)["error"]
    found = _post(server, "/api/embed", {"input": _LONG, "truncate": True})
    assert found["prompt_eval_count"] == _CONTEXT - 1
    assert server.engine.requests[-1].tokens == _tokens(server, _LONG)[: _CONTEXT - 1]


def test_nothing_to_embed_loads_nothing(server: ServerThread) -> None:
    asked = len(server.engine.requests)
    assert _post(server, "/api/embed", {"input": []})["embeddings"] == []
    assert _post(server, "/api/embed", {})["embeddings"] == []
    assert _post(server, "/api/embeddings", {"prompt": ""}) == {"embedding": []}
    assert len(server.engine.requests) == asked


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"input": ["a", ""]}, 400, "input"),
        ({"input": [1, 2]}, 400, "input"),
        ({"input": {"a": 1}}, 400, "input"),
        ({"input": "a", "truncate": "yes"}, 400, "truncate"),
        ({"input": "a", "dimensions": 3}, 400, "dimensions"),
        ({"input": "a", "keep_alive": 0}, 400, "keep_alive"),
        ({"input": "a", "options": {"num_ctx": 1 << 20}}, 400, "num_ctx"),
        ({"input": "a", "model": "other"}, 404, "other"),
    ],
)
def test_what_ollamas_clients_cannot_have(
    server: ServerThread, fields: dict[str, Any], status: int, word: str
) -> None:
    assert word in _post(server, "/api/embed", fields, status)["error"]
