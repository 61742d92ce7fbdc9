"""What each protocol streams, joined as its clients join it, is the answer that is not streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar, cast

import pytest

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.events import CallArguments, CallBegun, Event, Text, Thought
from bandweave.serving.anthropic.answer import MessageAnswer
from bandweave.serving.anthropic.request import MessagesRequest
from bandweave.serving.errors import ApiError
from bandweave.serving.ollama.answer import OllamaAnswer
from bandweave.serving.ollama.request import OllamaRequest
from bandweave.serving.openai.responses_answer import ResponseAnswer
from bandweave.serving.openai.responses_request import ResponsesRequest
from bandweave.serving.openai.responses_tools import Origin
from tests.helpers.played import Played, ask, end, random_events
from tests.helpers.scripted_engine import Script
from tests.helpers.server import served_by

_SERVED = served_by(lambda request, tokenizer: Script(tokens=()), clock=lambda: 1.8e9)
_SEEDS = range(200)
_T = TypeVar("_T")


def _messages(*, omits: bool = False) -> MessageAnswer:
    return MessageAnswer(MessagesRequest(ask=ask(), streams=True, omits=omits), _SERVED)


def _responses(**changes: Any) -> ResponseAnswer:
    values = {"ask": ask(), "streams": True, "told": {}, "summarises": False, "seals": False,
              "logprobs": False, "origins": {}, **changes}  # fmt: skip
    return ResponseAnswer(ResponsesRequest(**values), _SERVED)


def _ollama(*, chats: bool = True) -> OllamaAnswer:
    request = OllamaRequest(ask=ask(), chats=chats, streams=True, logprobs=False)
    return OllamaAnswer(request, _SERVED)


def _whole(answer: Any, events: list[Event]) -> dict[str, Any]:
    return _run(answer.whole(cast(AnswerStream, Played(events))))


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """What comes of work that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def _streamed(pieces: Callable[[AnswerStream], AsyncIterator[bytes]], events: list[Event]) -> bytes:
    stream = Played(events)

    async def join() -> bytes:
        return b"".join([piece async for piece in pieces(cast(AnswerStream, stream))])

    content = _run(join())
    assert stream.left
    return content


def _named_events(content: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each named by its type, and nothing else."""
    found = []
    blocks = content.decode().split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        name, data = block.splitlines()  # breaks at every separator that Python knows
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def _join_message(events: list[dict[str, Any]]) -> dict[str, Any]:
    """As Anthropic's clients do."""
    assert events[0]["type"] == "message_start"
    assert events[-1] == {"type": "message_stop"}
    message = events[0]["message"]
    arguments: dict[int, str] = {}
    open_blocks: list[int] = []
    for event in events[1:-1]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            assert not open_blocks
            message["content"].append(event["content_block"])
            arguments[event["index"]] = ""
            open_blocks.append(event["index"])
        elif event["type"] == "content_block_stop":
            assert open_blocks.pop() == event["index"]
        elif event["type"] == "content_block_delta":
            assert open_blocks == [event["index"]]
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "input_json_delta":
                arguments[event["index"]] += delta["partial_json"]
            else:
                name = delta["type"].removesuffix("_delta")
                block[name] += delta[name]
        else:
            assert event["type"] == "message_delta"
            message |= event["delta"]
            message["usage"] |= event["usage"]
    assert not open_blocks
    for index, block in enumerate(message["content"]):
        if block["type"] == "tool_use":
            block["input"] = json.loads(arguments[index] or "{}")
    return message


@pytest.mark.parametrize("omits", [False, True])
def test_messages(omits: bool) -> None:
    for seed in _SEEDS:
        events = random_events(seed)
        answer = _messages(omits=omits)
        whole = _whole(answer, events)
        joined = _join_message(_named_events(_streamed(answer.pieces, events)))
        assert joined == whole, seed
        said = "".join(one["text"] for one in whole["content"] if one["type"] == "text")
        assert said == "".join(event.text for event in events if isinstance(event, Text))


def _join_response(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items that the deltas of a stream come to, each as its own last event says."""
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items: list[dict[str, Any]] = []
    text = ""
    for event in events[2:-1]:
        kind = event["type"].removeprefix("response.")
        assert event["output_index"] == len(items) - (kind != "output_item.added")
        if kind == "output_item.added":
            items.append(event["item"])
            text = ""
        elif kind == "output_item.done":
            assert event["item"]["id"] == items[-1]["id"]
            items[-1] = event["item"]
        elif kind.endswith(".delta"):
            assert event["item_id"] == items[-1]["id"]
            text += event["delta"]
        elif kind.endswith(("text.done", "arguments.done", "input.done")):
            whole = [event[name] for name in ("text", "arguments", "input") if name in event]
            assert whole == [text]
    return items


@pytest.mark.parametrize("changes", [{}, {"summarises": True, "seals": True}])
def test_responses(changes: dict[str, Any]) -> None:
    for seed in _SEEDS:
        events = random_events(seed)
        whole = _whole(_responses(**changes), events)
        answer = _responses(**changes)
        heard = _named_events(_streamed(answer.pieces, events))
        joined, last = _join_response(heard), heard[-1]["response"]
        assert joined == last["output"], seed
        assert heard[-1]["type"] == f"response.{last['status']}"

        def nameless(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{**item, "id": ""} for item in output]

        assert nameless(joined) == nameless(whole["output"]), seed
        assert last | {"id": "", "output": []} == whole | {"id": "", "output": []}


def _told(answer: ResponseAnswer, events: list[Event]) -> dict[str, Any]:
    """The one item of an answer, which its events and its end tell alike."""
    heard = _named_events(_streamed(answer.pieces, events))
    (item,) = _join_response(heard)
    assert heard[-1]["response"]["output"] == [item]
    return item


@pytest.mark.parametrize("home", [{}, {"namespace": "files"}])
def test_the_input_of_a_custom_tool_is_what_it_was_called_with(home: dict[str, str]) -> None:
    events = [
        CallBegun(0, 0, "call_1", "files__patch"),
        CallArguments(0, 0, '{"input": "*** Begin'),
        CallArguments(0, 0, ' \\"Patch\\"\\n"}'),
        end("tool_calls"),
    ]
    answer = _responses(origins={"files__patch": Origin(name="patch", custom=True, **home)})
    item = _told(answer, events)
    assert item == {"id": item["id"], "type": "custom_tool_call", "call_id": "call_1",
                    "name": "patch", "input": '*** Begin "Patch"\n', **home}  # fmt: skip


def test_a_call_is_told_by_the_clients_names() -> None:
    events = [
        CallBegun(0, 0, "call_1", "mcp__files__read"),
        CallArguments(0, 0, '{"path": "a"}'),
        end("tool_calls"),
    ]
    answer = _responses(origins={"mcp__files__read": Origin(name="read", namespace="mcp__files")})
    item = _told(answer, events)
    assert item == {"id": item["id"], "type": "function_call", "status": "completed",
                    "call_id": "call_1", "name": "read", "namespace": "mcp__files",
                    "arguments": '{"path": "a"}'}  # fmt: skip


def _join_lines(content: bytes, name: str) -> dict[str, Any]:
    """As Ollama's clients do, some of whom break lines wherever Unicode lets them."""
    lines = [json.loads(line) for line in content.decode().splitlines()]
    assert all(not line["done"] for line in lines[:-1])
    joined: dict[str, Any] = {"text": "", "thinking": "", "calls": []}
    for line in lines:
        said = line.get("message", line)
        joined["text"] += said[name]
        joined["thinking"] += said.get("thinking", "")
        joined["calls"] += said.get("tool_calls", [])
    last = lines[-1]
    return joined | {key: last[key] for key in last if key not in ("message", name, "tool_calls")}


@pytest.mark.parametrize(("chats", "name"), [(True, "content"), (False, "response")])
def test_ollama(chats: bool, name: str) -> None:
    for seed in _SEEDS:
        events = random_events(seed)
        answer = _ollama(chats=chats)
        whole = json.dumps(_whole(answer, events)).encode()
        streamed = _streamed(answer.lines, events)
        one, other = _join_lines(whole, name), _join_lines(streamed, name)
        for joined in (one, other):
            del joined["created_at"]
        assert one == other, seed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("{", {}),
        ('{"a": 1, "b": [2', {"a": 1}),
        ('{"a": 1, "b": 23', {"a": 1}),
        ('{"a" : {"b": "}"} , "c": "x', {"a": {"b": "}"}}),
        ("[1]", {}),
        ("nonsense", {}),
        ("[" * 5000, {}),
        ('{"a": ' + "[" * 5000, {}),
    ],
)
def test_arguments_that_were_cut_off_keep_what_is_whole(text: str, expected: Any) -> None:
    events = [CallBegun(0, 0, "call_1", "f"), CallArguments(0, 0, text), end("length")]
    assert _whole(_messages(), events)["content"][0]["input"] == expected
    called = _whole(_ollama(), events)["message"]["tool_calls"][0]
    assert called["function"]["arguments"] == expected


@pytest.mark.parametrize(
    ("reason", "stop", "anthropics", "openais", "ollamas"),
    [
        ("stop", None, "end_turn", "completed", "stop"),
        ("stop", "END", "stop_sequence", "completed", "stop"),
        ("length", None, "max_tokens", "incomplete", "length"),
        ("tool_calls", None, "tool_use", "completed", "stop"),
    ],
)
def test_why_an_answer_ended(
    reason: Any, stop: str | None, anthropics: str, openais: str, ollamas: str
) -> None:
    events = [Text(0, "Hi"), end(reason, stop=stop)]
    message = _whole(_messages(), events)
    assert (message["stop_reason"], message["stop_sequence"]) == (anthropics, stop)
    assert _whole(_responses(), events)["status"] == openais
    assert _whole(_ollama(), events)["done_reason"] == ollamas


def test_the_end_of_the_context_is_no_limit_of_the_clients() -> None:
    served = served_by(lambda request, tokenizer: Script(tokens=()), context=17)
    answer = MessageAnswer(MessagesRequest(ask=ask(), streams=True, omits=False), served)
    whole = _whole(answer, [Text(0, "Hi"), end("length")])
    assert whole["stop_reason"] == "model_context_window_exceeded"


def test_tokens_are_counted_as_each_protocol_counts_them() -> None:
    events = [Thought(0, "Hm."), Text(0, "Hi"), end()]
    assert _whole(_messages(), events)["usage"] == {
        "input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
        "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 2},
    }  # fmt: skip
    assert _whole(_responses(), events)["usage"] == {
        "input_tokens": 10, "output_tokens": 7, "total_tokens": 17,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    last = _whole(_ollama(), events)
    assert (last["prompt_eval_count"], last["eval_count"]) == (10, 7)
    durations = [last[f"{name}_duration"] for name in ("total", "prompt_eval", "eval")]
    assert durations == [7_000_000_000, 2_000_000_000, 4_000_000_000]


@pytest.mark.parametrize("reason", ["error", "cancelled"])
def test_an_answer_that_did_not_end_well_is_no_answer(reason: Any) -> None:
    events = [Text(0, "Hi"), end(reason, error="not finite")]
    for answer in (_messages(), _responses(), _ollama()):
        with pytest.raises(ApiError, match="finite" if reason == "error" else "cancelled"):
            _whole(answer, events)
    for pieces in (_messages().pieces, _responses().pieces, _ollama().lines):
        with pytest.raises(ApiError):
            _streamed(pieces, events)


def test_a_response_that_fails_says_so_in_its_last_event() -> None:
    answer = _responses()
    with pytest.raises(ApiError):
        _streamed(answer.pieces, [Text(0, "Hi"), end("error", error="not finite")])
    last = _named_events(answer.failure(ApiError(500, "not finite")))[0]
    assert (last["type"], last["sequence_number"]) == ("response.failed", 8)
    assert last["response"]["error"] == {"code": "server_error", "message": "not finite"}
    assert last["response"]["output"][0]["content"][0]["text"] == "Hi"
