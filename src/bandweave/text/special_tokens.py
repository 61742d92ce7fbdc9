"""SpecialTokens: which tokens there are, which end an answer, and which are never text.

The one place that says so, from all the files that transformers reads, as transformers does.
Reference: its ``tokenization_utils_base`` (``_from_pretrained``) and
``tokenization_utils_tokenizers`` (``TokenizersBackend``), version 5.24.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import AddedToken

from bandweave.shown import printable
from bandweave.text.end_tokens import end_token_ids
from bandweave.text.library import is_byte_level, library_errors
from bandweave.text.token_files import FileToken, TokenFiles, read_token_files

_LLAMA, _QWEN2 = "LlamaTokenizer", "Qwen2Tokenizer"

#: Tokens that a class of tokenizers names itself, where no file does.
_CLASS_TOKENS: Mapping[str, Mapping[str, str]] = {
    _LLAMA: {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    _QWEN2: {"unk_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
             "pad_token": "<|endoftext|>"},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """``named``: ``bos_token``, ``eos_token`` and the like, by name, as text. ``ends``: sorted ids
    that end an answer. ``hidden``: ids that are never text: those, and all that any file calls
    special. ``bos``: the id that starts a text, or None."""

    named: Mapping[str, str]
    ends: tuple[int, ...]
    hidden: frozenset[int]
    bos: int | None


def add_special_tokens(
    library: tokenizers.Tokenizer, folder: Path, vocab_size: int | None = None
) -> SpecialTokens:
    """Adds the tokens of a folder's files to its tokenizer, and says which of them are special.

    Tokens that a model of ``vocab_size`` tokens has no row for are not added: their names stay
    plain text. ``TextError`` names the file and the field that is wrong.
    """
    files = read_token_files(folder)
    named = _named(files, library)
    added = _added(files, named, library)
    # What was special once the library never shows, whatever is said later.
    special = _texts(library.get_added_tokens_decoder().values()) | _texts(added)
    with library_errors(f"the tokens that {printable(folder)} names cannot be added"):
        library.add_tokens(_that_fit(added, library, vocab_size))
    ids = {name: library.token_to_id(token.content) for name, token in named.items()}
    ends = end_token_ids(folder, vocab_size, named=ids.get("eos_token"))
    hidden = {library.token_to_id(text) for text in special}
    return SpecialTokens(
        named={name: token.content for name, token in named.items()},
        ends=ends,
        hidden=frozenset(token for token in hidden if token is not None) | {*ends},
        bos=ids.get("bos_token"),
    )


def _named(files: TokenFiles, library: tokenizers.Tokenizer) -> dict[str, FileToken]:
    """The named tokens, with those that the class of the tokenizer names if it has them. A
    byte-level tokenizer is none of Llama's class, whatever its files call it."""
    of_class = not (files.tokenizer_class == _LLAMA and is_byte_level(library))
    defaults = _CLASS_TOKENS.get(files.tokenizer_class, {}) if of_class else {}
    result = {
        name: FileToken(content=text, special=True)
        for name, text in defaults.items()
        if name not in files.named and library.token_to_id(text) is not None
    }
    result.update({name: token for name, token in files.named.items() if token is not None})
    return result


def _added(
    files: TokenFiles, named: Mapping[str, FileToken], library: tokenizers.Tokenizer
) -> list[AddedToken]:
    """What transformers adds, in its order: listed tokens by their ids, which only order them, then
    named and other special ones that are not added yet."""
    own = {number: FileToken.of(token)
           for number, token in library.get_added_tokens_decoder().items()}  # fmt: skip
    listed = files.listed if files.complete else {**files.listed, **own}
    names = {token.content for token in named.values()}
    result = [token.library(special=token.content in names) for _, token in sorted(listed.items())]
    known = {token.content for token in (*own.values(), *listed.values())}
    others = [*named.values(), *files.extra]
    result += [token.library() for token in others if token.content not in known]
    if files.tokenizer_class == _QWEN2:  # which goes over all of them once more
        result += [AddedToken(token.content, special=True) for token in others]
    return result


def _that_fit(
    tokens: list[AddedToken], library: tokenizers.Tokenizer, vocab_size: int | None
) -> list[AddedToken]:
    """The tokens whose ids the model has; the library gives new ones the next free id."""
    if vocab_size is None:
        return tokens
    base = library.get_vocab_size(with_added_tokens=False)
    following = max((base, *(number + 1 for number in library.get_added_tokens_decoder())))
    result: list[AddedToken] = []
    new: set[str] = set()
    for token in tokens:
        if token.content in new or library.token_to_id(token.content) is not None:
            result.append(token)
        elif following < vocab_size:
            result.append(token)
            new.add(token.content)
            following += 1
    return result


def _texts(tokens: Iterable[AddedToken]) -> set[str]:
    return {token.content for token in tokens if token.special}
