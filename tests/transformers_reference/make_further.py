"""What layers that predict further tokens say, by transformers' ``MtpModel``.

The main model reads a prompt; the layer reads each of its normed hidden states with the token that
came after, and then its own last state with one token more. ``MtpModel`` takes the kind of the
model's first layer, which in hybrids has a state; theirs is one with a cache, put together here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from transformers.modeling_layers import (  # pyright: ignore[reportMissingImports]
    MtpLayer,
    MtpModel,
)

from bandweave.models.config_window import FULL
from bandweave.models.registry import spec_from_config
from tests.helpers.random_model import F32, random_tensors
from tests.transformers_reference import cases, make
from tests.transformers_reference.cases import FURTHER, Case

# Other processors and PyTorch releases round differently; of the largest logit.
_TOLERANCE = 1e-5


class HybridLayer(torch.nn.Module):
    """The further layer of a hybrid: a layer like its last one with a cache."""

    def __init__(self, main: Any) -> None:
        super().__init__()
        base = self._base = main.model
        index = max(i for i, kind in enumerate(main.config.layer_types) if kind == FULL)
        kind, norm = type(base.layers[index]), type(base.norm)
        self.layers = torch.nn.ModuleList([MtpLayer(main.config, kind, norm, index)])

    def forward_layer(self, _: int, states: Any, places: Any, __: None, *, input_ids: Any) -> Any:
        embedded, count = self._base.embed_tokens(input_ids), input_ids.shape[1]
        mask = torch.full((count, count), -torch.inf).triu(1)[None, None]
        turned = self._base.rotary_emb(embedded, places)
        return self.layers[0](embedded, states, turned, mask, places, None)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        own = super().state_dict(*args, **kwargs)
        return {name: value for name, value in own.items() if not name.startswith("_base.")}


def _models(case: Case) -> tuple[Any, Any]:
    """The main model and its further layer."""
    config = {**make.build_config(case), **cases.FURTHER_FIELDS}
    main, _ = make.build_model(case, config)
    hybrid = "linear_num_key_heads" in config
    layer = HybridLayer(main).eval() if hybrid else MtpModel(main, 1).eval()
    plain = _plain_of_hybrids if hybrid else _plain
    own = {plain(name, config["num_hidden_layers"]): name for name in layer.state_dict()}
    spec = spec_from_config(config)
    names = {*main.state_dict(), *own}
    stored = make.as_stored(
        spec, random_tensors(spec, case.seed, further=True), names, further=True
    )
    state = {own[name]: torch.from_numpy(stored[name]) for name in own}
    layer.load_state_dict(state, strict=not hybrid)
    return main, layer


def _plain_of_hybrids(name: str, layers: int) -> str:
    """The same of Qwen's checkpoints, whose names of it have no number of a layer."""
    del layers
    rest = name.removeprefix("layers.0.")
    known = {
        "enorm.weight": "mtp.pre_fc_norm_embedding.weight",
        "hnorm.weight": "mtp.pre_fc_norm_hidden.weight",
        "eh_proj.weight": "mtp.fc.weight",
        "post_norm.weight": "mtp.norm.weight",
    }
    return known.get(rest, rest.replace("mtp_block.", "mtp.layers.0."))


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
