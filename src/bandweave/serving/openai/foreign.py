"""Fields of other servers that people send to OpenAI's endpoints and that this server lacks."""

from __future__ import annotations

from typing import Any

from bandweave.serving.errors import bad
from bandweave.serving.fields import Fields

_LONGEST_SALT = 1024
# What each may say all the same, for it is so anyway.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    # of vLLM
    "min_tokens": (0,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True, False),
    "truncate_prompt_tokens": (),
    "prompt_logprobs": (),
    "prompt_embeds": (),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "logits_processors": ([],),
    "priority": (0,),
    "kv_transfer_params": (),
    # of llama-server
    "n_predict": (),
    "n_keep": (0,),
    "n_probs": (0,),
    "n_indent": (0,),
    "typical_p": (1,),
    "top_n_sigma": (-1, 0),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "mirostat": (0,),
    "repeat_last_n": (-1,),
    "samplers": (),
    "t_max_predict_ms": (0, -1),
    "image_data": ([],),
    "id_slot": (-1,),
    "lora": ([],),
    "return_tokens": (False,),
    "timings_per_token": (False,),
    "return_progress": (False,),
    "post_sampling_probs": (False,),
    "response_fields": ([],),
}


def read_salt(fields: Fields) -> str:
    """vLLM's ``cache_salt``: what is computed for a prompt is used by requests that have the same
    alone. Empty where a request has none."""
    salt = fields.text("cache_salt", "")
    if fields.has("cache_salt") and not 1 <= len(salt) <= _LONGEST_SALT:
        raise bad(f"cache_salt has {len(salt)} characters; it may have 1 to {_LONGEST_SALT}",
                  "cache_salt")  # fmt: skip
    return salt


def refuse_foreign(fields: Fields) -> None:
    """``ApiError`` for what cannot be done as it was asked."""
    for name, neutral in _NEUTRAL.items():
        fields.refuse(name, *neutral)
