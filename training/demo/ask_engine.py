"""Held-out accuracy of a finished model, as bandweave answers. Knows the checks, no PyTorch.

    PYTHONPATH=training/demo .venv/bin/python training/demo/ask_engine.py FOLDER

Needs bandweave installed, and is many times as fast as `evaluate.py`, which has no KV cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import chats
from exam import held_out_chats
from question import Question, check

from bandweave.checkpoints.folder import Folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.run_options import RunOptions
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=128)


def prompt(tokenizer: Tokenizer, template: ChatTemplate, turns: Sequence[Question]) -> list[int]:
    messages: list[dict[str, str]] = []
    for earlier in turns[:-1]:
        messages.append({"role": "user", "content": earlier.text})
        messages.append({"role": "assistant", "content": earlier.answer})
    messages.append({"role": "user", "content": turns[-1].text})
    return tokenizer.encode(template.render(messages), special_tokens=False)


def replies(folder: Folder, weight_format: str, rounds: Sequence[Sequence[Question]]) -> list[str]:
    """The greedy reply to the last question of each."""
    tokenizer = Tokenizer.from_folder(folder.path, vocab_size=folder.spec.vocab_size)
    template = ChatTemplate.from_folder(folder.path, tokens=tokenizer.named_tokens)
    end = frozenset(tokenizer.eos_token_ids)
    requests = [
        Request(tokens=tuple(prompt(tokenizer, template, turns)), params=GREEDY, end_tokens=end)
        for turns in rounds
    ]
    run = RunOptions(weight_format=weight_format, streams=32, context=512)
    options = EngineOptions(shares=(Fraction(1),), run=run)
    with Engine.start(folder, options, ThreadLauncher()) as engine:
        results = engine.generate(requests)
    return [tokenizer.decode(one.tokens) for one in results]


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out accuracy, as bandweave answers.")
    parser.add_argument("folder", type=Path, help="model in Hugging Face layout")
    parser.add_argument("--count", type=int, default=200, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    by_kind = {kind: held_out_chats(kind, options.count, options.seed) for kind in chats.KINDS}
    rounds = [turns for of_kind in by_kind.values() for turns in of_kind]
    right: dict[str, list[bool]] = {}
    with Folder.open(options.folder) as folder:
        for weight_format in ("bf16", "q4"):
            said = replies(folder, weight_format, rounds)
            right[weight_format] = [
                check(turns[-1], reply) for turns, reply in zip(rounds, said, strict=True)
            ]
    print("| kind | questions | bf16 | q4 |\n|---|---:|---:|---:|")
    place = 0
    for kind, of_kind in (*by_kind.items(), ("all", rounds)):
        first = 0 if kind == "all" else place
        stop = first + len(of_kind)
        cells = [f"{100 * sum(one[first:stop]) / len(of_kind):.1f} %" for one in right.values()]
        print(f"| {kind} | {len(of_kind)} | {cells[0]} | {cells[1]} |")
        place = stop


if __name__ == "__main__":
    main()
