"""GgufCodec: encodes and decodes by the vocabulary of a GGUF file.

Special tokens are cut out of a text first, the longest before all others, as llama.cpp does; the
rest is merged by pairs or by scores. Every token stands for bytes of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from bandweave.shown import shown
from bandweave.text.byte_alphabet import byte_alphabet
from bandweave.text.files import TextError
from bandweave.text.gguf_roles import GgufRoles
from bandweave.text.gguf_vocabulary import (
    BYTE,
    BYTE_PAIRS,
    CONTROL,
    PIECES,
    RAW_PAIRS,
    UNDEFINED,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    GgufVocabulary,
)
from bandweave.text.pair_merging import PairMerging
from bandweave.text.pre_tokenizers import LINES, PRE_TOKENIZERS, PreTokenizer
from bandweave.text.score_merging import SPACE, ScoreMerging

_C_SPACE = " \t\n\v\f\r"
_MARK = SPACE.encode()
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class GgufCodec:
    """Threads may share one. ``roles``: of its tokens. ``remarks``: sentences on what the file
    leaves open."""

    is_exact = True

    def __init__(self, vocabulary: GgufVocabulary) -> None:
        """``TextError`` for a tokenizer that is not known, and for one that cannot work."""
        self._vocabulary = vocabulary
        self.size = len(vocabulary.tokens)
        pre, self.remarks = _pre_tokenizer(vocabulary)
        usual = vocabulary.kind == PIECES if pre is None else pre.adds_bos
        self.roles = GgufRoles.of(vocabulary, adds_bos=usual)
        self.special = self.roles.control
        self._prefix = ""
        if vocabulary.kind == PIECES and vocabulary.add_space_prefix is not False:
            self._prefix = SPACE
        self.drops_space = bool(self._prefix)
        self._merge = _merging(vocabulary, pre, self.roles)
        _check_bytes(vocabulary)
        self._byte_of = {text: byte for byte, text in enumerate(byte_alphabet())}
        tokens, strips = vocabulary.tokens, self.roles.strips
        self._cut = [(tokens[token], token, token in strips) for token in self.roles.cut]

    def encode(self, text: str, *, special_tokens: bool, parse_special: bool = True) -> list[int]:
        """The ids of a text, with those around every text if ``special_tokens``. The texts of
        control tokens become those tokens if ``parse_special``, those of user-defined ones
        always."""
        result = [self.roles.bos] if special_tokens and self.roles.adds_bos else []
        prefixed = True  # the first text gets a space, and what follows on a special token
        for part in self._parts(text, parse_special):
            if isinstance(part, int):
                result.append(part)
            else:
                result += self._merge(self._prefix + part if prefixed else part)
            prefixed = isinstance(part, int)
        if special_tokens and self.roles.adds_eos:
            result.append(self.roles.eos)
        return [token for token in result if token is not None]

    def decode(self, tokens: Sequence[int]) -> str:
        content = b"".join(map(self.token_bytes, tokens))
        if self.drops_space:
            content = content.removeprefix(b" ")
        return content.decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """Control and user-defined tokens read as they are named."""
        if not 0 <= token < self.size:
            return b""
        kind, name = self._vocabulary.types[token], self._vocabulary.tokens[token]
        if kind in (UNDEFINED, UNUSED):
            return b""
        if kind == BYTE:
            return bytes([int(name[3:5], 16)])
        named = self._vocabulary.bytes_of(token)
        if kind in (CONTROL, UNKNOWN, USER_DEFINED):
            return named
        if self._vocabulary.kind != BYTE_PAIRS:
            return named.replace(_MARK, b" ")
        try:
            return bytes(self._byte_of[character] for character in name)
        except KeyError:  # a token that was added, whatever its type says
            return named

    def token_to_id(self, token: str) -> int | None:
        return self._vocabulary.ids.get(token)

    def id_to_token(self, token: int) -> str | None:
        return self._vocabulary.name_of(token) if 0 <= token < self.size else None

    def _parts(self, text: str, parse_special: bool) -> list[str | int]:
        """The special tokens of a text, by id, and the text between them."""
        parts: list[str | int] = [text] if text else []
        control = self.roles.control
        for name, token, strips in self._cut:
            if name in text and (parse_special or token not in control):
                parts = list(_cut_out(parts, name, token, strips=strips))
        return parts


def _cut_out(parts: list[str | int], name: str, token: int, *, strips: bool) -> Iterator[str | int]:
    for part in parts:
        if isinstance(part, int):
            yield part
            continue
        for index, piece in enumerate(part.split(name)):
            if index:
                yield token
            rest = piece.lstrip(_C_SPACE) if index and strips else piece
            if rest:
                yield rest


def _pre_tokenizer(vocabulary: GgufVocabulary) -> tuple[PreTokenizer | None, tuple[str, ...]]:
    if vocabulary.kind == PIECES:
        return None, ()
    if vocabulary.kind == RAW_PAIRS:
        return LINES, ()
    if vocabulary.pre is None:
        return PRE_TOKENIZERS["default"], (
            f"{vocabulary.where} does not name its pre-tokenizer (tokenizer.ggml.pre), so some "
            "texts may be cut into other tokens than the model knows; convert the model again",
        )
    if vocabulary.pre not in PRE_TOKENIZERS:
        raise TextError(
            f"{vocabulary.where}: the pre-tokenizer {shown(vocabulary.pre)} is not known; known "
            f"are {', '.join(PRE_TOKENIZERS)}; give token ids instead of text"
        )
    return PRE_TOKENIZERS[vocabulary.pre], ()


def _merging(
    vocabulary: GgufVocabulary, pre: PreTokenizer | None, roles: GgufRoles
) -> Callable[[str], list[int]]:
    if pre is not None:
        of_bytes = vocabulary.kind == BYTE_PAIRS
        return PairMerging(
            _of_unicode(vocabulary.ids),
            vocabulary.merges,
            pre,
            of_bytes=of_bytes,
            where=vocabulary.where,
        ).encode
    never = (CONTROL, UNKNOWN, BYTE)  # of no text's own
    types, scores = vocabulary.types, vocabulary.scores
    ids = {
        text: number
        for text, number in vocabulary.ids.items()
        if types[number] not in never and number not in roles.control
    }
    byte_ids = [
        vocabulary.ids.get(f"<0x{byte:02X}>", vocabulary.ids.get(chr(byte)) if byte < 128 else None)
        for byte in range(256)
    ]
    by_text = {text: float(scores[number]) for text, number in ids.items()}
    merging = ScoreMerging(by_text, ids, byte_ids, roles.unknown)
    return lambda text: merging.encode(text.replace(" ", SPACE))


def _of_unicode(ids: Mapping[str, int]) -> Mapping[str, int]:
    """Without tokens that are no text, and so never come of one."""
    try:
        "".join(ids).encode()
    except UnicodeEncodeError:
        whole = re.compile("[^\ud800-\udfff]*")
        return {text: number for text, number in ids.items() if whole.fullmatch(text)}
    return ids


def _check_bytes(vocabulary: GgufVocabulary) -> None:
    for number, kind in enumerate(vocabulary.types):
        name = vocabulary.tokens[number]
        if kind == BYTE and not _BYTE.fullmatch(name):
            raise TextError(
                f"{vocabulary.where}: token {number} is a byte, but is called {shown(name)}, not "
                "<0x00> to <0xFF>; convert the model again"
            )
