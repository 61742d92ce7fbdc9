"""The tokenizer and the chat template of a model, from wherever its files keep them."""

from __future__ import annotations

from bandweave.checkpoints.folder import Folder
from bandweave.shown import printable
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.end_tokens import end_token_ids
from bandweave.text.tokenizer import Tokenizer


def open_tokenizer(folder: Folder) -> Tokenizer:
    """``TextError`` where it is missing or damaged."""
    size = folder.spec.vocab_size
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
    metadata = folder.metadata()
    if not ChatTemplate.is_in_gguf(metadata):
        return None
    return ChatTemplate.from_gguf(metadata, tokens=tokens, where=printable(folder.path))


def end_tokens_of(folder: Folder) -> tuple[int, ...]:
    """The tokens that end an answer; ``TextError`` where a file of them is damaged."""
    if folder.is_gguf:
        return open_tokenizer(folder).eos_token_ids
    return tuple(end_token_ids(folder.path, folder.spec.vocab_size))
