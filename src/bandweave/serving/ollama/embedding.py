"""``/api/embed`` and the older ``/api/embeddings``: the fields of a request, and its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import bad, too_long
from bandweave.serving.fields import Fields
from bandweave.serving.ollama.answer import nanoseconds
from bandweave.serving.ollama.options import read_options
from bandweave.serving.ollama.request import check_model
from bandweave.serving.vectors import MOST_TEXTS, unit_vectors, vector_ask


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """``asks``: one for each text, none where nothing is asked, as clients do that want the model
    loaded. ``older``: of a single text, by the address that was there first."""

    asks: tuple[Ask, ...]
    older: bool


async def read_embed(
    fields: Fields, served: Served, key: str, weight: float, *, older: bool
) -> EmbedRequest:
    """``ApiError`` for what cannot be asked."""
    check_model(fields, served)
    read_options(fields, served)
    fields.refuse("dimensions", 0, why="this model's embeddings have one length")
    cut = not older and fields.flag("truncate")
    name = "prompt" if older else "input"
    texts = _texts(fields, name, several=not older)
    asks = []
    for tokens in await asyncio.to_thread(_encode, texts, served):
        if len(tokens) >= served.context:
            if not cut:
                raise too_long(len(tokens), served.context, name)
            tokens = tokens[: served.context - 1]
        asks.append(vector_ask(tokens, key=key, weight=weight))
    return EmbedRequest(asks=tuple(asks), older=older)


async def read_vectors(
    request: EmbedRequest, streams: Sequence[AnswerStream], served: Served
) -> dict[str, Any]:
    """The object of the answer."""
    begun = time.monotonic()
    vectors = [vector.tolist() for vector in await unit_vectors(streams)]
    if request.older:
        return {"embedding": vectors[0] if vectors else []}
    return {
        "model": served.name,
        "embeddings": vectors,
        "total_duration": nanoseconds(time.monotonic() - begun),
        "load_duration": 0,  # it was loaded when the server began
        "prompt_eval_count": sum(len(stream.ask.tokens) for stream in streams),
    }


def _texts(fields: Fields, name: str, *, several: bool) -> list[str]:
    value = fields.any(name)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    wanted = "a string or a list of strings" if several else "a string"
    if not several or not isinstance(value, list):
        raise bad(f"{name} must be {wanted}", name)
    texts = fields.list(name, most=MOST_TEXTS)
    for text in texts:
        if not isinstance(text, str) or not text:
            raise bad(f"{name} must be {wanted}, none empty", name)
    return list(texts)


def _encode(texts: Sequence[str], served: Served) -> list[tuple[int, ...]]:
    return [tuple(served.tokenizer.encode(text)) for text in texts]
