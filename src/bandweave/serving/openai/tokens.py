"""Text to tokens and back, as llama-server and vLLM have it, each by its own names."""

from __future__ import annotations

import asyncio
from typing import Any

from bandweave.serving.answers.conversation import prepare
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import bad
from bandweave.serving.fields import Fields
from bandweave.serving.openai.completions import read_ids
from bandweave.serving.openai.messages import read_conversation
from bandweave.text.files import TextError


async def tokenize(fields: Fields, served: Served) -> dict[str, Any]:
    """Of ``content`` (llama-server), or of ``prompt`` or ``messages`` (vLLM)."""
    fields.refuse("parse_special", True, why="names of special tokens always are those tokens")
    if fields.has("messages"):
        fields.refuse("add_generation_prompt", True)
        fields.refuse("add_special_tokens", False)
        tokens = list((await prepare(served, read_conversation(fields))).tokens)
    else:
        is_content = fields.has("content")
        text = fields.text("content" if is_content else "prompt")
        special = fields.flag("add_special" if is_content else "add_special_tokens", not is_content)
        try:
            tokens = await asyncio.to_thread(served.tokenizer.encode, text, special_tokens=special)
        except TextError as error:
            raise bad(str(error), "content" if is_content else "prompt") from error
    answer: dict[str, Any] = {
        "count": len(tokens),
        "max_model_len": served.context,
        "tokens": tokens,
    }
    if fields.flag("with_pieces"):
        answer["tokens"] = [{"id": token, "piece": _piece(served, token)} for token in tokens]
    if fields.flag("return_token_strs"):
        answer["token_strs"] = [served.tokenizer.id_to_token(token) or "" for token in tokens]
    return answer


async def detokenize(fields: Fields, served: Served) -> dict[str, Any]:
    tokens = read_ids(fields.list("tokens"), served, "tokens")
    text = await asyncio.to_thread(served.tokenizer.decode, tokens)
    return {"content": text, "prompt": text}


def _piece(served: Served, token: int) -> str | list[int]:
    """A text, or the bytes of a part of a character."""
    content = served.tokenizer.text_bytes(token)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return list(content)
