"""The mixture's parameters under the names of DeepSeek V3's checkpoints. Knows names, no files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from mixture_model import MixtureModel, MixtureShape
from torch import Tensor

PREFIX = "model."
# Stacked parameters of experts: what comes before, and which product.
_STACKED = re.compile(r"(.*\.mlp)\.(gate_proj|up_proj|down_proj)$")
_CORRECTION = "e_score_correction_bias"


def named(model: MixtureModel) -> dict[str, Tensor]:
    """The tensors of a checkpoint: in bfloat16, the corrections of routers in float32. The further
    layer has copies of the embedding and of the head, as the published checkpoints do."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        dtype = torch.float32 if name.endswith(_CORRECTION) else torch.bfloat16
        value = tensor.detach().to(dtype).contiguous()
        stacked = _STACKED.match(name)
        if stacked:
            for expert, matrix in enumerate(value):
                full = f"{PREFIX}{stacked[1]}.experts.{expert}.{stacked[2]}.weight"
                tensors[full] = matrix.clone()
        else:
            tensors[name if name.startswith("lm_head") else PREFIX + name] = value
    further = f"{PREFIX}layers.{model.shape.num_hidden_layers}"
    tensors[f"{further}.embed_tokens.weight"] = tensors[f"{PREFIX}embed_tokens.weight"].clone()
    tensors[f"{further}.shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    return tensors


def load(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MixtureModel:
    """The model of a checkpoint, in float32."""
    model = MixtureModel(MixtureShape(**{name: config[name] for name in MixtureShape().as_dict()}))
    state: dict[str, Tensor] = {}
    for name in model.state_dict():
        stacked = _STACKED.match(name)
        if stacked:
            experts = range(model.shape.n_routed_experts)
            names = [f"{PREFIX}{stacked[1]}.experts.{e}.{stacked[2]}.weight" for e in experts]
            state[name] = torch.stack([tensors[one].float() for one in names])
        else:
            state[name] = tensors[name if name.startswith("lm_head") else PREFIX + name].float()
    model.load_state_dict(state)
    return model
