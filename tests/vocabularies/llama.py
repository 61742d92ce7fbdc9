"""llama.cpp's tokenizer of a GGUF file, by llama-cpp-python."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp

_MOST_BYTES = 4096  # of a token


class Llama:
    """Of one file; only its vocabulary is loaded."""

    def __init__(self, path: Path) -> None:
        self._llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)

    def encode(self, text: str, *, special_tokens: bool, parse_special: bool) -> list[int]:
        return self._llama.tokenize(text.encode(), add_bos=special_tokens, special=parse_special)

    def token_bytes(self, token: int) -> bytes:
        """As it is shown with special tokens."""
        buffer = ctypes.create_string_buffer(_MOST_BYTES)
        count = llama_cpp.llama_token_to_piece(
            self._vocabulary, token, buffer, _MOST_BYTES, 0, True
        )
        assert 0 <= count <= _MOST_BYTES
        return buffer.raw[:count]

    def ends(self) -> list[int]:
        count = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        return [
            token for token in range(count) if llama_cpp.llama_vocab_is_eog(self._vocabulary, token)
        ]

    def close(self) -> None:
        self._llama.close()
