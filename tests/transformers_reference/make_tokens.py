"""What transformers makes of the folders of ``token_cases``: written, or compared with what is
stored. Needs torch and transformers; ``make`` calls it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import transformers  # pyright: ignore[reportMissingImports]

from tests.transformers_reference import token_cases


def results() -> list[dict[str, Any]]:
    """Every case with its ``result``."""
    transformers.logging.set_verbosity_error()
    found = []
    for case in token_cases.cases():
        with tempfile.TemporaryDirectory() as folder:
            token_cases.write(Path(folder), case)
            found.append({**case, "result": _result(folder)})
    return found


def _result(folder: str) -> dict[str, Any]:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever it is, transformers does not load it
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    added = tokenizer.added_tokens_decoder
    ends = _ends(folder)
    # What bandweave never shows and transformers sometimes does.
    config = transformers.AutoConfig.from_pretrained(folder)
    ends_shown = {*ends, *_listed(tokenizer.eos_token_id), *_listed(config.eos_token_id)}
    return {
        "class": type(tokenizer).__name__,
        "added": {str(number): token.content for number, token in sorted(added.items())},
        "named": tokenizer.special_tokens_map,
        "eos": tokenizer.eos_token_id,
        "bos": tokenizer.bos_token_id,
        "ends": ends,
        "encoded": [tokenizer.encode(text, add_special_tokens=False)
                    for text in token_cases.ENCODED],
        "decoded": [
            tokenizer.decode([one for one in ids if one not in ends_shown],
                             skip_special_tokens=True)
            for ids in token_cases.DECODED
        ],
    }  # fmt: skip


def _ends(folder: str) -> list[int]:
    """The ids at which ``generate`` stops."""
    try:
        config = transformers.GenerationConfig.from_pretrained(folder)
    except OSError:
        model_config = transformers.AutoConfig.from_pretrained(folder)
        config = transformers.GenerationConfig.from_model_config(model_config)
    return _listed(config.eos_token_id)


def _listed(ends: int | list[int] | None) -> list[int]:
    return [] if ends is None else ends if isinstance(ends, list) else [ends]


def write() -> None:
    text = ",\n".join(json.dumps(one, separators=(",", ":")) for one in results())
    token_cases.STORED.write_text(f"[{text}]\n")


def problem() -> str | None:
    """What is stale about the stored results, or None."""
    return None if results() == token_cases.stored() else "tokens.json has other results"
