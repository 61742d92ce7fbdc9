"""The tokenizer of a synthetic checkpoint: bytes, a few special tokens, and made-up words.

Texts are encoded as their bytes. The rest of the vocabulary is made-up words that nothing encodes
to: a model of random weights mostly chooses those, and its answer can still be shown. Knows the
files of a Hugging Face folder, no weights.
"""

from __future__ import annotations

from typing import Any

BEGIN, END, USER, ASSISTANT = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"
SPECIAL = (BEGIN, END, USER, ASSISTANT)
BEGIN_ID, END_ID = 256, 257
MIN_VOCAB = 256 + len(SPECIAL)

_CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|user|>' if message.role != 'assistant' else '<|assistant|>' }}"
    "{{- message.content + '<|end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte, as GPT-2's vocabulary has it.

    Said again here and not taken from ``bandweave.text``: neither knows the other.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def tokenizer_json(vocab_size: int) -> dict[str, Any]:
    """The content of ``tokenizer.json``: ids 0 to 255 are the bytes, then the special tokens."""
    alphabet = byte_alphabet()
    tokens = [*alphabet, *SPECIAL]
    space = alphabet[ord(" ")]
    tokens += [space + _word(index) for index in range(vocab_size - len(tokens))]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 256 + index, "content": token, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": True,
            }
            for index, token in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [BEGIN_ID], "tokens": [BEGIN]}},
        },
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": False,
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)}, "merges": [],
        },
    }  # fmt: skip


def tokenizer_config(context: int) -> dict[str, Any]:
    """The content of ``tokenizer_config.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": _CHAT_TEMPLATE,
    }


def _word(index: int) -> str:
    """Two or more syllables, another word for every index."""
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    base = len(consonants) * len(vowels)
    syllables = []
    while index or len(syllables) < 2:
        index, digit = divmod(index, base)
        syllables.append(consonants[digit // len(vowels)] + vowels[digit % len(vowels)])
    return "".join(reversed(syllables))
