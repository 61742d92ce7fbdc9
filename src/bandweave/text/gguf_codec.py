"""GgufCodec: encodes and decodes by the vocabulary of a GGUF file.

Special tokens are cut out of a text first, the longest before all others, as llama.cpp does; the
rest is merged by pairs or by scores. Every token stands for bytes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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
        self._bytes = _all_bytes(vocabulary)
        tokens, strips = vocabulary.tokens, self.roles.strips
        self._cut = [(tokens[token], token, token in strips) for token in self.roles.cut]

    def encode(
        self, text: str, *, special_tokens: bool, parse_special: bool = True
    ) -> list[int]:
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
        return self._bytes[token] if 0 <= token < self.size else b""

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


def _cut_out(
    parts: list[str | int], name: str, token: int, *, strips: bool
) -> Iterator[str | int]:
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
        ids = {text: number for text, number in vocabulary.ids.items() if _is_unicode(text)}
        of_bytes = vocabulary.kind == BYTE_PAIRS
        return PairMerging(
            ids, vocabulary.merges, pre, of_bytes=of_bytes, where=vocabulary.where
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
    unknown = vocabulary.named.get("unknown", 0 if types[0] == UNKNOWN else None)
    by_text = {text: float(scores[number]) for text, number in ids.items()}
    merging = ScoreMerging(by_text, ids, byte_ids, unknown)
    return lambda text: merging.encode(text.replace(" ", SPACE))


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _all_bytes(vocabulary: GgufVocabulary) -> list[bytes]:
    """The bytes that each token stands for; control tokens read as they are named."""
    byte_of = {text: byte for byte, text in enumerate(byte_alphabet())}
    as_named = (CONTROL, UNKNOWN, USER_DEFINED)
    result: list[bytes] = []
    for number, kind in enumerate(vocabulary.types):
        named = vocabulary.bytes_of(number)
        if kind in as_named:
            result.append(named)
        elif kind in (UNDEFINED, UNUSED):
            result.append(b"")
        elif kind == BYTE:
            result.append(_byte(vocabulary, number))
        elif vocabulary.kind == BYTE_PAIRS:
            try:
                result.append(bytes(map(byte_of.__getitem__, vocabulary.tokens[number])))
            except KeyError:
                result.append(named)
        else:
            result.append(named.replace(_MARK, b" "))
    return result


def _byte(vocabulary: GgufVocabulary, number: int) -> bytes:
    name = vocabulary.tokens[number]
    try:
        if len(name) == 6 and name[:3] == "<0x" and name[5] == ">":
            return bytes([int(name[3:5], 16)])
    except ValueError:
        pass
    raise TextError(
        f"{vocabulary.where}: token {number} is a byte, but is called {shown(name)}, not <0x00> to "
        "<0xFF>; convert the model again"
    )
