"""Models that think and call tools, as far as text goes: templates and vocabularies, no weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from bandweave.serving.answers.syntaxes import find_syntax
from bandweave.text.byte_alphabet import byte_alphabet
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.codec import LibraryCodec
from bandweave.text.tokenizer import Tokenizer
from tests.helpers.scripted_engine import Script
from tests.helpers.server import ServerThread, served_by

#: Thinks unless it is told not to, and writes calls as Qwen's models do.
THINKER = """
{%- if tools %}<|user|>tools: {{ tools | tojson }} in <tool_call></tool_call><|end|>{% endif %}
{%- for m in messages %}
    {%- if m.role == 'refused' or '!refuse' in m.content %}
        {{- raise_exception('the roles are in no order') }}
    {%- endif %}
    {{- '<|user|>' + m.role + ': ' }}
    {%- if m.reasoning_content %}{{- '<think>' + m.reasoning_content + '</think>' }}{%- endif %}
    {{- m.content }}
    {%- for call in m.tool_calls or [] %}
        {{- '<tool_call>' + call.function.name }}
        {%- for key, value in call.function.arguments.items() %}{{- ' ' + key }}{%- endfor %}
        {{- '</tool_call>' }}
    {%- endfor %}
    {{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think></think>' }}{%- endif %}
{%- endif %}"""

#: Opens thoughts in every prompt, and knows no switch and no tools.
ALWAYS = """
{%- for m in messages %}<|user|>{{ m.role }}: {{ m.content }}<|end|>{%- endfor %}
{%- if add_generation_prompt %}<|assistant|><think>{{ '\\n' }}{%- endif %}{# </think> #}"""

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}


class ChatServer(ServerThread):
    """A server of the demo model's text with another template. It says what ``says`` is set to."""

    def __init__(self, template: str, **changes: Any) -> None:
        self.says: str | list[str] = "Hello"
        self.script: dict[str, Any] = {}
        made = ChatTemplate(template)
        super().__init__(served_by(self._play, template=made, syntax=find_syntax(made), **changes))

    def _play(self, request: Any, tokenizer: Tokenizer) -> Script:
        said = self.says[request.choice] if isinstance(self.says, list) else self.says
        tokens = [*tokenizer.encode(said, special_tokens=False), *tokenizer.eos_token_ids]
        return Script(tokens=tokens, **self.script)

    def chat(self, **body: Any) -> tuple[int, dict[str, Any]]:
        """Status and object of an answer that is not streamed."""
        full = {"messages": [{"role": "user", "content": "Hi"}], **body}
        status, _, content = self.post("/v1/chat/completions", full)
        return status, json.loads(content)

    def said(self, **body: Any) -> dict[str, Any]:
        """The first choice of an answer."""
        status, found = self.chat(**body)
        assert status == 200, found
        return found["choices"][0]

    def refused(self, **body: Any) -> dict[str, Any]:
        """Why nothing is answered: the request is at fault."""
        status, found = self.chat(**body)
        assert status == 400, found
        return found["error"]

    def chunks(self, **body: Any) -> list[dict[str, Any]]:
        """What a stream consists of."""
        full = {"messages": [{"role": "user", "content": "Hi"}], **body, "stream": True}
        status, _, content = self.post("/v1/chat/completions", full)
        assert status == 200, content
        lines = [line for line in content.decode().split("\n\n") if line.startswith("data: ")]
        assert lines.pop() == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def streamed(self, **body: Any) -> dict[str, Any]:
        """The first choice of a streamed answer, joined as clients do."""
        return joined(self.chunks(**body))

    @property
    def prompt(self) -> str:
        """Of the last request."""
        tokens = self.engine.requests[-1].tokens
        return self.tokenizer.decode(tokens, skip_special_tokens=False)

    @property
    def tokenizer(self) -> Tokenizer:
        return served_by(lambda request, tokenizer: Script(tokens=())).tokenizer


def joined(chunks: Sequence[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """One choice of a stream, in the shape of an answer that is not streamed."""
    message: dict[str, Any] = {"role": None, "content": None, "refusal": None}
    calls: list[dict[str, Any]] = []
    content: list[Any] = []
    reasons: list[str] = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            message["role"] = message["role"] or delta.get("role")
            for name in ("content", "reasoning_content", "reasoning"):
                if delta.get(name):
                    message[name] = (message.get(name) or "") + delta[name]
            for piece in delta.get("tool_calls", ()):
                if piece["index"] == len(calls):
                    assert piece["id"] and piece["function"]["name"]
                    calls.append({"id": piece["id"], "type": piece["type"],
                                  "function": dict(piece["function"])})  # fmt: skip
                else:
                    assert "name" not in piece["function"]
                    calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
            if choice["logprobs"]:
                content += choice["logprobs"]["content"]
            if choice["finish_reason"]:
                assert delta == {}
                reasons.append(choice["finish_reason"])
    assert len(reasons) == 1
    if calls:
        message["tool_calls"] = calls
    elif message["content"] is None:
        message["content"] = ""
    logprobs = {"content": content, "refusal": None} if content else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reasons[0]}


def without_ids(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice whose calls' ids, which are new each time, are left out."""
    calls = choice["message"].get("tool_calls", ())
    assert all(len(call["id"]) >= 9 for call in calls)
    assert len({call["id"] for call in calls}) == len(calls)
    made = [{**call, "id": ""} for call in calls]
    return {**choice, "message": {**choice["message"], **({"tool_calls": made} if made else {})}}


def byte_tokenizer(special: Sequence[str], *, ends: Sequence[str] = ("<|stop|>",)) -> Tokenizer:
    """A token for every byte, and ``special`` ones and ``ends`` that are never shown."""
    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
    library = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(name, special=True) for name in (*special, *ends)])
    found = [token for name in ends if (token := library.token_to_id(name)) is not None]
    return Tokenizer(LibraryCodec(library), eos_token_ids=found)
