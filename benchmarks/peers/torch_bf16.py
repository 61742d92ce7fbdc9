"""transformers and PyTorch in bf16 on the processor: a Hugging Face folder, T threads.

Knows nothing of bandweave. Logits are computed for the last token of a prompt only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from benchmarks.peers.protocol import Work, pin, serve


class TorchModel:
    """A loaded model; computes every prompt from its start."""

    def __init__(self, path: str, *, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.bfloat16
        ).eval()
        self.vocab_size = int(self._model.config.vocab_size)

    @torch.inference_mode()
    def measure(self, work: Work) -> dict[str, Any]:
        """One sample; see ``protocol``."""
        prompts = torch.tensor(work.prompts(self.vocab_size))
        start = time.perf_counter()
        output = self._model(prompts, use_cache=True, logits_to_keep=1)
        tokens = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        middle = time.perf_counter()
        for _ in range(work.new_tokens - 1):
            output = self._model(tokens, past_key_values=output.past_key_values, use_cache=True)
            tokens = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        tokens.tolist()
        end = time.perf_counter()
        steps = (work.new_tokens - 1) * work.streams
        return {
            "prefill_tokens_per_s": prompts.numel() / (middle - start),
            "decode_tokens_per_s": steps / (end - middle) if steps else 0.0,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder in Hugging Face layout")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cpus", default="")
    arguments = parser.parse_args()

    def make() -> tuple[dict[str, Any], Callable[[Work], dict[str, Any]]]:
        pin(arguments.cpus)
        peer = TorchModel(arguments.model, threads=arguments.threads)
        description = {
            "engine": "PyTorch",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        return description, peer.measure

    serve(make)


if __name__ == "__main__":
    main()
