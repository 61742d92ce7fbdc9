"""The tokenizer of the demo model. Knows text and token ids, no questions and no tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN = "<|begin|>"
PADDING = "<|padding|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end|>"
SPECIAL = (BEGIN, PADDING, USER, ASSISTANT, END)

# The split that Qwen2 made common: words with their space, digits one by one.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# A system message is accepted and left out: a model this small can follow none.
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}"
    "{{- '<|user|>' + message['content'] | trim + '<|end|>' }}"
    "{%- elif message['role'] == 'assistant' %}"
    "{{- '<|assistant|>' + message['content'] | trim + '<|end|>' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE tokenizer: any UTF-8 text can be written and read back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        # Sorted, for the library lists the bytes in another order in every run.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def special_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token}")
    return found


def encode_chat(
    tokenizer: Tokenizer, chat: Sequence[tuple[str, str]]
) -> tuple[list[int], list[bool]]:
    """Token ids of a chat, and which of them the model has to say itself."""
    user, assistant = special_id(tokenizer, USER), special_id(tokenizer, ASSISTANT)
    end = special_id(tokenizer, END)
    ids, spoken = [special_id(tokenizer, BEGIN)], [False]
    for question, answer in chat:
        asked = tokenizer.encode(question, add_special_tokens=False).ids
        said = tokenizer.encode(answer, add_special_tokens=False).ids
        ids += [user, *asked, end, assistant, *said, end]
        spoken += [False] * (len(asked) + 3) + [True] * (len(said) + 1)
    return ids, spoken


def encode_prompt(
    tokenizer: Tokenizer, history: Sequence[tuple[str, str]], question: str
) -> list[int]:
    """Token ids up to the place where the model has to answer."""
    ids, _ = encode_chat(tokenizer, history)
    asked = tokenizer.encode(question, add_special_tokens=False).ids
    return [
        *ids,
        special_id(tokenizer, USER),
        *asked,
        special_id(tokenizer, END),
        special_id(tokenizer, ASSISTANT),
    ]
