"""``python -m tests.llama_reference.make``: asks llama.cpp for the logits and stores them.

Needs llama-cpp-python, as in ``.venv-bench``. Keys and values are float32, attention is plain.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import llama_cpp as low
import numpy as np

from tests.llama_reference.cases import (
    CONFIG,
    HYBRID_KINDS,
    KINDS,
    PROMPT,
    write_case,
    write_hybrid_case,
)

TARGET = Path(__file__).parent / "logits.npz"
HYBRIDS = Path(__file__).parent / "hybrid_logits.npz"


def logits_of(path: Path) -> np.ndarray:
    """``[T, V]`` float32 of the prompt."""
    model_params = low.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = low.llama_model_load_from_file(str(path).encode(), model_params)
    params = low.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 256, 1, 1
    params.type_k = params.type_v = low.GGML_TYPE_F32
    params.flash_attn_type = low.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = low.llama_init_from_model(model, params)
    batch = low.llama_batch_init(len(PROMPT), 0, 1)
    for place, token in enumerate(PROMPT):
        batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
    batch.n_tokens = len(PROMPT)
    if low.llama_decode(context, batch):
        raise SystemExit(f"llama.cpp cannot decode {path}")
    size = CONFIG["vocab_size"]
    rows = [np.ctypeslib.as_array(low.llama_get_logits_ith(context, place), (size,)).copy()
            for place in range(len(PROMPT))]  # fmt: skip
    low.llama_batch_free(batch)
    low.llama_free(context)
    low.llama_model_free(model)
    return np.stack(rows)


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            found[kind] = logits_of(write_case(Path(folder) / f"{kind}.gguf", kind))
            print(kind, np.abs(found[kind]).max(), file=sys.stderr)
        hybrids = {
            f"{name} {kind}": logits_of(write_hybrid_case(Path(folder) / "m.gguf", name, kind))
            for name, kind in HYBRID_KINDS
        }
    np.savez_compressed(TARGET, **found)
    np.savez_compressed(HYBRIDS, **hybrids)


if __name__ == "__main__":
    main()
