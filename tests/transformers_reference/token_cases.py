"""Folders whose files name tokens in many ways, and what is compared of the tokenizers in them.

Knows the files and the texts; imports neither transformers nor tokenizers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bandweave.synth.tokenizer import byte_alphabet

STORED = Path(__file__).parent / "tokens.json"
COUNT = 200

#: The tokens of the tokenizer itself, from id 256 on, then ordinary words.
OWN = ("<s>", "</s>", "<|user|>", "<|end|>", "<tool>", "<|endoftext|>", "<unk>")
WORDS = ("Ġso", "is", "▁so")
_NAMES = (
    "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "image_token", "end_token",
)  # fmt: skip
_MARK = WORDS[2][0]
_TEXTS = (*OWN[:5], "<new>", "<other>", "<|im_end|>", *WORDS, "a")

ENCODED = (
    "so it is", "a<s>b</s>", "x<|user|>y<|end|>", " <new> <other>", "<|im_end|> is<tool>", "aaa",
)  # fmt: skip
DECODED = (
    [65, 256, 66, 257, 67, 258, 68, 259, 69, 260, 70],
    [263, 264, 265, 97, 266, 267, 268, 269, 98],
    [0xC3, 0xA9, 257, 0xE4, 259, 0xB8, 0x96],
)


def tokenizer_json(kind: str, special: list[bool]) -> dict[str, Any]:
    """A byte-level tokenizer, or one that marks spaces as Llama 2's does, whose own added tokens
    are special or not."""
    tokens = byte_alphabet()
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": False}  # fmt: skip
    before: dict[str, Any] = level
    after: dict[str, Any] = level
    if kind == "marked":
        tokens = [f"<0x{byte:02X}>" for byte in range(256)]
        before = {"type": "Metaspace", "replacement": _MARK, "prepend_scheme": "first",
                  "split": False}  # fmt: skip
        after = {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": _MARK}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]}  # fmt: skip
    vocab = {text: index for index, text in enumerate([*tokens, *OWN, *WORDS])}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": 256 + index, "content": text, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": special[index]}
            for index, text in enumerate(OWN)
        ],
        "normalizer": None, "pre_tokenizer": before, "post_processor": None, "decoder": after,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": kind == "marked",
            "ignore_merges": False, "vocab": vocab, "merges": [],
        },
    }  # fmt: skip


def cases() -> list[dict[str, Any]]:
    """The ``kind`` and ``special`` of every case's tokenizer, and its other ``files`` by name: the
    same ones every time."""
    return [_case(random.Random(f"tokens {number}")) for number in range(COUNT)]


def stored() -> list[dict[str, Any]]:
    """Every case, and its ``result`` as transformers gave it."""
    return json.loads(STORED.read_text())


def write(folder: Path, case: Mapping[str, Any]) -> None:
    """Makes the folder of a case."""
    own = tokenizer_json(case["kind"], case["special"])
    for name, content in {**case["files"], "tokenizer.json": own}.items():
        (folder / name).write_text(json.dumps(content))


def _case(chance: random.Random) -> dict[str, Any]:
    kind = chance.choice(("byte-level", "marked"))
    special = [chance.random() < 0.6 for _ in OWN]
    files: dict[str, Any] = {
        "config.json": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    }
    if chance.random() < 0.9:
        files["tokenizer_config.json"] = _config(chance, kind)
    if chance.random() < 0.5:
        files["special_tokens_map.json"] = _named(chance, bare=True)
    if chance.random() < 0.4:
        files["added_tokens.json"] = {
            text: chance.choice((256, 259, 266, 267, 300, 301 + index))
            for index, text in enumerate(chance.sample(_TEXTS, chance.randint(1, 3)))
        }
    for name in ("config.json", "generation_config.json"):
        if chance.random() < 0.5:
            files.setdefault(name, {})["eos_token_id"] = chance.choice((257, 259, [257, 258], None))
    return {"kind": kind, "special": special, "files": files}


def _config(chance: random.Random, kind: str) -> dict[str, Any]:
    config = _named(chance, bare=False)
    own = "Qwen2Tokenizer" if kind == "byte-level" else "LlamaTokenizerFast"
    config["tokenizer_class"] = chance.choice(
        ("PreTrainedTokenizerFast", "TokenizersBackend", own, own)
    )
    if chance.random() < 0.4:
        config["added_tokens_decoder"] = {
            str(chance.choice((*range(256, 268), 300))): _object(chance, chance.choice(_TEXTS))
            for _ in range(chance.randint(0, 4))
        }
    if chance.random() < 0.3:
        config["add_bos_token"] = chance.random() < 0.5
    return config


def _named(chance: random.Random, *, bare: bool) -> dict[str, Any]:
    """Named and unnamed special tokens; ``bare``: as special_tokens_map.json writes objects."""
    result: dict[str, Any] = {}
    for name in chance.sample(_NAMES, chance.randint(0, 4)):
        text = chance.choice(_TEXTS)
        if chance.random() < 0.15:
            result[name] = None
        elif chance.random() < 0.3 and name in ("bos_token", "eos_token", "pad_token"):
            token = _object(chance, text)
            result[name] = token if bare else {"__type": "AddedToken", **token}
        else:
            result[name] = text
    for name in ("additional_special_tokens", "extra_special_tokens"):
        if chance.random() < 0.25:
            result[name] = chance.sample(_TEXTS, chance.randint(0, 3))
    return result


def _object(chance: random.Random, text: str) -> dict[str, Any]:
    return {
        "content": text, "lstrip": chance.random() < 0.1, "rstrip": chance.random() < 0.1,
        "normalized": chance.random() < 0.2, "single_word": False,
        "special": chance.random() < 0.5,
    }  # fmt: skip
