"""Training batches. Knows how chats become padded tensors, no network and no optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import chats
import torch
import vocabulary
from chats import Lesson
from question import Question
from tokenizers import Tokenizer
from torch import Tensor

# Token ids, and which of them the model has to say.
Row = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class Batch:
    """Token ids [rows, length] and a mask of the tokens that the model has to say."""

    tokens: Tensor
    spoken: Tensor


def stack(rows: Sequence[Row], padding: int) -> Batch:
    """Rows of unequal length, padded at the end."""
    length = max(len(ids) for ids, _ in rows)
    tokens = torch.full((len(rows), length), padding, dtype=torch.long)
    spoken = torch.zeros((len(rows), length), dtype=torch.bool)
    for row, (ids, said) in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
        spoken[row, : len(ids)] = torch.tensor(said)
    return Batch(tokens, spoken)


def cut(rows: list[Row], budget: int, padding: int) -> list[Batch]:
    """Rows of like length together, so that hardly any computing goes into padding."""
    batches: list[Batch] = []
    group: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row[0])):
        if group and (len(group) + 1) * len(row[0]) > budget:
            batches.append(stack(group, padding))
            group = []
        group.append(row)
    batches.append(stack(group, padding))
    return batches


def pool(
    tokenizer: Tokenizer,
    lessons: Sequence[Lesson],
    seed: int,
    number: int,
    chats_in_pool: int,
    budget: int,
) -> list[Batch]:
    """The batches of one pool of chats; the same seed and number always give the same ones."""
    random = Random(seed * 1_000_003 + number)
    lesson = chats.lesson_for(lessons, number)
    rows = []
    for _ in range(chats_in_pool):
        chat = chats.conversation(random, chats.chat_length(random), lesson)
        rows.append(vocabulary.encode_chat(tokenizer, chat))
    batches = cut(rows, budget, vocabulary.special_id(tokenizer, vocabulary.PADDING))
    random.shuffle(batches)
    return batches


def last_answers(tokenizer: Tokenizer, asked: Sequence[Sequence[Question]]) -> list[Row]:
    """Rows of chats of which only the last answer counts as spoken."""
    rows: list[Row] = []
    for turns in asked:
        ids, spoken = vocabulary.encode_chat(tokenizer, [(one.text, one.answer) for one in turns])
        last = max(place for place, said in enumerate(spoken) if not said)
        rows.append((ids, [place > last for place in range(len(ids))]))
    return rows


def held_out(tokenizer: Tokenizer, seed: int, kind: str, count: int) -> list[Batch]:
    """Held-out questions of a kind."""
    random = Random(f"{seed} {kind}")
    asked = [chats.turns(random, kind, held_out=True) for _ in range(count)]
    return cut(
        last_answers(tokenizer, asked), 4096, vocabulary.special_id(tokenizer, vocabulary.PADDING)
    )
