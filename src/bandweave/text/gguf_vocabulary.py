"""GgufVocabulary: what the metadata of a GGUF file says of its tokenizer, every field checked.

The keys are those of ``tokenizer.ggml.*`` in the GGUF specification (``gguf-py/gguf/constants.py``
of llama.cpp). Knows what the file says, not what becomes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.shown import shown
from bandweave.text.files import TextError

_PREFIX = "tokenizer.ggml."
PIECES, BYTE_PAIRS, RAW_PAIRS = "llama", "gpt2", "gemma4"
KINDS = (PIECES, BYTE_PAIRS, RAW_PAIRS)
"""SentencePiece's pieces by score; pairs of byte-level BPE; pairs of characters."""

UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(7)
"""The types of tokens."""

IDS = ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask",
       "fim_pad", "fim_rep", "fim_sep")  # fmt: skip
"""Tokens that keys name by id, in the spelling of the keys."""

_MUST_EXIST = ("bos", "eos", "eot", "eom")
_AGAIN = "download it again, or convert the model again"


@dataclass(frozen=True, kw_only=True)
class GgufVocabulary:
    """``tokens``: by id; bytes that are no UTF-8 are lone surrogates (``surrogateescape``).
    ``types``: one of each token. ``scores``: of ``PIECES`` only, else empty. ``merges``: the best
    first, of the other kinds only. ``pre``: the pre-tokenizer's name, None where the file has none.
    ``named``: ids of ``IDS`` that the file gives. ``add_bos`` and the like: None where the file
    does not say."""

    where: str
    kind: str
    tokens: Sequence[str]
    ids: Mapping[str, int]
    types: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[tuple[str, str]]
    pre: str | None
    named: Mapping[str, int]
    add_bos: bool | None
    add_eos: bool | None
    add_space_prefix: bool | None
    strips_behind_special: bool

    @classmethod
    def read(
        cls, metadata: Mapping[str, Any], *, vocab_size: int | None, where: str
    ) -> GgufVocabulary:
        """``metadata``: of the file, arrays in full. ``vocab_size``: the rows of the model's
        embeddings. ``TextError`` names the file and the field that is wrong."""
        fields = _Fields(metadata, where)
        kind = _kind(fields)
        tokens = fields.texts("tokens")
        tokens = [text or f"[EMPTY_{number}]" for number, text in enumerate(tokens)]
        if not tokens:
            raise fields.wrong("tokens", "has no tokens", "")
        if vocab_size is not None and len(tokens) > vocab_size:
            raise TextError(
                f"{where} has {len(tokens)} tokens, but its model has only {vocab_size}; {_AGAIN}"
            )
        ids = dict(zip(tokens, range(len(tokens)), strict=True))
        if len(ids) < len(tokens):
            twice = next(text for number, text in enumerate(tokens) if ids[text] != number)
            raise fields.wrong("tokens", "has a token twice", shown(twice))
        return cls(
            where=where,
            kind=kind,
            tokens=tokens,
            ids=ids,
            types=_types(fields, len(tokens)),
            scores=_scores(fields, len(tokens)) if kind == PIECES else (),
            merges=_merges(fields) if kind != PIECES else (),
            pre=fields.text("pre") or None,
            named=_named(fields, len(tokens)),
            add_bos=fields.flag("add_bos_token"),
            add_eos=fields.flag("add_eos_token"),
            add_space_prefix=fields.flag("add_space_prefix"),
            strips_behind_special=kind == PIECES and metadata.get("general.architecture") == "phi3",
        )

    def bytes_of(self, token: int) -> bytes:
        """A token's name as the file has it."""
        return self.tokens[token].encode("utf-8", "surrogateescape")

    def name_of(self, token: int) -> str:
        """A token's name as text, with U+FFFD for what is no UTF-8."""
        return self.bytes_of(token).decode("utf-8", "replace")


class _Fields:
    """Metadata of a file, read with checks."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self._metadata, self.where = metadata, where

    def wrong(self, name: str, what: str, value: str) -> TextError:
        found = f": {value}" if value else ""
        return TextError(f"{self.where}: {_PREFIX}{name} {what}{found}; {_AGAIN}")

    def has(self, name: str) -> bool:
        return _PREFIX + name in self._metadata

    def text(self, name: str) -> str:
        """Empty where the file has none."""
        value = self._metadata.get(_PREFIX + name, "")
        if not isinstance(value, str):
            raise self.wrong(name, "must be a text, not", shown(value))
        return value

    def flag(self, name: str) -> bool | None:
        value = self._metadata.get(_PREFIX + name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "must be true or false, not", shown(value))
        return value

    def number(self, name: str) -> int | None:
        value = self._metadata.get(_PREFIX + name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self.wrong(name, "must be a token's id, not", shown(value))
        return value

    def array(self, name: str) -> list[Any]:
        value = self._metadata.get(_PREFIX + name)
        if value is None:
            raise self.wrong(name, "is missing", "")
        value = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(value, list | tuple):
            raise self.wrong(name, "must be an array, not", shown(value))
        return list(value)

    def texts(self, name: str) -> list[str]:
        values = self.array(name)
        if not set(map(type, values)) <= {str}:
            value = next(one for one in values if not isinstance(one, str))
            raise self.wrong(name, "must be texts, but holds", shown(value))
        return values

    def numbers(self, name: str, count: int, kinds: set[type]) -> list[Any]:
        """One for each token."""
        values = self.array(name)
        if len(values) != count:
            raise self.wrong(name, f"has {len(values)} values for {count} tokens", "")
        if not set(map(type, values)) <= kinds:
            value = next(one for one in values if type(one) not in kinds)
            raise self.wrong(name, "must be numbers, but holds", shown(value))
        return values


def _kind(fields: _Fields) -> str:
    kind = fields.text("model")
    if not kind:
        raise fields.wrong("model", "is missing", "")
    if kind in ("none", "no_vocab"):
        raise TextError(f"{fields.where} has no tokenizer; give token ids instead of text")
    if kind not in KINDS:
        raise TextError(
            f"{fields.where}: the tokenizer {shown(kind)} is not known; known are "
            f"{', '.join(KINDS)}; give token ids instead of text"
        )
    return kind


def _types(fields: _Fields, count: int) -> Sequence[int]:
    if not fields.has("token_type"):
        return [NORMAL] * count
    types = fields.numbers("token_type", count, {int})
    unknown = set(types) - {*range(UNDEFINED, BYTE + 1)}
    if unknown:
        raise fields.wrong("token_type", "has an unknown type", str(min(unknown)))
    return types


def _scores(fields: _Fields, count: int) -> Sequence[float]:
    scores = fields.numbers("scores", count, {int, float})
    if any(map(math.isnan, scores)):
        raise fields.wrong("scores", "holds what is no number", "")
    return scores


def _merges(fields: _Fields) -> Sequence[tuple[str, str]]:
    """The pairs; of two that are the same, the first."""
    texts = dict.fromkeys(fields.texts("merges"))
    parts = (text.partition(" ") for text in texts)
    pairs = [(first, second) for first, _, second in parts]
    return pairs if all(map(all, pairs)) else [_pair(fields, text) for text in texts]


def _pair(fields: _Fields, text: str) -> tuple[str, str]:
    """The space between the two comes after the first character, which may be a space."""
    at = text.find(" ", 1)
    if not 0 < at < len(text) - 1:
        raise fields.wrong("merges", "must be pairs, but holds", shown(text))
    return text[:at], text[at + 1 :]


def _named(fields: _Fields, count: int) -> Mapping[str, int]:
    """Of the less important ids some files have ones that mean none."""
    result: dict[str, int] = {}
    for name in IDS:
        key = f"{name}_token_id"
        number = fields.number(key)
        if number is not None and 0 <= number < count:
            result[name] = number
        elif number is not None and name in _MUST_EXIST:
            raise fields.wrong(key, f"is {number}; there are {count} tokens", "")
    return result
