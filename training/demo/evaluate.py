"""Held-out accuracy of a finished model. Knows greedy decoding and the checks, no training.

python evaluate.py ../../src/bandweave/assets/demo --count 200
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import batches
import chats
import folder
import mixture_report
import torch
import vocabulary
from exam import held_out_chats
from mixture_model import MixtureModel
from model import PLAIN, Q4, Precision
from quantise import round_q4
from question import Question, check
from recipe import Network
from tokenizers import Tokenizer
from torch import Tensor

LONGEST_ANSWER = 128


@dataclass(frozen=True)
class Speaker:
    """A model at one precision, with its tokenizer."""

    model: Network
    tokenizer: Tokenizer
    precision: Precision

    @staticmethod
    def quantised(folder_path: Path) -> Speaker:
        """Weights rounded once, activations as they come.

        The embedding stays as it is for the look-up and is rounded where it serves as the
        vocabulary projection. Routers are never rounded.
        """
        model, tokenizer = folder.load(folder_path)
        for name, parameter in model.layers.named_parameters():
            if parameter.dim() > 1 and not name.endswith("mlp.gate.weight"):
                parameter.data = round_q4(parameter.data)
        return Speaker(model, tokenizer, Precision(activations_q8=True))

    def logits(self, tokens: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        hidden = self.model.hidden(tokens, self.precision)[rows, places]
        return self.model.logits(hidden, Q4 if self.precision.activations_q8 else PLAIN)


@torch.no_grad()
def greedy(speaker: Speaker, prompts: Sequence[list[int]]) -> list[str]:
    """Greedy answers to many prompts at once.

    Rows are padded at the end, where causal attention cannot look, and each row grows into
    its own padding; that is simpler than a KV cache.
    """
    tokenizer = speaker.tokenizer
    end = vocabulary.special_id(tokenizer, vocabulary.END)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    tokens = torch.full((len(prompts), int(lengths.max()) + LONGEST_ANSWER), end)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    places = lengths.clone()
    active = torch.arange(len(prompts))
    for _ in range(LONGEST_ANSWER):
        width = int(places[active].max())
        rows = torch.arange(len(active))
        chosen = speaker.logits(tokens[active, :width], rows, places[active] - 1).argmax(-1)
        tokens[active, places[active]] = chosen
        places[active] += 1
        active = active[chosen != end]
        if not len(active):
            break
    return [
        tokenizer.decode(
            [one for one in tokens[row, lengths[row] : places[row]].tolist() if one != end]
        )
        for row in range(len(prompts))
    ]


@torch.no_grad()
def says_it(speaker: Speaker, asked: Sequence[Sequence[Question]]) -> list[bool]:
    """Whether each last answer, given as far as it goes, is continued as the model would.

    Where that is so to the last token, greedy decoding says this very answer.
    """
    padding = vocabulary.special_id(speaker.tokenizer, vocabulary.PADDING)
    batch = batches.stack(batches.last_answers(speaker.tokenizer, asked), padding)
    spoken = batch.spoken[:, 1:]
    rows, places = spoken.nonzero(as_tuple=True)
    guess = speaker.logits(batch.tokens[:, :-1], rows, places).argmax(-1)
    wrong = torch.zeros(spoken.shape, dtype=torch.bool)
    wrong[rows, places] = guess != batch.tokens[:, 1:][rows, places]
    return (~wrong.any(dim=1)).tolist()


def replies(speaker: Speaker, asked: Sequence[Sequence[Question]]) -> list[str]:
    """The greedy replies to the last question of each chat; the turns before it are given."""
    order = sorted(range(len(asked)), key=lambda place: len(asked[place][-1].answer))
    found = [turns[-1].answer for turns in asked]
    for start in range(0, len(order), 50):
        part = order[start : start + 50]
        sure = says_it(speaker, [asked[place] for place in part])
        # Decoding token by token is slow, so only what differs somewhere is decoded.
        open_ones = [place for place, good in zip(part, sure, strict=True) if not good]
        prompts = [
            vocabulary.encode_prompt(
                speaker.tokenizer,
                [(one.text, one.answer) for one in asked[place][:-1]],
                asked[place][-1].text,
            )
            for place in open_ones
        ]
        if prompts:
            for place, reply in zip(open_ones, greedy(speaker, prompts), strict=True):
                found[place] = reply
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Held-out accuracy of the demo model.")
    parser.add_argument("folder", type=Path, help="model in Hugging Face layout")
    parser.add_argument("--count", type=int, default=200, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show-wrong", type=int, default=0, help="wrong replies to print")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    speakers = {
        "bf16": Speaker(*folder.load(options.folder), PLAIN),
        "q4": Speaker.quantised(options.folder),
    }
    rights = dict.fromkeys(speakers, 0)
    total = 0
    print("| kind | questions | bf16 | q4 |")
    print("|---|---:|---:|---:|")
    wrong: list[str] = []
    for kind in chats.KINDS:
        asked = held_out_chats(kind, options.count, options.seed)
        total += len(asked)
        cells = []
        for name, speaker in speakers.items():
            said = replies(speaker, asked)
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
    model = speakers["bf16"].model
    if isinstance(model, MixtureModel):
        tokenizer = speakers["bf16"].tokenizer
        rounds = [
            batch
            for kind in chats.KINDS
            for batch in batches.held_out(tokenizer, options.seed, kind, options.count)
        ]
        print(mixture_report.report(model, rounds))
    for line in wrong[: options.show_wrong]:
        print(line)


if __name__ == "__main__":
    main()
