"""Ollama's ``options``, and how long a model shall stay."""

from __future__ import annotations

import re

from bandweave.generation.sampling import SamplingParams
from bandweave.serving.answers.served import Served
from bandweave.serving.errors import bad, unsupported
from bandweave.serving.fields import Fields
from bandweave.serving.sampling import read_sampling

_MOST_TOKENS = (1 << 31) - 1
_OF_THE_START = (
    "numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all", "vocab_only",
    "use_mmap", "use_mlock", "embedding_only", "num_thread",
)  # fmt: skip
_NO_TIME = re.compile(r"0+(\.0*)?(ns|us|µs|ms|s|m|h)?")


def read_options(fields: Fields, served: Served) -> SamplingParams:
    """``ApiError`` for what cannot be kept to."""
    _check_stay(fields)
    options = fields.object("options") or Fields({}, "options")
    for name in _OF_THE_START:
        options.refuse(name, why="how the model runs is settled when the server starts")
    if options.has("num_ctx"):
        context = options.integer("num_ctx", None, 1, _MOST_TOKENS)
        if context > served.context:
            raise bad(f"options.num_ctx is {context}, but the context here is {served.context} "
                      "tokens; ask for at most that, or start the server with a larger --context",
                      "options.num_ctx")  # fmt: skip
    options.refuse("mirostat", 0)
    options.refuse("tfs_z", 1)
    options.refuse("typical_p", 1)
    options.refuse("penalize_newline", True)
    limit = options.integer("num_predict", -1, -2, _MOST_TOKENS)
    params = read_sampling(options, served, limit=limit if limit > 0 else None)
    if params.has_penalties and options.has("repeat_last_n"):
        last = options.integer("repeat_last_n", None, -1, _MOST_TOKENS)
        if 0 <= last < served.context:
            raise unsupported("options.repeat_last_n",
                              "penalties are for all tokens so far; give -1")  # fmt: skip
    return params


def _check_stay(fields: Fields) -> None:
    """The model stays as long as the server runs, which is as long as anybody may ask for."""
    stay = fields.any("keep_alive")
    if stay is None:
        return
    none = not stay if isinstance(stay, (int, float)) else _NO_TIME.fullmatch(str(stay).strip())
    if none:
        raise unsupported("keep_alive", "the model stays until the server ends")
