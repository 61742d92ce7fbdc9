"""What layers that predict further tokens say, by transformers' ``MtpModel``.

The main model reads a prompt; the layer reads each of its normed hidden states with the token that
came after, and then its own last state with one token more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from transformers.modeling_layers import MtpModel  # pyright: ignore[reportMissingImports]

from bandweave.models.registry import spec_from_config
from tests.helpers.random_model import F32, random_tensors
from tests.transformers_reference import cases, make
from tests.transformers_reference.cases import FURTHER, Case

# Other processors and PyTorch releases round differently; of the largest logit.
_TOLERANCE = 1e-5


def _models(case: Case) -> tuple[Any, Any]:
    """The main model and its further layer."""
    config = {**make.build_config(case), **cases.FURTHER_FIELDS}
    main, _ = make.build_model(case, config)
    layer = MtpModel(main, 1).eval()
    own = {_plain(name, config["num_hidden_layers"]): name for name in layer.state_dict()}
    spec = spec_from_config(config)
    names = {*main.state_dict(), *own}
    stored = make.as_stored(
        spec, random_tensors(spec, case.seed, further=True), names, further=True
    )
    state = {own[name]: torch.from_numpy(stored[name]) for name in own}
    layer.load_state_dict(state, strict=True)
    return main, layer


def _plain(name: str, layers: int) -> str:
    """The name in a checkpoint of what ``MtpModel`` calls so."""
    if not name.startswith("layers.0."):
        return {"embed_tokens.weight": "model.embed_tokens.weight"}.get(name, "lm_head.weight")
    rest = name.removeprefix("layers.0.").removeprefix("mtp_block.")
    if rest == "post_norm.weight":
        rest = "shared_head.norm.weight"
    return f"model.layers.{layers}.{rest}"


def _logits(case: Case) -> F32:
    """The stored rows, ``[rows, vocab_size]``."""
    main, layer = _models(case)
    found: dict[tuple[int, int], F32] = {}
    with torch.no_grad():
        for number, tokens in enumerate(cases.sequences(case, main.config.vocab_size)):
            length = cases.PROMPT_LENGTHS[number]
            ids = torch.tensor([tokens[: length + 1]])
            hidden = main.model(input_ids=ids[:, :length], use_cache=False).last_hidden_state
            states = hidden[:, : length - 1]
            for last in (length - 1, length):
                places = torch.arange(last)[None]
                made = layer.forward_layer(0, states, places, None, input_ids=ids[:, 1 : last + 1])
                for position in range(0 if last < length else length - 1, last):
                    found[number, position] = main.lm_head(made[0, position]).numpy()
                states = torch.cat([states, made[:, -1:]], dim=1)
    return np.stack([found[row] for row in cases.further_rows()])


def write() -> None:
    made = {case.name: _logits(case) for case in FURTHER}
    np.savez_compressed(cases.FURTHER_PATH, allow_pickle=False, **made)
    print(f"further: {cases.FURTHER_PATH.stat().st_size} bytes")


def problem() -> str | None:
    """What is stale about the stored file, or None."""
    if not cases.FURTHER_PATH.exists():
        return "further is not stored"
    with np.load(cases.FURTHER_PATH) as stored:
        if set(stored.files) != {case.name for case in FURTHER}:
            return "further has other cases"
        for case in FURTHER:
            logits = _logits(case)
            if stored[case.name].shape != logits.shape:
                return f"further has logits {stored[case.name].shape} of {case.name}"
            error = float(np.abs(stored[case.name] - logits).max() / np.abs(logits).max())
            if not error <= _TOLERANCE:
                return f"further differs by {error:.1e} of the largest logit in {case.name}"
    return None
