"""Train the demo model from nothing. Knows the schedule; the data and the network are elsewhere.

    python train.py --work work --output ../../src/bandweave/assets/demo
    python train.py --recipe mixture --work work-moe --output ../../src/bandweave/assets/demo-moe

Started again with the same `--work` folder it goes on from the last checkpoint there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from random import Random

import batches
import chats
import folder
import mixture_report
import torch
import vocabulary
from batches import Batch
from mixture_model import MixtureModel
from model import PLAIN, Q4, Precision
from recipe import RECIPES, Network
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

# How much the token after the next counts, beside the next.
FURTHER = 0.3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a demo model.")
    parser.add_argument("--recipe", choices=RECIPES, default="llama", help="which network")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--output", type=Path, help="folder for the model in HF layout")
    parser.add_argument("--pools", type=int, help="stop after so many pools")
    parser.add_argument("--chats-in-pool", type=int, default=2048)
    parser.add_argument("--batch-tokens", type=int, default=3072)
    parser.add_argument("--vocabulary", type=int, default=640)
    parser.add_argument("--export-every", type=int, default=5, help="in pools")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--float32", action="store_true", help="for processors without bfloat16 arithmetic"
    )
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


def make_optimiser(model: nn.Module) -> torch.optim.AdamW:
    matrices = [one for one in model.parameters() if one.dim() >= 2]
    gains = [one for one in model.parameters() if one.dim() < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        eps=1e-9,
        fused=True,
    )


def loss_of(
    model: Network, batch: Batch, precision: Precision, *, rounded: bool, further: bool
) -> Tensor:
    """Cross entropy over the tokens of the answers; the questions are not to be learnt. With
    ``further`` what a mixture says of the tokens after those counts, too, but for less."""
    tokens, spoken = batch.tokens, batch.spoken
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rounded):
        hidden = model.hidden(tokens[:, :-1], precision)
        logits = model.logits(hidden[spoken[:, 1:]], precision)
        loss = F.cross_entropy(logits.float(), tokens[:, 1:][spoken[:, 1:]])
        if further and isinstance(model, MixtureModel):
            said = spoken[:, 2:]
            states = model.further(tokens[:, 1:-1], hidden[:, :-1], precision)
            logits = model.logits(states[said], precision)
            loss = loss + FURTHER * F.cross_entropy(logits.float(), tokens[:, 2:][said])
    return loss


@torch.no_grad()
def accuracy(model: Network, rounds: list[Batch], precision: Precision) -> float:
    """How many answers are right to the last token, which is when greedy decoding says them."""
    right = total = 0
    for batch in rounds:
        guess = model.logits(model.hidden(batch.tokens[:, :-1], precision), precision).argmax(-1)
        wrong = (guess != batch.tokens[:, 1:]) & batch.spoken[:, 1:]
        right += int((~wrong.any(dim=1)).sum())
        total += len(wrong)
    return right / total


def report(model: Network, tests: dict[str, list[Batch]], precision: Precision) -> str:
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
    recipe = RECIPES[options.recipe]
    pools = options.pools or recipe.pools
    tokenizer = make_tokenizer(options.work, options.vocabulary, options.seed)
    model = recipe.make(options.vocabulary)
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
    for number in range(first, pools):
        started, used, losses, tokens = time.monotonic(), time.process_time(), [], 0
        random = Random(f"{options.seed} precision {number}")
        queue = batches.pool(
            tokenizer,
            recipe.lessons,
            options.seed,
            number,
            options.chats_in_pool,
            options.batch_tokens,
        )
        for place, batch in enumerate(queue):
            now = number + place / len(queue)
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate(now)
            precision = recipe.precision_for(random, now)
            loss = loss_of(
                model,
                batch,
                precision,
                rounded=not options.float32,
                further=now >= recipe.further_from and place % 2 == 0,
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            if isinstance(model, MixtureModel):
                model.after_step()
            losses.append(loss.item())
            tokens += batch.tokens.numel()
        passed = time.monotonic() - started
        seconds += passed
        print(
            f"pool {number + 1} of {pools}, {seconds / 60:.1f} min: "
            f"loss {sum(losses) / len(losses):.4f}, {tokens} tokens, {tokens / passed:.0f} a "
            f"second, {time.process_time() - used:.0f} s of processors",
            flush=True,
        )
        if (number + 1) % options.export_every == 0 or number + 1 == pools:
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
            print(f"  held out, plain {report(model, tests, PLAIN)}", flush=True)
            if number >= recipe.quantised_from:
                print(f"  held out, q4 {report(model, tests, Q4)}", flush=True)
            if isinstance(model, MixtureModel):
                rounds = [batch for kind in tests.values() for batch in kind]
                print(f"  {mixture_report.report(model, rounds)}", flush=True)


if __name__ == "__main__":
    train(arguments())
