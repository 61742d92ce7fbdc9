"""llama.cpp through llama-cpp-python's low-level API: one GGUF file, T threads.

Knows llama.cpp's batches and its memory of keys and values; knows nothing of bandweave. Settings
are llama.cpp's defaults (flash attention as it chooses, or off by ``--plain-attention``; keys and
values in f16, weights repacked for the processor); logits are computed for the last token of a
prompt only.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp as low
import numpy as np

from benchmarks.peers.protocol import Work, pin, serve

_Row = tuple[int, int, int, bool]  # token, position, stream, whether logits are wanted


class LlamaCpp:
    """A loaded model with a context of ``context`` tokens for each of ``streams``."""

    def __init__(
        self, path: str, *, threads: int, context: int, streams: int, plain_attention: bool = False
    ) -> None:
        low.llama_backend_init()
        model_params = low.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self._model = low.llama_model_load_from_file(path.encode(), model_params)
        if not self._model:
            raise OSError(f"llama.cpp cannot load {path}")
        params = low.llama_context_default_params()
        params.n_ctx = -(-context // 256) * 256 * streams
        params.n_batch = max(params.n_batch, context)
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = threads
        if plain_attention:
            params.flash_attn_type = low.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = low.llama_init_from_model(self._model, params)
        if not self._context:
            raise OSError(f"llama.cpp cannot make a context of {params.n_ctx} tokens for {path}")
        self._memory = low.llama_get_memory(self._context)
        self._batch_size = int(params.n_batch)
        self._batch = low.llama_batch_init(self._batch_size, 0, 1)
        self._kept: list[list[int]] = [[] for _ in range(streams)]  # tokens in the memory
        self.vocab_size = int(low.llama_vocab_n_tokens(low.llama_model_get_vocab(self._model)))

    def measure(self, work: Work) -> dict[str, Any]:
        """One sample; see ``protocol``."""
        prompts = work.prompts(self.vocab_size)
        new = self._forget(prompts, work.keep)
        start = time.perf_counter()
        tokens = [self._prefill(stream, prompt, new[stream])
                  for stream, prompt in enumerate(prompts)]  # fmt: skip
        middle = time.perf_counter()
        for position in range(work.prompt_tokens, work.context - 1):
            rows = [(token, position, stream, True) for stream, token in enumerate(tokens)]
            tokens = self._decode(rows)
        end = time.perf_counter()
        steps = (work.new_tokens - 1) * work.streams
        computed = sum(len(prompt) - kept for prompt, kept in zip(prompts, new, strict=True))
        return {
            "prefill_tokens_per_s": computed / (middle - start),
            "decode_tokens_per_s": steps / (end - middle) if steps else 0.0,
        }

    def _forget(self, prompts: Sequence[list[int]], keep: bool) -> list[int]:
        """Removes what the prompts cannot use; how many tokens of each are there already."""
        result = []
        for stream, prompt in enumerate(prompts):
            known = 0
            if keep:
                kept = self._kept[stream]
                pairs = zip(kept, prompt[:-1], strict=False)
                known = next((i for i, (a, b) in enumerate(pairs) if a != b),
                             min(len(kept), len(prompt) - 1))  # fmt: skip
            low.llama_memory_seq_rm(self._memory, stream, known, -1)
            self._kept[stream] = list(prompt)
            result.append(known)
        return result

    def _prefill(self, stream: int, prompt: list[int], known: int) -> int:
        token = -1
        for start in range(known, len(prompt), self._batch_size):
            stop = min(start + self._batch_size, len(prompt))
            rows = [(prompt[at], at, stream, at == len(prompt) - 1) for at in range(start, stop)]
            token = (self._decode(rows) or [-1])[0]
        return token

    def _decode(self, rows: Sequence[_Row]) -> list[int]:
        """Runs a batch; the greedy token of each row that wants logits."""
        batch = self._batch
        batch.n_tokens = len(rows)
        wanting = []
        for index, (token, position, stream, wants) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = stream
            batch.logits[index] = wants
            if wants:
                wanting.append(index)
        status = low.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode of {len(rows)} rows failed with status {status}")
        return [self._best(index) for index in wanting]

    def _best(self, index: int) -> int:
        logits = low.llama_get_logits_ith(self._context, index)
        floats = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))
        return int(np.ctypeslib.as_array(floats, (self.vocab_size,)).argmax())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--cpus", default="")
    parser.add_argument("--plain-attention", action="store_true")
    arguments = parser.parse_args()

    def make() -> tuple[dict[str, Any], Callable[[Work], dict[str, Any]]]:
        pin(arguments.cpus)
        peer = LlamaCpp(
            arguments.model,
            threads=arguments.threads,
            context=arguments.context,
            streams=arguments.streams,
            plain_attention=arguments.plain_attention,
        )
        description = {
            "engine": "llama.cpp",
            "llama-cpp-python": importlib.metadata.version("llama-cpp-python"),
            "system_info": low.llama_print_system_info().decode(),
        }
        return description, peer.measure

    serve(make)


if __name__ == "__main__":
    main()
