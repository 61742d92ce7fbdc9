"""Writes the tokenizer of a model folder into a GGUF file: tokens, types, merges, template.

Knows ``tokenizer.json`` of byte-level BPE; knows no weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf

from bandweave.text.chat_template import ChatTemplate
from bandweave.text.pre_tokenizers import PRE_TOKENIZERS
from bandweave.text.tokenizer import Tokenizer

_BYTE_LEVEL = "ByteLevel"
_NO_MERGES = ["<|begin|> <|end|>"]  # llama.cpp wants one; this one joins nothing


def write(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    """Writes all keys of the tokenizer, with unused tokens up to ``vocab_size``; ``no_vocab``
    where the folder has none of byte-level BPE. One whose patterns GGUF has no name for gets
    llama.cpp's default: benchmarks ask in token ids, and only answers are text."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    pre = pre_name(content)
    model = content.get("model") or {}
    if pre is None and model.get("type") == "BPE" and model.get("byte_fallback") is not True:
        pre = "default"
    if pre is None:
        writer.add_tokenizer_model("no_vocab")
        return
    added = {token["id"]: token for token in content.get("added_tokens", [])}
    texts = {number: text for text, number in model["vocab"].items()}
    texts.update({number: token["content"] for number, token in added.items()})
    tokens, types = [], []
    for number in range(vocab_size):
        kind = gguf.TokenType.NORMAL if number in texts else gguf.TokenType.UNUSED
        if number in added:
            special = added[number]["special"]
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
        tokens.append(texts.get(number, f"[PAD{number}]"))
        types.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = model.get("merges") or _NO_MERGES
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    _write_special(writer, folder, vocab_size)


def pre_name(content: dict[str, Any]) -> str | None:
    """GGUF's name of the pre-tokenizer of a ``tokenizer.json``, by its patterns and by what else
    the name means; None where there is no such name, and for all but plain byte-level BPE."""
    model, steps = content.get("model") or {}, content.get("pre_tokenizer") or {}
    parts = steps.get("pretokenizers", [steps])
    *splits, last = parts
    if (
        model.get("type") != "BPE"
        or content.get("normalizer") is not None
        or last.get("type") != _BYTE_LEVEL
        or last.get("use_regex") is not False
        or last.get("add_prefix_space") is not False
    ):
        return None
    patterns = tuple(split.get("pattern", {}).get("Regex") for split in splits)
    ignores = bool(model.get("ignore_merges"))
    for name, known in PRE_TOKENIZERS.items():
        if known.patterns == patterns and known.ignore_merges == ignores:
            return name
    return None


def _write_special(writer: gguf.GGUFWriter, folder: Path, vocab_size: int) -> None:
    tokenizer = Tokenizer.from_folder(folder, vocab_size=vocab_size)
    writers = {
        "bos_token": writer.add_bos_token_id,
        "eos_token": writer.add_eos_token_id,
        "unk_token": writer.add_unk_token_id,
        "pad_token": writer.add_pad_token_id,
    }
    for name, add in writers.items():
        number = tokenizer.token_to_id(tokenizer.named_tokens.get(name, ""))
        if number is not None:
            add(number)
    around = tokenizer.encode("")
    writer.add_add_bos_token(around[:1] == [tokenizer.bos_token_id])
    writer.add_add_eos_token(around[-1:] != [] and around[-1] in tokenizer.eos_token_ids)
    if ChatTemplate.is_in(folder):
        writer.add_chat_template(ChatTemplate.from_folder(folder).source)
