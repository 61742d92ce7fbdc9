"""Which token ids end an answer, by a model's ``generation_config.json`` and ``config.json``.

Knows those two files; knows no tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bandweave.files import is_there
from bandweave.models.registry import default_end_token
from bandweave.shown import printable, shown
from bandweave.text.files import TextError, read_object


def end_token_ids(
    folder: Path, vocab_size: int | None = None, *, named: int | None = None
) -> tuple[int, ...]:
    """The sorted ids of both files, and that of the token that the tokenizer's files name.
    ``TextError`` where one is no id.

    Where nobody says anything, not even null, the default of the model's family, as in
    transformers. Ids outside of the vocabulary (-1 is in use for "none") end nothing.
    """
    result: set[int] = set() if named is None else {named}
    generation, config = folder / "generation_config.json", folder / "config.json"
    contents = {file: read_object(file) for file in (generation, config)}
    for file, content in contents.items():
        result.update(_ids(file, content.get("eos_token_id")))
    if not result and "eos_token_id" not in contents[config] and not is_there(generation):
        default = default_end_token(contents[config])
        result.update(() if default is None else (default,))
    most = 1 << 32 if vocab_size is None else vocab_size
    return tuple(sorted(token for token in result if 0 <= token < most))


def _ids(file: Path, value: Any) -> list[int]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise TextError(
            f"{printable(file)}: eos_token_id is {shown(value)}; it must be a token id or a list "
            "of them"
        )
    return ids
