"""Small vocabularies, made from nothing but the texts: of bytes, of characters, of pieces by score.

Each is the metadata of a GGUF file, so that llama.cpp and bandweave read the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from bandweave.text.byte_alphabet import byte_alphabet
from bandweave.text.gguf_vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from bandweave.text.pre_tokenizers import PRE_TOKENIZERS
from tests.vocabularies.texts import CONTROL_TEXTS, TEXTS, USER_DEFINED_TEXTS

SPACE = "\u2581"
PIECES_ALPHABET = "ab cd.é世<"
_UNMERGED = "worldly"
Metadata = dict[str, Any]


def train_merges(count: int) -> list[str]:
    """Merges that join what some pre-tokenizer leaves in one part: parting elsewhere shows."""
    parts: set[str] = set()
    for pre in PRE_TOKENIZERS.values():
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
        splitter = pre_tokenizers.Sequence(list(steps))
        for text in TEXTS:
            if any(name in text for name in (*CONTROL_TEXTS, _UNMERGED)):
                continue
            parts.update(part for part, _ in splitter.pre_tokenize_str(text))
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + count, initial_alphabet=sorted(byte_alphabet()), show_progress=False
    )
    library.train_from_iterator(sorted(parts), trainer)
    return [" ".join(pair) for pair in json.loads(library.to_str())["model"]["merges"]]


def of_bytes(merges: Sequence[str], pre: str | None) -> Metadata:
    """Byte-level BPE, with a token of which no merges make one."""
    tokens = [*byte_alphabet(), *(merge.replace(" ", "") for merge in merges), f"Ġ{_UNMERGED}"]
    types = [NORMAL] * len(tokens)
    bos = len(tokens)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.bos_token_id": bos,
        "tokenizer.ggml.eos_token_id": bos + 1,
        **_with_special(tokens, types),
    }
    return metadata if pre is None else {**metadata, "tokenizer.ggml.pre": pre}


def of_characters() -> Metadata:
    """Gemma 4's kind."""
    merges = ["\n \n", "\n\n \n\n", "l l", f"{SPACE} {SPACE}", "e ll", "H ell", "o r", "世 界",
              f"{SPACE} H", "ell o", f"{SPACE}{SPACE} {SPACE}{SPACE}"]  # fmt: skip
    letters = sorted({character for text in TEXTS[:20] for character in text} - {" ", "🎉", "中"})
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *_bytes(), SPACE, *letters]
    types = [CONTROL, CONTROL, CONTROL, UNKNOWN, *[BYTE] * 256]
    tokens += [joined for merge in merges if (joined := merge.replace(" ", "")) not in tokens]
    types += [NORMAL] * (len(tokens) - len(types))
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        **_with_special(tokens, types),
    }


def of_pieces(*, seed: int, kinds_of_scores: int) -> Metadata:
    """SentencePiece's kind: random pieces, of which many have the same score, some no parts, and
    some a space in their middle."""
    source = random.Random(seed)
    letters = PIECES_ALPHABET.replace(" ", SPACE)
    pieces = {source.choice(letters) for _ in range(6)}
    while len(pieces) < 160:
        size = source.choice((2, 2, 2, 3, 3, 4, 5))
        pieces.add("".join(source.choice(letters) for _ in range(size)))
    tokens = ["<unk>", "<s>", "</s>", *_bytes(), *sorted(pieces)]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    scores = [0.0] * 259 + [float(-source.randrange(kinds_of_scores)) for _ in pieces]
    result = _with_special(tokens, types)
    scores += [0.0] * (len(tokens) - len(scores))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **result,
    }


def pieces_texts(seed: int, count: int) -> list[str]:
    """Random texts of the pieces' characters, and of one that no piece has."""
    source = random.Random(seed)
    letters = PIECES_ALPHABET + "🎉"
    return ["".join(source.choice(letters) for _ in range(source.randrange(1, 40)))
            for _ in range(count)]  # fmt: skip


def _bytes() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _with_special(tokens: list[str], types: list[int]) -> Metadata:
    """Adds the special tokens that are not there yet to both."""
    for kind, names in ((CONTROL, CONTROL_TEXTS), (USER_DEFINED, USER_DEFINED_TEXTS)):
        new = [name for name in names if name not in tokens]
        tokens += new
        types += [kind] * len(new)
    return {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
