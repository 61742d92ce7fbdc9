"""The ids that llama.cpp gives the texts, stored so that tests need no llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.vocabularies import small
from tests.vocabularies.texts import TEXTS

MERGES = 1200
Both = tuple[tuple[int, ...], tuple[int, ...]]
"""A text's ids with special tokens, and without any."""
Groups = dict[Both, list[str]]
"""One text's ids, and the pre-tokenizers that lead to them."""

_PATH = Path(__file__).parents[1] / "data" / "gguf_tokens.json"
_SCORES = (1, 3, 1000)  # how many different ones pieces have: all the same, a few, their own

#: llama.cpp's regular expressions know less than the models' own, so some texts get other ids
#: there, by pre-tokenizers: capitals that are not ASCII's, or all of them; marks as parts of
#: words; spaces among wide characters; digits before a word, and spaces before digits.
DIFFERENT: Mapping[str, Sequence[str]] = {
    "gpt-4o llama4 kanana2 minimax-m2 tekken kimi-k2": (
        "HelloWorld", "हिन्दी", "e\u0301cole", "mixed世界"
    ),
    "youtu": ("HelloWorld",),
    "tiny_aya cohere2moe": ("HelloWorld", "year2024", "mixed世界", "two  12"),
    "deepseek-llm deepseek-coder": ("a\u00a0b", "\u00a0 "),
}  # fmt: skip


def different(pre: str) -> set[str]:
    """The texts that llama.cpp gives other ids under this pre-tokenizer."""
    starts = [start for names, starts in DIFFERENT.items() if pre in names.split()
              for start in starts]  # fmt: skip
    return {text for text in TEXTS if text.startswith(tuple(starts))} if starts else set()


def pieces_cases() -> Iterator[tuple[dict[str, Any], Sequence[str]]]:
    """Vocabularies of pieces, and the texts that they are tried on."""
    for seed, count in enumerate(_SCORES):
        metadata = small.of_pieces(seed=seed, kinds_of_scores=count)
        yield metadata, [*TEXTS, *small.pieces_texts(seed, 60)]
    metadata = small.of_pieces(seed=3, kinds_of_scores=5)
    flags = {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False,
             "tokenizer.ggml.add_eos_token": True}  # fmt: skip
    yield {**metadata, **flags}, TEXTS


class Stored:
    """``merges``: of the byte-level vocabulary. ``starts``: pre-tokenizers under which a text
    starts with a token for that. ``groups``: of each text. ``characters``, ``pieces``: ids of the
    other vocabularies' texts."""

    def __init__(self) -> None:
        content = json.loads(_PATH.read_text(encoding="utf-8"))
        self.merges: list[str] = content["merges"]
        self.starts: list[str] = content["starts"]
        self.groups: list[Groups] = [
            {_unpacked(packed): names.split() for names, packed in group.items()}
            for group in content["byte_pairs"]
        ]
        others = [[_unpacked(packed) for packed in one] for one in content["others"]]
        self.characters: list[Both] = others[0]
        self.pieces: list[list[Both]] = others[1:]


def write(
    merges: Sequence[str],
    starts: Sequence[str],
    groups: Sequence[Groups],
    others: Sequence[Sequence[Both]],
) -> None:
    content = {
        "merges": merges,
        "starts": starts,
        "byte_pairs": [
            {" ".join(names): _packed(both) for both, names in group.items()} for group in groups
        ],
        "others": [[_packed(both) for both in one] for one in others],
    }
    text = json.dumps(content, ensure_ascii=False, indent=0)
    _PATH.write_text(f"{text}\n", encoding="utf-8")


def _packed(both: Both) -> str:
    """The ids as text; those without special tokens only where they differ."""
    parts = [" ".join(map(str, ids)) for ids in (both if both[0] != both[1] else both[:1])]
    return " | ".join(parts)


def _unpacked(text: str) -> Both:
    special, *plain = (tuple(map(int, part.split())) for part in text.split("|"))
    return special, plain[0] if plain else special
