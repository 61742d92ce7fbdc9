"""The tokens in the files beside a ``tokenizer.json``, as they stand there, every field checked.

``tokenizer_config.json``, whose ``added_tokens_decoder`` makes the older files void, and those:
``special_tokens_map.json`` and ``added_tokens.json``. Knows what the files say, not what becomes of
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from bandweave.shown import printable, shown
from bandweave.text.files import TextError, read_object

NAMED = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
_EXTRA, _OLDER_EXTRA = "extra_special_tokens", "additional_special_tokens"
_LISTED = "added_tokens_decoder"

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_MOST_TOKENS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class FileToken:
    """A token as a file has it; ``flags``: those of the library that the file gives."""

    content: str
    special: bool
    flags: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, token: AddedToken) -> FileToken:
        """A token of the library."""
        flags = {flag: getattr(token, flag) for flag in _FLAGS}
        return cls(content=token.content, special=token.special, flags=flags)

    def library(self, *, special: bool = False) -> AddedToken:
        """The library's; ``special`` even where the file does not say so."""
        return AddedToken(self.content, special=self.special or special, **self.flags)


@dataclass(frozen=True, kw_only=True)
class TokenFiles:
    """``named``: by name, the well-known names first; None for what a file makes null. ``extra``:
    special tokens without a name. ``listed``: tokens by the id that a file gives them.
    ``complete``: whether that list is the whole one, and tokenizer.json's own tokens are no part of
    it. ``tokenizer_class``: without ``Fast``; empty where none is named."""

    named: Mapping[str, FileToken | None]
    extra: tuple[FileToken, ...]
    listed: Mapping[int, FileToken]
    complete: bool
    tokenizer_class: str


def read_token_files(folder: Path) -> TokenFiles:
    """What the files of a folder say; ``TextError`` names the file and the field that is wrong."""
    file = folder / "tokenizer_config.json"
    config = read_object(file)
    named, extra = _fields(file, config, config.get(_EXTRA) or config.get(_OLDER_EXTRA))
    complete = _LISTED in config
    if complete:
        listed = _by_id(file, config[_LISTED])
    else:
        file = folder / "special_tokens_map.json"
        older = read_object(file)
        more_named, more = _fields(file, older, older.get(_EXTRA))
        # Of the well-known names the older file outweighs the newer one, of others it does not.
        known = {name: token for name, token in more_named.items() if name in NAMED}
        named, extra = {**more_named, **named, **known}, _joined(extra, more)
        special = {token.content for name, token in named.items() if token and name in NAMED}
        special |= {token.content for token in extra}
        listed = _older(folder / "added_tokens.json", special)
        if not {_EXTRA, _OLDER_EXTRA} & config.keys() and _EXTRA not in older:
            more_named, more = _fields(file, {}, older.get(_OLDER_EXTRA))
            named, extra = {**named, **more_named}, _joined(extra, more)
    kind = config.get("tokenizer_class")
    order = [*(name for name in NAMED if name in named), *named]
    return TokenFiles(
        named={name: named[name] for name in order},
        extra=tuple(extra),
        listed=listed,
        complete=complete,
        tokenizer_class=kind.removesuffix("Fast") if isinstance(kind, str) else "",
    )


def _fields(
    file: Path, config: Mapping[str, Any], extra: Any
) -> tuple[dict[str, FileToken | None], list[FileToken]]:
    """The named tokens among the fields of a file, and those that ``extra`` lists."""
    named: dict[str, FileToken | None] = {}
    for name, value in config.items():
        # Any other name that ends so is a token's too; but add_bos_token is true or false.
        if name in NAMED or (name.endswith("_token") and isinstance(value, (str, dict))):
            named[name] = None if value is None else _special(file, name, value)
    if isinstance(extra, dict):
        named.update({name: _special(file, name, value) for name, value in extra.items()})
    elif isinstance(extra, list):
        return named, [_special(file, _EXTRA, value) for value in extra]
    elif extra is not None:
        raise _wrong(file, _EXTRA, extra, "a list of tokens")
    return named, []


def _joined(tokens: list[FileToken], more: list[FileToken]) -> list[FileToken]:
    return [*tokens, *(token for token in more if token not in tokens)]


def _by_id(file: Path, value: Any) -> dict[int, FileToken]:
    kind = "an object of tokens by their ids"
    if not isinstance(value, dict) or len(value) > _MOST_TOKENS:
        raise _wrong(file, _LISTED, value, kind)
    result: dict[int, FileToken] = {}
    for key, token in value.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and isinstance(token, dict)):
            raise _wrong(file, _LISTED, {key: token}, kind)
        result[int(key)] = _token(file, _LISTED, token, special=token.get("special") is True)
    return result


def _older(file: Path, special: set[str]) -> dict[int, FileToken]:
    """``added_tokens.json``: ids by token; special are those that another file calls so."""
    result: dict[int, FileToken] = {}
    for text, number in read_object(file).items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 32:
            raise _wrong(file, f"the id of {shown(text)}", number, "a token's id")
        is_special = text in special
        value: dict[str, Any] = {"content": text, "normalized": not is_special}
        result[number] = _token(file, "a token", value, special=is_special)
    return result


def _special(file: Path, name: str, value: Any) -> FileToken:
    return _token(file, name, value, special=True)


def _token(file: Path, name: str, value: Any, *, special: bool) -> FileToken:
    """A token that is written as its text, or as an object with its ``content`` and flags."""
    fields: dict[str, Any] = value if isinstance(value, dict) else {"content": value}
    content = fields.get("content")
    if not isinstance(content, str) or _is_broken(content):
        raise _wrong(file, name, value, "a token's text, or an object with its 'content'")
    flags = {flag: fields[flag] for flag in _FLAGS if isinstance(fields.get(flag), bool)}
    return FileToken(content=content, special=special, flags=flags)


def _is_broken(text: str) -> bool:
    """Whether a text holds half a character, which JSON can write and UTF-8 cannot."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _wrong(file: Path, name: str, value: Any, kind: str) -> TextError:
    return TextError(f"{printable(file)}: {name} is {shown(value)}; it must be {kind}")


def named_tokens(folder: Path) -> dict[str, str]:
    """``bos_token``, ``eos_token`` and the like that the files name, as text."""
    named = read_token_files(folder).named
    return {name: token.content for name, token in named.items() if token is not None}
