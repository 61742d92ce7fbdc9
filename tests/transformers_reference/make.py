"""Makes what is stored of Hugging Face transformers and PyTorch, or checks it.

    python -m tests.transformers_reference.make           writes configs, logits and the rest
    python -m tests.transformers_reference.make --check   exits 1 if the stored ones are stale

Needs torch and transformers; run it from the repository's root with ``src`` on the path. Logits:
prompts run as one right-padded batch, new tokens one at a time with transformers' own cache. The
rest: what fields of configs mean (``make_configs``), what further layers say (``make_further``),
and which tokens there are (``make_tokens``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

from bandweave.models.registry import spec_from_config
from bandweave.models.spec import ModelSpec
from tests.helpers.laid_out import laid_out
from tests.helpers.random_model import F32, random_tensors
from tests.transformers_reference import cases, make_configs, make_further, make_tokens
from tests.transformers_reference.cases import CASES, NEW_TOKENS, PROMPT_LENGTHS, Case

# Other processors and PyTorch releases round differently; of the largest logit.
TOLERANCE = 1e-5


def build_config(case: Case) -> dict[str, Any]:
    """config.json as transformers writes it."""
    config_class = getattr(transformers, case.architecture).config_class
    config = config_class(**case.options, architectures=[case.architecture])
    return json.loads(config.to_json_string())


def build_model(case: Case, config: dict[str, Any]) -> tuple[torch.nn.Module, str]:
    """The model with our weights, and the weights' digest."""
    model_class = getattr(transformers, case.architecture)
    model = model_class._from_config(
        model_class.config_class.from_dict(config),
        attn_implementation="eager",
        dtype=torch.float32,
    )
    spec = spec_from_config(config)
    tensors = random_tensors(spec, case.seed)
    own = model.state_dict()
    state = {
        name: torch.from_numpy(values).reshape(own[name].shape)
        for name, values in as_stored(spec, tensors, own.keys()).items()
    }
    # An indexer chooses all positions of such short texts, whatever its weights are.
    state |= {name: values for name, values in own.items() if ".indexer." in name}
    if spec.tied_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model.eval(), cases.digest(tensors)


def as_stored(
    spec: ModelSpec, tensors: Mapping[str, F32], names: Collection[str], *, further: bool = False
) -> dict[str, F32]:
    """Tensors as transformers holds them in memory, several that are one there put together; of a
    tensor's places that one which ``names`` has. With ``further`` those of the further layer,
    too."""
    return laid_out(spec, tensors, lambda at: at.name in names, further=further)


def logits_of(model: Any, sequences: list[list[int]]) -> F32:
    """The stored rows, ``[rows, vocab_size]``."""
    prompts = [tokens[:-NEW_TOKENS] for tokens in sequences]
    longest = max(PROMPT_LENGTHS)
    padded = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts])
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in PROMPT_LENGTHS])
    found: dict[tuple[int, int], F32] = {}
    with torch.no_grad():
        batch = model(input_ids=padded, attention_mask=mask, use_cache=False).logits
        for sequence, (tokens, length) in enumerate(zip(sequences, PROMPT_LENGTHS, strict=True)):
            for position in range(length):
                found[sequence, position] = batch[sequence, position].numpy()
            cache = transformers.DynamicCache(config=model.config)
            model(input_ids=torch.tensor([tokens[:length]]), past_key_values=cache)
            for position in range(length, length + NEW_TOKENS):
                out = model(input_ids=torch.tensor([[tokens[position]]]), past_key_values=cache)
                found[sequence, position] = out.logits[0, -1].numpy()
    return np.stack([found[row] for row in cases.stored_rows()])


def write(case: Case, config: dict[str, Any], logits: F32, digest: str) -> None:
    case.config_path.write_text(json.dumps(config, indent=2) + "\n")
    np.savez_compressed(case.logits_path, logits=logits, digest=np.array(digest))


def problem(case: Case, config: dict[str, Any], logits: F32, digest: str) -> str | None:
    """What is stale about the stored files, or None."""
    if not (case.config_path.exists() and case.logits_path.exists()):
        return "is not stored"
    versions = {"transformers_version"}
    stored_config, with_version = case.config(), config
    if {key: value for key, value in stored_config.items() if key not in versions} != {
        key: value for key, value in with_version.items() if key not in versions
    }:
        return "has another config.json"
    with np.load(case.logits_path) as stored:
        if str(stored["digest"]) != digest:
            return "has other weights"
        if stored["logits"].shape != logits.shape:
            return f"has logits {stored['logits'].shape}, now {logits.shape}"
        error = float(np.abs(stored["logits"] - logits).max() / np.abs(logits).max())
    if not error <= TOLERANCE:
        return f"differs by {error:.1e} of the largest logit; {TOLERANCE:.0e} is allowed"
    print(f"{case.name}: differs by {error:.1e} of the largest logit")
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes or checks logits of transformers.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    torch.set_num_threads(1)
    stale = []
    for case in CASES:
        config = build_config(case)
        model, digest = build_model(case, config)
        sequences = cases.sequences(case, config["vocab_size"])
        logits = logits_of(model, sequences)
        if not check:
            write(case, config, logits, digest)
            print(f"{case.name}: {logits.shape[0]} rows, {case.logits_path.stat().st_size} bytes")
        elif reason := problem(case, config, logits, digest):
            stale.append(f"{case.name} {reason}")
    for part in (make_configs, make_further, make_tokens):
        if not check:
            part.write()
        elif reason := part.problem():
            stale.append(reason)
    for line in stale:
        print(f"stale: {line}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
