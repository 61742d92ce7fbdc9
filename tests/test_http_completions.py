"""Completions and the plain endpoints, over a scripted engine: what goes over the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bandweave.generation.logprobs import TokenLogprobs
from bandweave.generation.request import Request
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

ANSWER = " upon a time, 世界 🎉"


def scores(token: int, request: Request) -> TokenLogprobs:
    """Of which the sums tell the token."""
    return TokenLogprobs(logprob=-token / 1000, ids=(3, token), logprobs=(-0.5, -token / 1000))


def play(request: Request, tokenizer: Tokenizer) -> Script:
    told = None if request.logprobs is None else scores
    return Script(tokens=tokenizer.encode(ANSWER, special_tokens=False), logprobs=told)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with ServerThread(served_by(play)) as server:
        yield server


def post(server: ServerThread, body: Any, path: str = "/v1/completions") -> Any:
    status, _, content = server.post(path, body)
    assert status == 200, content
    return json.loads(content)


def refused(server: ServerThread, body: Any, path: str = "/v1/completions") -> dict[str, Any]:
    status, _, content = server.post(path, body)
    assert status == 400, content
    error = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def chunks(server: ServerThread, body: dict[str, Any]) -> list[dict[str, Any]]:
    status, _, content = server.post("/v1/completions", {**body, "stream": True})
    assert status == 200, content
    lines = content.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def ids(server: ServerThread, text: str) -> list[int]:
    return list(server.served.tokenizer.encode(text))  # type: ignore[union-attr]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("kind", ["text", "texts", "ids", "lists of ids", "both"])
def test_all_kinds_of_prompts(server: ServerThread, kind: str, n: int) -> None:
    one, two = ids(server, "Once"), ids(server, "Twice upon")
    prompt, told = {
        "text": ("Once", [one]),
        "texts": (["Once", "Twice upon"], [one, two]),
        "ids": (one, [one]),
        "lists of ids": ([one, two], [one, two]),
        "both": (["Once", two], [one, two]),
    }[kind]
    before = len(server.engine.requests)
    found = post(server, {"model": "demo", "prompt": prompt, "n": n, "max_tokens": 50})
    asked = server.engine.requests[before:]
    assert sorted(list(request.tokens) for request in asked) == sorted(told * n)
    assert (found["object"], found["model"]) == ("text_completion", "demo")
    assert found["id"].startswith("cmpl-") and found["system_fingerprint"]
    assert [one["index"] for one in found["choices"]] == list(range(n * len(told)))
    for choice in found["choices"]:
        assert choice == {"text": ANSWER, "index": choice["index"], "logprobs": None,
                          "finish_reason": "length"}  # fmt: skip
    usage = found["usage"]
    assert usage["prompt_tokens"] == sum(map(len, told))
    answer = server.served.tokenizer.encode(ANSWER, special_tokens=False)  # type: ignore[union-attr]
    assert usage["completion_tokens"] == len(answer) * n * len(told)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("prompt", ["Once", ["Once", "Twice"]])
@pytest.mark.parametrize("n", [1, 2])
def test_streamed_text_is_the_unstreamed(
    server: ServerThread, prompt: Any, n: int, echo: bool
) -> None:
    body = {"prompt": prompt, "n": n, "echo": echo, "max_tokens": 50}
    whole = post(server, body)
    options = {"stream_options": {"include_usage": True}}
    *pieces, last = chunks(server, {**body, **options})
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(piece["usage"] is None for piece in pieces)
    assert len({piece["id"] for piece in pieces}) == 1
    for choice in whole["choices"]:
        own = [one for piece in pieces for one in piece["choices"]
               if one["index"] == choice["index"]]  # fmt: skip
        assert "".join(one["text"] for one in own) == choice["text"]
        assert [one["finish_reason"] for one in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == choice["finish_reason"]
    assert "usage" not in chunks(server, body)[0]


def test_logprobs_in_the_old_shape(server: ServerThread) -> None:
    body = {"prompt": "Once", "logprobs": 2, "max_tokens": 50}
    (choice,) = post(server, body)["choices"]
    found = choice["logprobs"]
    assert set(found) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    sent = server.served.tokenizer.encode(ANSWER, special_tokens=False)  # type: ignore[union-attr]
    assert found["token_logprobs"] == [-token / 1000 for token in sent]
    plain = [one for one in found["tokens"] if not one.startswith("bytes:")]
    assert "".join(plain).startswith(" upon a time, ")
    for offset, token in zip(found["text_offset"], found["tokens"], strict=True):
        if not token.startswith("bytes:"):
            assert choice["text"][offset : offset + len(token)] == token
    for token, value, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert top[token] == value
    streamed = [one["choices"][0] for one in chunks(server, body)]
    told = [one["logprobs"] for one in streamed if one["logprobs"]]
    for name, values in found.items():
        assert [value for one in told for value in one[name]] == values


@pytest.mark.parametrize("count", [0, 5])
def test_bounds_of_logprobs(server: ServerThread, count: int) -> None:
    post(server, {"prompt": "Once", "logprobs": count})
    assert server.engine.requests[-1].logprobs == count
    for wrong in (6, -1, True, "1", 1.5):
        assert refused(server, {"prompt": "Once", "logprobs": wrong})["param"] == "logprobs"


def test_a_prompt_is_scored_by_an_echo_without_an_answer() -> None:
    def score(request: Request, tokenizer: Tokenizer) -> Script:
        assert request.params.max_tokens == 1
        return Script(tokens=[7], logprobs=scores)

    class Scored(ServerThread):
        pass

    served = served_by(score)
    engine: Any = served.answering.engine
    submit = engine.submit

    def scoring(requests: Any, deliver: Any, options: Any) -> Any:
        def hear(event: Any) -> None:
            result = getattr(event, "result", None)
            if result is not None and requests[event.index].scored:
                told = tuple(scores(token, requests[0]) for token in requests[0].tokens[1:])
                event = replace(event, result=replace(result, prompt_logprobs=told))
            deliver(event)

        return submit(requests, hear, options)

    engine.submit = scoring
    with Scored(served) as server:
        prompt = ids(server, "Once upon a time")
        body = {"prompt": prompt, "echo": True, "max_tokens": 0, "logprobs": 1}
        found = post(server, body)
        (choice,) = found["choices"]
        assert choice["text"] == "Once upon a time"
        assert choice["finish_reason"] == "length"
        assert choice["logprobs"]["token_logprobs"] == [
            None, *(-token / 1000 for token in prompt[1:]),
        ]  # fmt: skip
        assert choice["logprobs"]["top_logprobs"][0] is None
        assert len(choice["logprobs"]["tokens"]) == len(prompt)
        assert found["usage"]["completion_tokens"] == 0
        assert found["usage"]["total_tokens"] == len(prompt)
        assert server.engine.requests[-1].scored
        (choice,) = post(server, {**body, "max_tokens": 1})["choices"]
        assert choice["logprobs"]["token_logprobs"][-1] == -7 / 1000
        assert len(choice["logprobs"]["tokens"]) == len(prompt) + 1


def test_no_answer_is_wanted(server: ServerThread) -> None:
    (choice,) = post(server, {"prompt": "Once", "max_tokens": 0})["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "length")
    (last,) = chunks(server, {"prompt": "Once", "max_tokens": 0})
    assert (last["choices"][0]["text"], last["choices"][0]["finish_reason"]) == ("", "length")


def test_what_reaches_the_engine(server: ServerThread) -> None:
    post(server, {"prompt": "Once", "ignore_eos": True, "seed": 7, "top_k": 5, "min_p": 0.1,
                  "repeat_penalty": 1.5, "temperature": 0, "logit_bias": {"5": -100},
                  "stop": ["x"]})  # fmt: skip
    request = server.engine.requests[-1]
    assert request.end_tokens == frozenset()
    params = request.params
    assert (params.seed, params.top_k, params.min_p, params.repetition_penalty) == (7, 5, 0.1, 1.5)
    assert (params.temperature, params.biased, params.stop) == (0, (5,), ("x",))
    assert params.max_tokens == 16
    post(server, {"prompt": "Once"})
    assert server.engine.requests[-1].end_tokens
    post(server, {"prompt": "Once", "max_tokens": -1})
    assert server.engine.requests[-1].params.max_tokens is None


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"guided_choice": ["a", "b"]},
        {"structured_outputs": {"regex": "[0-9]+"}},
        {"grammar": 'root ::= "a"'},
    ],
)
def test_a_form_of_the_answer(server: ServerThread, fields: dict[str, Any]) -> None:
    post(server, {"prompt": "Once", **fields})
    assert server.engine.requests[-1].grammar
    assert server.engine.learnt
    post(server, {"prompt": "Once"})
    assert not server.engine.requests[-1].grammar


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_fields_of_other_servers(server: ServerThread, path: str) -> None:
    asked = {"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi"}
    for field, value in (("min_tokens", 3), ("mirostat", 1), ("n_predict", 7)):
        assert refused(server, {**asked, field: value}, path)["param"] == field
    post(server, {**asked, "ignore_eos": True, "min_tokens": 0}, path)
    assert not server.engine.requests[-1].end_tokens


def test_a_stop_string_ends_the_text() -> None:
    def forever(request: Request, tokenizer: Tokenizer) -> Script:
        return Script(tokens=tokenizer.encode("a b c STOP d e", special_tokens=False))

    with ServerThread(served_by(forever)) as server:
        (choice,) = post(server, {"prompt": "x", "stop": "STOP", "max_tokens": 99})["choices"]
    assert (choice["text"].strip(), choice["finish_reason"]) == ("a b c", "stop")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, True]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1 << 40]}, "prompt"),
        ({"prompt": [[1.5]]}, "prompt"),
        ({"prompt": ["a"] * 300}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "n": 1000}, "n"),
        ({"prompt": "a", "max_tokens": -2}, "max_tokens"),
        ({"prompt": "a", "stream_options": {}}, "stream_options"),
        ({"prompt": "a", "stream": True, "echo": True, "logprobs": 1}, "logprobs"),
        ({"prompt": "a", "min_tokens": 3}, "min_tokens"),
        ({"prompt": "a", "use_beam_search": True}, "use_beam_search"),
        ({"prompt": "a", "mirostat": 2}, "mirostat"),
        ({"prompt": "a", "response_format": {"type": "xml"}}, "response_format.type"),
        ({"prompt": "a", "guided_regex": "("}, "guided_regex"),
        ({"prompt": "a", "stop": [1]}, "stop"),
        ({"prompt": "a", "top_p": 2}, "top_p"),
        ({"prompt": "a", "seed": 1 << 70}, "seed"),
        ({"prompt": "a", "echo": "yes"}, "echo"),
    ],
)
def test_what_cannot_be_asked(server: ServerThread, fields: dict[str, Any], param: str) -> None:
    before = len(server.engine.requests)
    assert refused(server, fields)["param"] == param
    assert len(server.engine.requests) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"best_of": 2, "n": 2},
        {"suffix": ""},
        {"suffix": None},
        {"min_tokens": 0},
        {"length_penalty": 1.0},
        {"response_format": {"type": "text"}},
        {"user": "anna", "something_of_theirs": {"a": 1}},
    ],
)
def test_what_says_nothing_new(server: ServerThread, fields: dict[str, Any]) -> None:
    post(server, {"prompt": "Once", **fields})


def test_a_prompt_that_is_too_long(server: ServerThread) -> None:
    error = refused(server, {"prompt": [5] * 5000})
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
    assert "maximum context length is 4096 tokens" in error["message"]
    assert "exceeds the available context size" in error["message"]


def test_an_unknown_model(server: ServerThread) -> None:
    status, _, content = server.post("/v1/completions", {"model": "gpt-x", "prompt": "a"})
    error = json.loads(content)["error"]
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")


# --- the others ---


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_text_to_tokens_and_back(server: ServerThread, prefix: str) -> None:
    text = "Once 世界"
    plain = server.served.tokenizer.encode(text, special_tokens=False)  # type: ignore[union-attr]
    llama = post(server, {"content": text}, f"{prefix}/tokenize")
    assert llama["tokens"] == plain
    vllm = post(server, {"model": "demo", "prompt": text, "return_token_strs": True},
                f"{prefix}/tokenize")  # fmt: skip
    assert vllm["tokens"] == ids(server, text)
    assert (vllm["count"], vllm["max_model_len"]) == (len(vllm["tokens"]), 4096)
    assert len(vllm["token_strs"]) == vllm["count"]
    pieces = post(server, {"content": text, "with_pieces": True}, f"{prefix}/tokenize")["tokens"]
    assert [one["id"] for one in pieces] == plain
    assert b"".join(
        piece.encode() if isinstance(piece := one["piece"], str) else bytes(piece)
        for one in pieces
    ).decode().strip() == text  # fmt: skip
    found = post(server, {"tokens": plain}, f"{prefix}/detokenize")
    assert found["content"].strip() == found["prompt"].strip() == text


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"content": 7}, "content"),
        ("/tokenize", {"content": "a", "parse_special": False}, "parse_special"),
        ("/detokenize", {"tokens": ["a"]}, "tokens"),
        ("/detokenize", {"tokens": [1 << 33]}, "tokens"),
    ],
)
def test_what_they_refuse(server: ServerThread, path: str, body: Any, param: str) -> None:
    assert refused(server, body, path)["param"] == param


def test_a_chat_is_counted_as_it_is_asked(server: ServerThread) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    counted = post(server, {"messages": messages}, "/v1/chat/completions/input_tokens")
    answered = post(server, {"messages": messages}, "/v1/chat/completions")
    assert counted["input_tokens"] == answered["usage"]["prompt_tokens"]
    assert post(server, {"messages": messages}, "/tokenize")["count"] == counted["input_tokens"]
    long = [{"role": "user", "content": "word " * 9000}]
    assert post(server, {"messages": long}, "/v1/chat/completions/input_tokens")[
        "input_tokens"] > 4096  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_the_model_is_listed(server: ServerThread, prefix: str) -> None:
    found = json.loads(server.ask("GET", f"{prefix}/models")[2])
    (model,) = found["data"]
    assert (found["object"], model["object"], model["id"]) == ("list", "model", "demo")
    assert isinstance(model["created"], int) and model["owned_by"] == "bandweave"
    assert json.loads(server.ask("GET", f"{prefix}/models/demo")[2]) == model
    status, _, content = server.ask("GET", f"{prefix}/models/gpt-x")
    assert (status, json.loads(content)["error"]["code"]) == (404, "model_not_found")


def test_any_model_where_the_server_says_so() -> None:
    with ServerThread(served_by(play, any_name=True)) as server:
        assert post(server, {"model": "gpt-x", "prompt": "a"})["model"] == "gpt-x"
        assert server.ask("GET", "/v1/models/openai/gpt-x")[0] == 200
        found = server.ask("GET", "/v1/models/openai/gpt-x")[2]
        assert json.loads(found)["id"] == "openai/gpt-x"
        # Whatever protocol asks, streamed or not, the answer has the name that was asked.
        ask = {"messages": [{"role": "user", "content": "a"}], "input": "a", "max_tokens": 5}
        for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"):
            for streams in (False, True):
                body = {**ask, "model": "their-model", "stream": streams}
                status, _, content = server.post(path, body)
                assert status == 200 and b'"their-model"' in content, path
                assert b'"demo"' not in content, path
        assert post(server, {"model": "", "prompt": "a"})["model"] == "demo"
        status, _, content = server.post("/v1/completions", {"model": "m" * 300, "prompt": "a"})
        assert status == 400 and json.loads(content)["error"]["param"] == "model"
        listed = json.loads(server.ask("GET", "/v1/models")[2])
        assert [one["id"] for one in listed["data"]] == ["demo"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/v1/completions", 405),
        ("BREW", "/v1/completions", 405),
    ],
)
def test_what_is_not_there(server: ServerThread, method: str, path: str, status: int) -> None:
    found, headers, content = server.ask(method, path)
    assert found == status
    assert json.loads(content)["error"]["type"] == "invalid_request_error"
    assert ("allow" in headers) == (status == 405)
