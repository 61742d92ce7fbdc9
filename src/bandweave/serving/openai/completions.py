"""``/v1/completions``: the request's fields. Its answers: ``completion_answer``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.serving.answers.ask import Ask
from bandweave.serving.answers.conversation import hold
from bandweave.serving.answers.grammars import Wanted
from bandweave.serving.answers.served import Served
from bandweave.serving.answers.syntax import PLAIN
from bandweave.serving.errors import bad, too_long, unsupported
from bandweave.serving.fields import Fields
from bandweave.serving.openai.foreign import read_salt, refuse_foreign
from bandweave.serving.openai.forms import read_form
from bandweave.serving.openai.streaming import read_streaming
from bandweave.serving.sampling import is_endless, read_sampling
from bandweave.shown import shown
from bandweave.text.files import TextError

_MOST_ANSWERS = 256  # to all prompts of a request
_MOST_LOGPROBS = 5
_TOKENS = 16  # of an answer, where nobody says how many; so has OpenAI
_MOST_TOKENS = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A request that can be asked. ``prompts``: their texts, where they are to be ``echoed``.
    ``wanted``: whether any token of an answer is, or the prompts are only scored."""

    asks: tuple[Ask, ...]
    prompts: tuple[str, ...]
    echoes: bool
    wanted: bool
    logprobs: int | None
    streams: bool
    tells_usage: bool


async def read_completion(
    fields: Fields, served: Served, key: str, weight: float
) -> CompletionRequest:
    """``ApiError`` for what cannot be asked."""
    served.check_name(fields.text("model", served.name))
    choices = fields.integer("n", 1, 1, _MOST_ANSWERS)
    _refuse(fields, choices)
    streams, tells_usage = read_streaming(fields)
    echoes = fields.flag("echo")
    logprobs = None
    if fields.has("logprobs"):
        logprobs = fields.integer("logprobs", None, 0, _MOST_LOGPROBS)
    if streams and echoes and logprobs is not None:
        raise bad("a prompt's logprobs cannot be streamed; set stream or echo to false", "logprobs")
    limit = None
    if not is_endless(fields, "max_tokens"):
        limit = fields.integer("max_tokens", _TOKENS, 0, _MOST_TOKENS)
    params = read_sampling(fields, served, limit=None if limit is None else max(1, limit))
    prompts = await read_prompts(fields, served, "prompt", most=_MOST_ANSWERS, choices=choices)
    form, grammar = read_form(fields), ""
    if form is not None:
        grammar = await hold(served, Wanted(form=form, tools={}), PLAIN)
    asks = tuple(
        Ask(
            tokens=tokens,
            params=params,
            choices=choices,
            logprobs=logprobs,
            scored=echoes and logprobs is not None,
            grammar=grammar,
            goes_on=True,
            key=key,
            weight=weight,
            reuse=fields.flag("cache_prompt", True),
            salt=read_salt(fields),
            ignores_end=fields.flag("ignore_eos"),
        )
        for _, tokens in prompts
    )
    return CompletionRequest(
        asks=asks,
        prompts=tuple(text for text, _ in prompts),
        echoes=echoes,
        wanted=limit != 0,
        logprobs=logprobs,
        streams=streams,
        tells_usage=tells_usage,
    )


def _refuse(fields: Fields, choices: int) -> None:
    if fields.has("best_of") and fields.integer("best_of", None) != choices:
        raise unsupported("best_of", "set it to n, or leave it out")
    fields.refuse("suffix", "", why="this server only goes on behind a prompt")
    refuse_foreign(fields)


async def read_prompts(
    fields: Fields, served: Served, name: str, *, most: int, choices: int = 1
) -> list[tuple[str, tuple[int, ...]]]:
    """The text and the tokens of each: a text, token ids, or a list of either. At most ``most``,
    with so many ``choices`` each."""
    value = fields.any(name)
    if value is None:
        raise bad(f"{name} is missing", name)
    several = isinstance(value, list) and not (value and _is_id(value[0]))
    given: Sequence[Any] = value if several else [value]
    if not given:
        raise bad(f"{name} is empty; give a text or token ids", name)
    if len(given) * choices > most:
        raise bad(f"{name} asks for {len(given) * choices} answers; there may be {most} in a "
                  "request", name)  # fmt: skip
    special = fields.flag("add_special_tokens", True)
    prompts = await asyncio.to_thread(_encode, given, served, special, name)
    for _, tokens in prompts:
        if not tokens:
            raise bad(f"{name} is empty; give a text or token ids", name)
        if len(tokens) >= served.context:
            raise too_long(len(tokens), served.context, name)
    return prompts


def _encode(
    given: Sequence[Any], served: Served, special: bool, name: str
) -> list[tuple[str, tuple[int, ...]]]:
    prompts = []
    for one in given:
        if isinstance(one, str):
            try:
                encoded = served.tokenizer.encode(one, special_tokens=special)
            except TextError as error:
                raise bad(str(error), name) from error
            prompts.append((one, tuple(encoded)))
        else:
            tokens = read_ids(one, served, name)
            prompts.append((served.tokenizer.decode(tokens), tokens))
    return prompts


def read_ids(value: Any, served: Served, name: str) -> tuple[int, ...]:
    """Token ids of the model's."""
    if not isinstance(value, list):
        raise bad(f"{name} must be a text, token ids, or a list of either, not {shown(value)}",
                  name)  # fmt: skip
    for token in value:
        if not _is_id(token) or not 0 <= token < served.vocab_size:
            raise bad(f"{name} has {shown(token)}, which is no token id; ids are from 0 to "
                      f"{served.vocab_size - 1}", name)  # fmt: skip
    return tuple(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
