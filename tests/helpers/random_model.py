"""Random weights for any ModelSpec, the same on every machine, and specs of awkward sizes.

The weights come from raw PCG64 words and IEEE arithmetic alone, so that neither a numpy release
nor a libm can change them: stored reference values depend on them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.models.attention_spec import HeadsSpec, LatentSpec, LinearSpec
from bandweave.models.mlp_spec import (
    SIGMOID,
    SOFTMAX_OF_CHOSEN,
    TWO_LARGEST,
    GateSpec,
    MixtureSpec,
    Mlp,
    MlpSpec,
    RouterSpec,
)
from bandweave.models.places import Placed
from bandweave.models.registry import build_graph
from bandweave.models.rope import RopeScaling, RopeSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.ranges import Range

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """A TensorSource over arrays; ``stored`` is ``"f32"`` or ``"bf16"``."""

    tensors: Mapping[str, F32]
    stored: str = "f32"

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def dtype(self, name: str) -> str:
        return self.stored

    def item_bits(self, name: str) -> float:
        return 16 if self.stored == "bf16" else 32

    def file_key(self, name: str) -> str:
        return hashlib.sha256(self.tensors[name].tobytes()).hexdigest()

    def rows_in_file(self, name: str, rows: Range, columns: Range | None = None) -> None:
        """They are in no file."""

    def read(self, name: str, rows: Range, columns: Range | None = None) -> npt.NDArray[np.generic]:
        values = self.tensors[name][rows.start : rows.stop]
        if columns is not None:
            values = values[:, columns.start : columns.stop]
        values = np.ascontiguousarray(values)
        if self.stored == "bf16":
            return (values.view(np.uint32) >> 16).astype(np.uint16)
        return values


def turned_back(values: F32, placed: Placed) -> F32:
    """A tensor's values as the rows that are stored in its place."""
    if not placed.turned:
        return values
    groups = values.reshape(-1, placed.turned, values.shape[1]).swapaxes(1, 2)
    return np.ascontiguousarray(groups.reshape(-1, placed.turned))


def bell(seed: int, name: str, shape: tuple[int, ...]) -> F32:
    """Numbers of mean 0 and variance 1, near to normal: sums of four uniform ones."""
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()[:16]
    count = int(np.prod(shape))
    words = np.random.PCG64(int.from_bytes(key, "little")).random_raw(4 * count)
    a, b, c, d = ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(4, count)
    return ((((a + b) + c) + d - 2.0) * float(np.sqrt(3.0))).astype(np.float32).reshape(shape)


def random_tensors(
    spec: ModelSpec, seed: int, *, bf16: bool = False, further: bool = False
) -> dict[str, F32]:
    """The model's tensors by bandweave's names, with activations of magnitude about 1.

    Matrices have variance ``1 / inputs``, the embedding 1, biases 0.1 squared; norm weights are
    about 1. Corrections of routers differ as much as scores do, so that they change choices, and
    recurrent states are forgotten over some twenty rows. ``bf16`` rounds all of them to bf16,
    towards zero. With ``further`` those of the further layer, too.
    """
    tensors: dict[str, F32] = {}
    for weight in build_graph(spec, further=further).weights():
        values = bell(seed, weight.name, weight.shape)
        if weight.name.endswith(".bias"):
            values = values * np.float32(0.1)
        elif weight.name.endswith(".correction"):
            values = values * np.float32(0.2)
        elif weight.name.endswith(".delta_rate"):
            values = values - np.float32(3)
        elif len(weight.shape) == 1:
            values = np.float32(1) + values * np.float32(0.1)
        elif weight.name != "embed_tokens" or spec.tied_embeddings:
            values = values * np.float32(1 / np.sqrt(weight.shape[1]))
        if bf16:
            values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        tensors[weight.name] = values
    return tensors


def random_source(
    spec: ModelSpec, seed: int, *, bf16: bool = False, further: bool = False
) -> MemorySource:
    """``random_tensors`` as a source."""
    return MemorySource(
        tensors=random_tensors(spec, seed, bf16=bf16, further=further),
        stored="bf16" if bf16 else "f32",
    )


def tiny_spec(**changes: object) -> ModelSpec:
    """A small Llama; keyword arguments replace fields (``head_dim`` sets the rope's width too)."""
    fields: dict[str, Any] = {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "intermediate_size": 128,
        "vocab_size": 256,
        "context_length": 512,
        "norm_eps": 1e-5,
    }
    fields.update(changes)
    fields.setdefault("rope", RopeSpec(rotary_dim=fields["head_dim"]))
    return uniform_spec(**fields)


def uniform_spec(
    *,
    num_layers: int,
    family: str = "llama",
    mlp_bias: bool = False,
    intermediate_size: int,
    **fields: Any,
) -> ModelSpec:
    """A model whose layers are all alike, from the fields of all its parts."""
    own = {name: fields.pop(name) for name in list(fields) if name in _MODEL_FIELDS}
    layer = LayerSpec(
        attention=HeadsSpec(**fields),
        mlp=MlpSpec(intermediate_size=intermediate_size, bias=mlp_bias),
    )
    return ModelSpec(family=family, layers=(layer,) * num_layers, **own)


def hybrid(spec: ModelSpec, *, every: int = 2, **linear: Any) -> ModelSpec:
    """The model with a gated delta net in all layers but one in ``every``, whose heads have
    gates; ``linear`` are its fields."""
    state = LinearSpec(**linear)
    layers = tuple(
        dataclasses.replace(
            layer,
            attention=state if (index + 1) % every
            else dataclasses.replace(layer.attention, output_gate=True),
        )
        for index, layer in enumerate(spec.layers)
    )  # fmt: skip
    return dataclasses.replace(spec, layers=layers)


_MODEL_FIELDS = {field.name for field in dataclasses.fields(ModelSpec)}


def mixed(spec: ModelSpec, *, dense: int = 0, mlp: Mlp, **attention: Any) -> ModelSpec:
    """The model with other MLPs behind its first ``dense`` layers, and with latent attention where
    its fields are given."""
    changes: dict[str, Any] = {}
    if attention:
        changes["attention"] = LatentSpec(**attention)
    layers = tuple(
        dataclasses.replace(layer, **changes, **({"mlp": mlp} if index >= dense else {}))
        for index, layer in enumerate(spec.layers)
    )
    return dataclasses.replace(spec, layers=layers)


ODD_SPECS: Mapping[str, ModelSpec] = {
    "ten_heads_of_8": tiny_spec(
        hidden_size=80, num_layers=3, num_heads=10, num_kv_heads=5, head_dim=8,
        intermediate_size=172, vocab_size=301, tied_embeddings=True,
    ),
    "heads_of_80": tiny_spec(
        hidden_size=96, num_heads=8, num_kv_heads=2, head_dim=80,
        intermediate_size=200, vocab_size=600,
    ),
    "biases": tiny_spec(
        hidden_size=72, num_heads=6, num_kv_heads=6, head_dim=12, intermediate_size=333,
        vocab_size=520, qkv_bias=True, output_bias=True, mlp_bias=True,
    ),
    "qk_norm_window": tiny_spec(
        family="qwen3", hidden_size=68, num_layers=3, num_heads=7, num_kv_heads=1, head_dim=24,
        intermediate_size=450, vocab_size=301, tied_embeddings=True, qk_norm="head",
        window=37,
    ),
    "llama3_rope": tiny_spec(
        hidden_size=64, num_layers=5, num_heads=6, num_kv_heads=3, head_dim=20,
        intermediate_size=100, vocab_size=700,
        rope=RopeSpec(
            theta=500000.0,
            rotary_dim=20,
            scaling=RopeScaling(kind="llama3", factor=8.0, original_context_length=64),
        ),
    ),
    "partial_rope": tiny_spec(
        hidden_size=64, num_layers=4, num_heads=8, num_kv_heads=4, head_dim=16,
        intermediate_size=260, vocab_size=256, rope=RopeSpec(rotary_dim=8),
    ),
    # Routed experts of one unit beside a shared one of three: nodes may have the latter alone.
    "grouped_experts": mixed(
        tiny_spec(hidden_size=72, num_layers=3, num_heads=5, num_kv_heads=5, vocab_size=300),
        dense=1,
        mlp=MixtureSpec(
            num_experts=8, top_k=3, intermediate_size=50, shared_size=130,
            router=RouterSpec(
                scoring=SIGMOID, correction=True, groups=4, top_groups=2, group_score=TWO_LARGEST,
                normalise=True, factor=2.5,
            ),
        ),
    ),
    "biased_experts": mixed(
        tiny_spec(
            hidden_size=68, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=24, vocab_size=301,
            qkv_bias=True, output_bias=True, sinks=True, window=37,
        ),
        mlp=MixtureSpec(
            num_experts=5, top_k=2, intermediate_size=100, bias=True,
            router=RouterSpec(scoring=SOFTMAX_OF_CHOSEN, logit_bias=True),
            gate=GateSpec(function="clamped_silu", limit=7.0, alpha=1.702),
        ),
    ),
    "latent_queries": mixed(
        tiny_spec(hidden_size=60, num_layers=3, vocab_size=260),
        dense=2,
        mlp=MixtureSpec(
            num_experts=6, top_k=2, intermediate_size=90,
            router=RouterSpec(scoring=SIGMOID, correction=True, normalise=True),
        ),
        num_heads=5, q_rank=40, kv_rank=50, nope_dim=24, rope_dim=10, v_dim=20,
        rope=RopeSpec(
            rotary_dim=10,
            interleaved=True,
            scaling=RopeScaling(
                kind="yarn", factor=40.0, original_context_length=64, mscale=1.0,
                mscale_all_dim=1.0,
            ),
        ),
    ),
    "latent_gated_expert": mixed(
        tiny_spec(hidden_size=64, num_layers=2, vocab_size=270),
        mlp=MixtureSpec(
            num_experts=9, top_k=4, intermediate_size=70, shared_size=40, shared_gate=True
        ),
        num_heads=7, q_rank=None, kv_rank=32, nope_dim=16, rope_dim=8, v_dim=18,
        rope=RopeSpec(rotary_dim=8),
    ),
    # As many key heads as query heads and fewer; a node may have no state at all.
    "states": hybrid(
        tiny_spec(
            family="qwen3_5", hidden_size=68, num_layers=3, num_heads=6, num_kv_heads=2,
            head_dim=24, intermediate_size=150, vocab_size=300, qk_norm="head", norm_offset=1.0,
            rope=RopeSpec(rotary_dim=6),
        ),
        key_heads=3, value_heads=6, key_dim=20, value_dim=70, conv_kernel=4,
    ),
}  # fmt: skip
