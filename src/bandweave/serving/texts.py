"""The tokenizer and the chat template of a model, from wherever its files keep them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Self

from bandweave.checkpoints.folder import Folder
from bandweave.collection import no_collection
from bandweave.shown import printable
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.end_tokens import end_token_ids
from bandweave.text.tokenizer import Tokenizer


class OpeningTexts:
    """A model's tokenizer, which a thread opens while its nodes start (a vocabulary takes as long
    as some gigabytes of weights), and its chat template, which is opened once somebody waits for
    it: trying a template bounds this process's memory meanwhile. A context manager, within that of
    the folder."""

    def __init__(self, folder: Folder) -> None:
        self.seconds = 0.0  # that both took, once they are there
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._opened = self._pool.submit(self._open)

    def check(self) -> None:
        """Returns at once. ``TextError`` where the tokenizer is found to be missing or damaged."""
        if self._opened.done():
            self._opened.result()

    def wait(self) -> tuple[Tokenizer, ChatTemplate | None]:
        """Both, once they are there; ``TextError`` where one is missing or damaged."""
        return self._opened.result(), self._template

    @cached_property
    def _template(self) -> ChatTemplate | None:
        begun = time.perf_counter()
        template = open_template(self._folder, self._opened.result())
        self.seconds += time.perf_counter() - begun
        return template

    def _open(self) -> Tokenizer:
        begun = time.perf_counter()
        tokenizer = open_tokenizer(self._folder)
        self.seconds = time.perf_counter() - begun
        return tokenizer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def open_tokenizer(folder: Folder) -> Tokenizer:
    """``TextError`` where it is missing or damaged."""
    size = folder.spec.vocab_size
    with no_collection():
        if folder.is_gguf:
            where = printable(folder.path)
            return Tokenizer.from_gguf(folder.metadata(), vocab_size=size, where=where)
        return Tokenizer.from_folder(folder.path, vocab_size=size)


def open_template(folder: Folder, tokenizer: Tokenizer) -> ChatTemplate | None:
    """None for a model that was not trained to chat; ``TextError`` for a damaged one."""
    tokens = tokenizer.named_tokens
    if not folder.is_gguf:
        if not ChatTemplate.is_in(folder.path):
            return None
        return ChatTemplate.from_folder(folder.path, tokens=tokens)
    if not ChatTemplate.is_in_gguf(folder.fields):
        return None
    return ChatTemplate.from_gguf(folder.fields, tokens=tokens, where=printable(folder.path))


def end_tokens_of(folder: Folder) -> tuple[int, ...]:
    """The tokens that end an answer; ``TextError`` where a file of them is damaged."""
    if folder.is_gguf:
        return open_tokenizer(folder).eos_token_ids
    return tuple(end_token_ids(folder.path, folder.spec.vocab_size))
