"""Tokenizer: text to token ids and back, by the ``tokenizer.json`` of a model folder.

Wraps the ``tokenizers`` library. Knows tokens and text; knows no arrays and no models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers

from bandweave.text.byte_alphabet import byte_alphabet
from bandweave.text.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from bandweave.text.files import TextError, special_tokens
from bandweave.text.stream import TextStream

_FILE = "tokenizer.json"


class Tokenizer:
    """Encodes and decodes; threads may share one.

    ``eos_token_ids``: sorted ids that end an answer. ``bos_token_id``: the id that starts a text,
    or None. ``size``: one more than the largest id.
    """

    def __init__(
        self,
        library: tokenizers.Tokenizer,
        *,
        eos_token_ids: Iterable[int] = (),
        bos_token_id: int | None = None,
    ) -> None:
        # Files may ask for cut or padded texts, which is for training only.
        library.no_truncation()
        library.no_padding()
        self._library = library
        self.eos_token_ids = tuple(sorted(set(eos_token_ids)))
        self.bos_token_id = bos_token_id
        self.size = 1 + max(library.get_vocab(with_added_tokens=True).values(), default=-1)
        added = library.get_added_tokens_decoder().values()
        self._special = frozenset(token.content for token in added if token.special)
        self._byte_of: dict[str, int] | None = None
        if _is_byte_level(library):
            self._byte_of = {text: byte for byte, text in enumerate(byte_alphabet())}

    @classmethod
    def from_folder(cls, folder: str | Path, *, eos_token_ids: Iterable[int] = ()) -> Tokenizer:
        """The tokenizer of a model folder; ``eos_token_ids`` of its configs are added to the
        tokenizer's own. ``TextError`` where it is missing or damaged."""
        path = Path(folder) / _FILE
        if not path.is_file():
            other = Path(folder) / "tokenizer.model"
            found = f" ({other.name} is not read)" if other.is_file() else ""
            raise TextError(
                f"{folder} has no {_FILE}{found}; copy the one of the original model there, or "
                "give token ids instead of text"
            )
        try:
            library = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise TextError(f"{path} cannot be used: {error}; download it again") from error
        special = special_tokens(Path(folder))
        ids = {name: library.token_to_id(token) for name, token in special.items()}
        own = ids.get("eos_token")
        return cls(
            library,
            eos_token_ids=[*eos_token_ids, *([] if own is None else [own])],
            bos_token_id=ids.get("bos_token"),
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
        return self._library.encode(text, add_special_tokens=special_tokens).ids

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids; an id that has no token gives none."""
        for token in tokens:
            if not 0 <= token < 1 << 32:
                raise TextError(f"{token} is no token id; ids are from 0 to {self.size - 1}")
        return self._library.decode(list(tokens), skip_special_tokens=skip_special_tokens)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token by its name; None where there is no such token."""
        return self._library.token_to_id(token)

    def id_to_token(self, token: int) -> str | None:
        """The name of a token, in the vocabulary's own spelling; None where there is none."""
        return self._library.id_to_token(token) if 0 <= token < 1 << 32 else None

    def detokenizer(self, *, skip_special_tokens: bool = True) -> Detokenizer:
        """Decodes one answer token by token; exact and without decoding twice where the
        vocabulary is byte-level."""
        if self._byte_of is None:
            return WindowDetokenizer(
                lambda tokens: self.decode(tokens, skip_special_tokens=skip_special_tokens),
                lambda token: skip_special_tokens and self.id_to_token(token) in self._special,
            )
        return ByteDetokenizer(lambda token: self._token_bytes(token, skip_special_tokens))

    def stream(self, stop: Sequence[str] = ()) -> TextStream:
        """The text of one answer as it grows, up to a stop string."""
        return TextStream(self.detokenizer(), stop)

    def _token_bytes(self, token: int, skip_special_tokens: bool) -> bytes:
        """What the library's byte-level decoder makes of one token."""
        content = self.id_to_token(token)
        if content is None or (skip_special_tokens and content in self._special):
            return b""
        assert self._byte_of is not None
        try:
            return bytes(self._byte_of[character] for character in content)
        except KeyError:  # an added token, which is written as it reads
            return content.encode()


def _is_byte_level(library: tokenizers.Tokenizer) -> bool:
    """Whether decoding is the byte alphabet and nothing else."""
    if library.decoder is None:
        return False
    state = json.loads(library.decoder.__getstate__())
    while state["type"] == "Sequence" and len(state["decoders"]) == 1:
        (state,) = state["decoders"]
    return state["type"] == "ByteLevel"
