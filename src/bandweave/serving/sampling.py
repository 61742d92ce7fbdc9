"""How OpenAI's fields, and those of other servers that people send, choose tokens."""

from __future__ import annotations

import secrets
from typing import Any

from bandweave.generation.sampling import SamplingParams
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import bad
from bandweave.serving.fields import Fields
from bandweave.shown import shown

_MOST_TOKENS = (1 << 31) - 1
_MOST_STOPS, _MOST_STOP = 16, 1024
_LONGEST_ID = 10  # digits


def read_sampling(
    fields: Fields, served: Served, *, limit: int | None, stop: str = "stop"
) -> SamplingParams:
    """``limit``: tokens of the answer, None for as many as the context holds."""
    own = served.defaults
    tokens, biases = _biases(fields, served)
    penalty = "repeat_penalty" if fields.has("repeat_penalty") else "repetition_penalty"
    temperature = fields.number("temperature", own.temperature, 0.0, 100.0)
    top_k = fields.integer("top_k", own.top_k, -1, _MOST_TOKENS)
    top_p = fields.number("top_p", own.top_p, 0.0, 1.0)
    return SamplingParams(
        temperature=0.0 if temperature < 1e-8 else temperature,
        top_k=max(0, top_k),
        top_p=top_p or 1e-9,  # the most likely token alone
        min_p=fields.number("min_p", own.min_p, 0.0, 1.0),
        repetition_penalty=fields.number(penalty, own.repetition_penalty, 1e-4, 1e4),
        frequency_penalty=fields.number("frequency_penalty", 0.0, -2.0, 2.0),
        presence_penalty=fields.number("presence_penalty", 0.0, -2.0, 2.0),
        seed=read_seed(fields),
        max_tokens=limit,
        stop=read_stops(fields, stop),
        biased=tokens,
        biases=biases,
    )


def is_endless(fields: Fields, name: str) -> bool:
    """Whether a limit of tokens is -1: none, as clients of LM Studio and llama-server have it."""
    return fields.has(name) and fields.integer(name, None) == -1


def read_seed(fields: Fields) -> int:
    """Any 64-bit number; a new one where none is given, so that two answers differ."""
    if not fields.has("seed"):
        return secrets.randbits(63)
    seed = fields.integer("seed", None)
    return seed % (1 << 64)


def read_stops(fields: Fields, name: str) -> tuple[str, ...]:
    """One text or several."""
    value: Any = fields.any(name)
    texts = () if value is None else (value,) if isinstance(value, str) else fields.list(name)
    if len(texts) > _MOST_STOPS:
        raise bad(f"{fields.name(name)} has {len(texts)} texts; there may be {_MOST_STOPS}",
                  fields.name(name))  # fmt: skip
    for text in texts:
        if not isinstance(text, str) or len(text) > _MOST_STOP:
            raise bad(f"{fields.name(name)} must be strings of at most {_MOST_STOP} characters, "
                      f"not {shown(text)}", fields.name(name))  # fmt: skip
    return tuple(text for text in texts if text)


def _biases(fields: Fields, served: Served) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """A bias for each token, by its id as text; -100 rules it out, as clients mean it."""
    given = fields.object("logit_bias")
    if given is None:
        return (), ()
    found: dict[int, float] = {}
    for key in given.values:
        known = key.isascii() and key.isdigit() and len(key) <= _LONGEST_ID
        if not known or int(key) >= served.vocab_size:
            raise bad(f"logit_bias: {shown(key)} is no token id; ids are from 0 to "
                      f"{served.vocab_size - 1}", "logit_bias")  # fmt: skip
        bias = given.number(key, None, -100.0, 100.0)
        found[int(key)] = -1e4 if bias == -100 else bias
    return tuple(found), tuple(found.values())
