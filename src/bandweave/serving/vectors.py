"""Vectors: embeddings of texts, of length one, from the answers of an engine. Knows no protocol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bandweave.generation.sampling import SamplingParams
from bandweave.serving.answers.answering import AnswerStream
from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.events import End
from bandweave.serving.errors import failed

MOST_TEXTS = 2048  # of a request

_PARAMS = SamplingParams(temperature=0.0, max_tokens=1)  # one, which nobody hears of


def vector_ask(tokens: tuple[int, ...], *, key: str, weight: float, salt: str = "") -> Ask:
    """For the embedding of a text; the rest as in ``Ask``."""
    return Ask(tokens=tokens, params=_PARAMS, embeds=True, key=key, weight=weight, salt=salt)


async def unit_vectors(streams: Sequence[AnswerStream]) -> list[np.ndarray]:
    """Little-endian float32, as base64 is read by clients. ``ApiError`` where the model's numbers
    are not finite."""
    return [_unit(await _end_of(stream)) for stream in streams]


async def _end_of(stream: AnswerStream) -> End:
    end: End | None = None
    async with stream:
        async for event in stream:
            if isinstance(event, End):
                end = event
    if end is None or not end.embedding:
        raise failed("the model's numbers are not finite for this text")
    return end


def _unit(end: End) -> np.ndarray:
    vector = np.array(end.embedding, np.float64)
    length = float(np.sqrt(np.square(vector).sum()))
    return (vector / length if length else vector).astype("<f4")
