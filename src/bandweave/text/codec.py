"""What a Tokenizer asks of its vocabulary, and the ``tokenizers`` library's answer to it.

Knows no files and no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tokenizers

from bandweave.text.byte_alphabet import byte_alphabet
from bandweave.text.library import is_byte_level, library_errors


class Codec(Protocol):
    """Encodes and decodes; threads may share one.

    ``size``: one more than the largest id. ``special``: ids of tokens that are never text.
    ``is_exact``: whether every token stands for bytes of its own, whatever stands beside it.
    ``drops_space``: whether the first space of a text is none of its own.
    """

    @property
    def size(self) -> int: ...

    @property
    def special(self) -> frozenset[int]: ...

    @property
    def is_exact(self) -> bool: ...

    @property
    def drops_space(self) -> bool: ...

    def encode(self, text: str, *, special_tokens: bool) -> list[int]:
        """The ids of a text, with those around every text if ``special_tokens``."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ids; one that has no token gives none."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token, where ``is_exact``; none of an id that has no token."""
        ...

    def token_to_id(self, token: str) -> int | None: ...

    def id_to_token(self, token: int) -> str | None: ...


class LibraryCodec:
    """A tokenizer of the library."""

    drops_space = False

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self._library = library
        self.size = 1 + max(library.get_vocab(with_added_tokens=True).values(), default=-1)
        added = library.get_added_tokens_decoder()
        self.special = frozenset(number for number, token in added.items() if token.special)
        self.is_exact = is_byte_level(library)
        self._byte_of = {text: byte for byte, text in enumerate(byte_alphabet())}

    def encode(self, text: str, *, special_tokens: bool) -> list[int]:
        with library_errors("the text cannot be encoded"):
            return self._library.encode(text, add_special_tokens=special_tokens).ids

    def decode(self, tokens: Sequence[int]) -> str:
        with library_errors("the answer's tokens cannot be decoded"):
            return self._library.decode(list(tokens), skip_special_tokens=False)

    def token_bytes(self, token: int) -> bytes:
        """What the library's byte-level decoder makes of one token."""
        content = self.id_to_token(token)
        if content is None:
            return b""
        try:
            return bytes(self._byte_of[character] for character in content)
        except KeyError:  # an added token, which is written as it reads
            return content.encode()

    def token_to_id(self, token: str) -> int | None:
        return self._library.token_to_id(token)

    def id_to_token(self, token: int) -> str | None:
        return self._library.id_to_token(token)
