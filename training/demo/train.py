"""Train the demo model from nothing. Knows the schedule; the data and the network are elsewhere.

    python train.py --work work --output ../../src/bandweave/assets/demo

Started again with the same `--work` folder it goes on from the last checkpoint there.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from random import Random

import batches
import chats
import folder
import torch
import vocabulary
from batches import Batch
from model import PLAIN, Q4, Q4_WEIGHTS, DemoModel, Precision, Shape
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

# Points (pool, learning rate) joined by straight lines: up, level, and down in two strokes, the
# second from where the last lessons bring longer answers.
LEARNING_RATE = (
    (0.0, 2e-6),
    (1.8, 2e-3),
    (52.25, 2e-3),
    (90.0, 0.73e-3),
    (92.0, 1e-3),
    (100.0, 0.86e-3),
    (115.0, 0.41e-3),
    (132.0, 2e-5),
)
# From this pool on the roundings of the 4-bit format are imitated.
QUANTISED_FROM = 57


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--output", type=Path, help="folder for the model in HF layout")
    parser.add_argument(
        "--pools", type=int, default=int(LEARNING_RATE[-1][0]), help="stop after so many pools"
    )
    parser.add_argument("--chats-in-pool", type=int, default=2048)
    parser.add_argument("--batch-tokens", type=int, default=3072)
    parser.add_argument("--vocabulary", type=int, default=640)
    parser.add_argument("--export-every", type=int, default=5, help="in pools")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def make_tokenizer(work: Path, size: int, seed: int) -> Tokenizer:
    path = work / "tokenizer.json"
    if not path.exists():
        random = Random(f"{seed} vocabulary")
        texts = [
            text
            for _ in range(20000)
            for turn in chats.conversation(random, 1, chats.LESSONS[0])
            for text in turn
        ]
        vocabulary.train_tokenizer(texts, size).save(str(path))
    return Tokenizer.from_file(str(path))


def make_optimiser(model: DemoModel) -> torch.optim.AdamW:
    matrices = [one for one in model.parameters() if one.dim() >= 2]
    gains = [one for one in model.parameters() if one.dim() < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        eps=1e-9,
        fused=True,
    )


def learning_rate(pool: float) -> float:
    """The straight line between the two points of the table around this pool."""
    for (start, low), (end, high) in itertools.pairwise(LEARNING_RATE):
        if pool <= end:
            return low + (high - low) * (pool - start) / (end - start)
    return LEARNING_RATE[-1][1]


def precision_for(random: Random, pool: float) -> Precision:
    """Late in the training most steps are rounded, some stay plain: both uses must work."""
    if pool < QUANTISED_FROM:
        return PLAIN
    return random.choices((PLAIN, Q4_WEIGHTS, Q4), (0.25, 0.65, 0.10))[0]


def loss_of(model: DemoModel, batch: Batch, precision: Precision) -> Tensor:
    """Cross entropy over the tokens of the answers; the questions are not to be learnt."""
    said = batch.spoken[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.hidden(batch.tokens[:, :-1], precision)
        logits = model.logits(hidden[said], precision)
    return F.cross_entropy(logits.float(), batch.tokens[:, 1:][said])


@torch.no_grad()
def accuracy(model: DemoModel, rounds: list[Batch], precision: Precision) -> float:
    """How many answers are right to the last token, which is when greedy decoding says them."""
    right = total = 0
    for batch in rounds:
        guess = model.logits(model.hidden(batch.tokens[:, :-1], precision), precision).argmax(-1)
        wrong = (guess != batch.tokens[:, 1:]) & batch.spoken[:, 1:]
        right += int((~wrong.any(dim=1)).sum())
        total += len(wrong)
    return right / total


def report(model: DemoModel, tests: dict[str, list[Batch]], precision: Precision) -> str:
    model.eval()
    found = {kind: accuracy(model, rounds, precision) for kind, rounds in tests.items()}
    model.train()
    mean = sum(found.values()) / len(found)
    listed = ", ".join(f"{kind} {100 * part:.0f}" for kind, part in found.items())
    return f"{100 * mean:.1f} ({listed})"


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(options.work, options.vocabulary, options.seed)
    model = DemoModel(Shape(vocab_size=options.vocabulary))
    optimiser = make_optimiser(model)
    tests = {kind: batches.held_out(tokenizer, options.seed, kind, 50) for kind in chats.KINDS}
    checkpoint, first, seconds = options.work / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first, seconds = state["pool"], state["seconds"]
    print(
        f"{sum(one.numel() for one in model.parameters())} parameters, from pool {first}",
        flush=True,
    )
    for number in range(first, options.pools):
        started, losses, tokens = time.monotonic(), [], 0
        random = Random(f"{options.seed} precision {number}")
        queue = batches.pool(
            tokenizer, options.seed, number, options.chats_in_pool, options.batch_tokens
        )
        for place, batch in enumerate(queue):
            now = number + place / len(queue)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(now)
            loss = loss_of(model, batch, precision_for(random, now))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
            tokens += batch.tokens.numel()
        passed = time.monotonic() - started
        seconds += passed
        print(
            f"pool {number + 1} of {options.pools}, {seconds / 60:.1f} min: "
            f"loss {sum(losses) / len(losses):.4f}, {tokens / passed:.0f} tokens/s",
            flush=True,
        )
        if (number + 1) % options.export_every == 0 or number + 1 == options.pools:
            print(f"  held out, plain {report(model, tests, PLAIN)}", flush=True)
            if number >= QUANTISED_FROM:
                print(f"  held out, q4 {report(model, tests, Q4)}", flush=True)
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "pool": number + 1,
                "seconds": seconds,
            }
            partial = checkpoint.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(checkpoint)
            if options.output is not None:
                folder.save(options.output, model, tokenizer)


if __name__ == "__main__":
    train(arguments())
