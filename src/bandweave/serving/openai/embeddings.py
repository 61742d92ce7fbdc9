"""``/v1/embeddings``: what the model's head would read at the end of a text, of length one.

The models here were trained to write. Those that were trained to embed as well, such as the ones
called Embedding, are meant to be read in this way; of others it says what a text is about.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.served import Served
from bandweave.serving.fields import Fields
from bandweave.serving.openai.completions import read_prompts
from bandweave.serving.openai.foreign import read_salt
from bandweave.serving.vectors import MOST_TEXTS, unit_vectors, vector_ask


async def read_embeddings(
    fields: Fields, served: Served, key: str, weight: float
) -> tuple[list[Ask], bool]:
    """An ask for each text, and whether floats are to be sent as base64. ``ApiError`` for what
    cannot be asked."""
    served.check_name(fields.text("model", served.name))
    fields.refuse("dimensions", why="this model's embeddings have one length")
    packed = fields.one_of("encoding_format", ("float", "base64"), "float") == "base64"
    salt = read_salt(fields)
    asks = [
        vector_ask(tokens, key=key, weight=weight, salt=salt)
        for _, tokens in await read_prompts(fields, served, "input", most=MOST_TEXTS)
    ]
    return asks, packed


async def read_vectors(
    streams: Sequence[AnswerStream], served: Served, *, packed: bool
) -> dict[str, Any]:
    """The object of the answer."""
    data = []
    for index, vector in enumerate(await unit_vectors(streams)):
        value: Any = base64.b64encode(vector.tobytes()).decode() if packed else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": value})
    count = sum(len(stream.ask.tokens) for stream in streams)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": served.name, "usage": usage}
