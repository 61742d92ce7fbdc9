"""Log-probabilities in the shape of chats; ``completions`` has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bandweave.serving.answers.events import TokenInfo
from bandweave.serving.answers.served import Served


def chat_logprobs(tokens: Sequence[TokenInfo], served: Served) -> dict[str, Any]:
    return {"content": [_entry(one, served) for one in tokens if one.logprobs], "refusal": None}


def _entry(one: TokenInfo, served: Served) -> dict[str, Any]:
    assert one.logprobs is not None
    found = one.logprobs
    top = [
        _named(served.tokenizer.text_bytes(token), logprob)
        for token, logprob in zip(found.ids, found.logprobs, strict=True)
    ]
    return {**_named(one.text, found.logprob), "top_logprobs": top}


def _named(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(text)}
