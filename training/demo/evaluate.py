"""Held-out accuracy of a finished model. Knows greedy decoding and the checks, no training.

python evaluate.py ../../src/bandweave/assets/demo --count 200
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from random import Random

import chats
import folder
import torch
import vocabulary
from facts import FACTS, OUT_OF_REACH, OUT_OF_REACH_QUESTIONS
from model import PLAIN, Q4, DemoModel, Precision
from question import Question, check
from tokenizers import Tokenizer

LONGEST_ANSWER = 128


@torch.no_grad()
def replies(
    model: DemoModel, tokenizer: Tokenizer, prompts: Sequence[list[int]], precision: Precision
) -> list[str]:
    """Greedy answers to many prompts at once.

    Rows are padded at the end, where causal attention cannot look, and each row grows into
    its own padding; at this size that is simpler than a KV cache and fast enough.
    """
    padding = vocabulary.special_id(tokenizer, vocabulary.PADDING)
    end = vocabulary.special_id(tokenizer, vocabulary.END)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    tokens = torch.full((len(prompts), int(lengths.max()) + LONGEST_ANSWER), padding)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    rows, places = torch.arange(len(prompts)), lengths.clone()
    speaking = torch.ones(len(prompts), dtype=torch.bool)
    for _ in range(LONGEST_ANSWER):
        active = rows[speaking]
        width = int(places[active].max())
        hidden = model.hidden(tokens[active, :width], precision)
        last = hidden[torch.arange(len(active)), places[active] - 1]
        chosen = model.logits(last, precision).argmax(-1)
        tokens[active, places[active]] = chosen
        places[active] += 1
        speaking[active[chosen == end]] = False
        if not speaking.any():
            break
    found = []
    for row in range(len(prompts)):
        said = [token for token in tokens[row, lengths[row] : places[row]].tolist() if token != end]
        found.append(tokenizer.decode(said))
    return found


def answer_all(
    model: DemoModel,
    tokenizer: Tokenizer,
    asked: Sequence[tuple[Question, ...]],
    precision: Precision,
) -> list[str]:
    """The replies to the last question of each chat; the turns before it are given."""
    prompts = [
        vocabulary.encode_prompt(
            tokenizer, [(one.text, one.answer) for one in turns[:-1]], turns[-1].text
        )
        for turns in asked
    ]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    found = [""] * len(prompts)
    for start in range(0, len(order), 100):
        part = order[start : start + 100]
        for place, reply in zip(
            part,
            replies(model, tokenizer, [prompts[one] for one in part], precision),
            strict=True,
        ):
            found[place] = reply
    return found


def every_fact() -> list[tuple[Question, ...]]:
    """Each phrasing of each fact once; facts are learnt by heart, none is held out."""
    known = [(text, answer) for phrasings, answer in FACTS for text in phrasings]
    known += [(text, OUT_OF_REACH) for text in OUT_OF_REACH_QUESTIONS]
    return [(Question("facts", text, answer, answer),) for text, answer in known]


def held_out_chats(kind: str, count: int, seed: int) -> list[tuple[Question, ...]]:
    """Different held-out questions of a kind."""
    if kind == "facts":
        return every_fact()
    random = Random(f"{seed} evaluation {kind}")
    found: dict[str, tuple[Question, ...]] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        turns = chats.turns(random, kind, held_out=True)
        found[" ".join(one.text for one in turns)] = turns
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out accuracy of the demo model.")
    parser.add_argument("folder", type=Path, help="model in Hugging Face layout")
    parser.add_argument("--count", type=int, default=200, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show-wrong", type=int, default=0, help="wrong replies to print")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = folder.load(options.folder)
    rights = {"bf16": 0, "q4": 0}
    total = 0
    print("| kind | questions | bf16 | q4 |")
    print("|---|---:|---:|---:|")
    wrong: list[str] = []
    for kind in chats.KINDS:
        asked = held_out_chats(kind, options.count, options.seed)
        total += len(asked)
        cells = []
        for name, precision in (("bf16", PLAIN), ("q4", Q4)):
            said = answer_all(model, tokenizer, asked, precision)
            right = [check(turns[-1], reply) for turns, reply in zip(asked, said, strict=True)]
            wrong += [
                f"{name}: {turns[-1].text} -> {reply} (not {turns[-1].expected})"
                for turns, reply, good in zip(asked, said, right, strict=True)
                if not good
            ]
            rights[name] += sum(right)
            cells.append(f"{100 * sum(right) / len(right):.1f} %")
        print(f"| {kind} | {len(asked)} | {cells[0]} | {cells[1]} |", flush=True)
    cells = [f"{100 * right / total:.1f} %" for right in rights.values()]
    print(f"| all | {total} | {cells[0]} | {cells[1]} |")
    for line in wrong[: options.show_wrong]:
        print(line)


if __name__ == "__main__":
    main()
