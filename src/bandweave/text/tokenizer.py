"""Tokenizer: text to token ids and back, by the ``tokenizer.json`` of a model folder or the
metadata of a GGUF file.

Knows tokens and text; knows no arrays and no models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bandweave import files
from bandweave.shown import printable
from bandweave.text.codec import Codec, LibraryCodec
from bandweave.text.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from bandweave.text.files import TextError
from bandweave.text.gguf_codec import GgufCodec
from bandweave.text.gguf_vocabulary import GgufVocabulary
from bandweave.text.library import load_library
from bandweave.text.special_tokens import add_special_tokens
from bandweave.text.stream import TextStream

_FILE = "tokenizer.json"
_MOST_BYTES = 128_000_000
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # how vocabularies of pieces name a byte's token
_CONTEXT_TOKENS = 8  # of a prompt, that its continuation is decoded behind


class Tokenizer:
    """Encodes and decodes; threads may share one.

    ``eos_token_ids``: sorted ids that end an answer. ``hidden_token_ids``: those and all others
    that are never text. ``bos_token_id``: the id that starts a text, or None. ``named_tokens``:
    ``bos_token``, ``eos_token`` and the like, by name, as text. ``size``: one more than the largest
    id. ``remarks``: sentences for the user on what the files leave open.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        eos_token_ids: Iterable[int] = (),
        hidden_token_ids: Iterable[int] = (),
        bos_token_id: int | None = None,
        named_tokens: Mapping[str, str] | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        """``hidden_token_ids``: beside those that end an answer and those that the codec calls
        special."""
        self._codec = codec
        self.eos_token_ids = tuple(sorted(set(eos_token_ids)))
        self.bos_token_id = bos_token_id
        self.named_tokens = dict(named_tokens or {})
        self.size = codec.size
        self.remarks = tuple(remarks)
        self.hidden_token_ids = frozenset((*self.eos_token_ids, *hidden_token_ids, *codec.special))

    @classmethod
    def from_folder(cls, folder: str | Path, *, vocab_size: int | None = None) -> Tokenizer:
        """The tokenizer of a model folder, with the tokens that its other files name.
        ``vocab_size``: of the model. ``TextError`` where it is missing or damaged."""
        folder = Path(folder)
        path = folder / _FILE
        if not files.is_there(path):
            other = folder / "tokenizer.model"
            found = f" ({other.name} is not read)" if files.is_there(other) else ""
            raise TextError(
                f"{printable(folder)} has no {_FILE}{found}; copy the one of the original model "
                "there, or give token ids instead of text"
            )
        content = files.read_bytes(path, most=_MOST_BYTES, error=TextError)
        library = load_library(content, printable(path))
        special = add_special_tokens(library, folder, vocab_size)
        return cls(
            LibraryCodec(library),
            eos_token_ids=special.ends,
            hidden_token_ids=special.hidden,
            bos_token_id=special.bos,
            named_tokens=special.named,
        )

    @classmethod
    def from_gguf(
        cls, metadata: Mapping[str, Any], *, vocab_size: int | None = None, where: str
    ) -> Tokenizer:
        """The tokenizer of a GGUF file. ``metadata``: the file's, by key, with arrays in full;
        bytes of a text that are no UTF-8 are lone surrogates (``surrogateescape``).
        ``vocab_size``: of the model. ``where``: the file's name, printable. ``TextError`` where a
        field is missing, damaged or not known."""
        codec = GgufCodec(GgufVocabulary.read(metadata, vocab_size=vocab_size, where=where))
        return cls(
            codec,
            eos_token_ids=codec.roles.ends,
            bos_token_id=codec.roles.bos,
            named_tokens=codec.roles.named,
            remarks=codec.remarks,
        )

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """The ids of a text. ``special_tokens``: with those that the model wants around every
        text; False for a rendered chat template, which has them. Names of special tokens in the
        text become those tokens in both cases."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextError(
                f"the text has a lone surrogate at character {error.start}; it must be Unicode"
            ) from error
        return self._codec.encode(text, special_tokens=special_tokens)

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids; an id that has no token gives none. ``skip_special_tokens``: without
        those that are never text."""
        for token in tokens:
            if not 0 <= token < 1 << 32:
                raise TextError(f"{token} is no token id; ids are from 0 to {self.size - 1}")
        if skip_special_tokens:
            tokens = [token for token in tokens if token not in self.hidden_token_ids]
        return self._codec.decode(tokens)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token by its name; None where there is no such token."""
        return self._codec.token_to_id(token)

    def id_to_token(self, token: int) -> str | None:
        """The name of a token, in the vocabulary's own spelling; None where there is none."""
        return self._codec.id_to_token(token) if 0 <= token < 1 << 32 else None

    def detokenizer(
        self, *, skip_special_tokens: bool = True, prompt: Sequence[int] = ()
    ) -> Detokenizer:
        """Decodes one answer token by token; exact and without decoding twice where every token
        stands for bytes of its own.

        ``prompt``: the tokens that the answer goes on from, if it is one text with them: some
        vocabularies write a space before a word that the first word of a text does not get.
        """
        before = prompt[-_CONTEXT_TOKENS:]
        if not self._codec.is_exact:
            return WindowDetokenizer(
                lambda tokens: self.decode(tokens, skip_special_tokens=skip_special_tokens),
                lambda token: skip_special_tokens and token in self.hidden_token_ids,
                before,
            )
        goes_on = any(self._token_bytes(token, skip_special_tokens) for token in before)
        return ByteDetokenizer(
            lambda token: self._token_bytes(token, skip_special_tokens),
            drops_space=self._codec.drops_space and not goes_on,
        )

    def stream(
        self,
        stop: Sequence[str] = (),
        *,
        prompt: Sequence[int] = (),
        marks: Mapping[int, str] | None = None,
    ) -> TextStream:
        """The text of one answer as it grows, up to a stop string; ``prompt`` as in
        ``detokenizer``. Stop strings may name tokens that are never text. ``marks``: characters
        that show where some of those tokens stand."""
        detokenizer = self.detokenizer(prompt=prompt)
        return TextStream(detokenizer, stop, hidden=self._hidden_text, marks=marks)

    def _hidden_text(self, token: int) -> str:
        """How a token reads that is never text; empty for one that is text."""
        return (self.id_to_token(token) or "") if token in self.hidden_token_ids else ""

    def text_bytes(self, token: int) -> bytes:
        """The bytes of one token's text, where each stands for bytes of its own; else its text
        alone, which beside others may lack a space. None of a token that is never text."""
        if token in self.hidden_token_ids:
            return b""
        if self._codec.is_exact:
            return self._codec.token_bytes(token)
        return self._codec.decode([token]).encode("utf-8", "replace")

    def added_bytes(self, token: int) -> bytes:
        """The bytes that a token adds to a text that others have begun, as grammars see it. None of
        a token that is never text."""
        if self._codec.is_exact or token in self.hidden_token_ids:
            return self.text_bytes(token)
        name = self.id_to_token(token)
        if name is None:
            return b""
        if _BYTE.fullmatch(name):
            return bytes([int(name[3:5], 16)])
        # Alone or first, some vocabularies' tokens lose the space that they begin with.
        before = self._codec.encode("a", special_tokens=False)
        begun = self._codec.decode(before)
        return self._codec.decode([*before, token])[len(begun) :].encode("utf-8", "replace")

    def _token_bytes(self, token: int, skip_special_tokens: bool) -> bytes:
        hidden = skip_special_tokens and token in self.hidden_token_ids
        return b"" if hidden else self._codec.token_bytes(token)
