"""Names of a model's tensors in a GGUF file, by bandweave's; see ``models.tensor_names``.

Source: llama.cpp's gguf-py/gguf/constants.py and what its converters change.
"""

from __future__ import annotations

from bandweave.models.attention_spec import HeadsSpec, query_heads
from bandweave.models.deepseek import latent_heads
from bandweave.models.spec import LayerSpec
from bandweave.models.tensor_names import Names, Slice, either, fused

_GATE, _UP = "layers.{}.experts.{}.gate_proj", "layers.{}.experts.{}.up_proj"
_DOWN = "layers.{}.experts.{}.down_proj"

_OUTSIDE: Names = {
    "embed_tokens": "token_embd.weight",
    "lm_head": "output.weight",
    "norm": "output_norm.weight",
}

#: What nearly all architectures have.
COMMON: Names = {
    **_OUTSIDE,
    "layers.{}.input_norm": "blk.{}.attn_norm.weight",
    "layers.{}.post_norm": "blk.{}.ffn_norm.weight",
    **{
        f"layers.{{}}.{ours}{ending}": f"blk.{{}}.{theirs}.{stored}"
        for ours, theirs in (
            ("q_proj", "attn_q"), ("k_proj", "attn_k"), ("v_proj", "attn_v"),
            ("o_proj", "attn_output"), ("gate_proj", "ffn_gate"), ("up_proj", "ffn_up"),
            ("down_proj", "ffn_down"),
        )
        for ending, stored in (("", "weight"), (".bias", "bias"))
    },
}  # fmt: skip

QK_NORMS: Names = {
    "layers.{}.q_norm": "blk.{}.attn_q_norm.weight",
    "layers.{}.k_norm": "blk.{}.attn_k_norm.weight",
}

#: Norms on both sides of each block.
BOTH_NORMS: Names = {
    "layers.{}.attention_out_norm": "blk.{}.post_attention_norm.weight",
    "layers.{}.mlp_out_norm": "blk.{}.post_ffw_norm.weight",
}

#: The norm of what the MLP reads, under another name.
POST_NORM: Names = {"layers.{}.post_norm": "blk.{}.post_attention_norm.weight"}

FUSED_QKV: Names = fused(
    "blk.{}.attn_qkv.weight", "layers.{}.q_proj", "layers.{}.k_proj", "layers.{}.v_proj"
)
FUSED_GATE_UP: Names = fused("blk.{}.ffn_up.weight", "layers.{}.gate_proj", "layers.{}.up_proj")


def _experts(ending: str, stored: str) -> Names:
    return either(
        {
            _GATE + ending: Slice(tensor=f"blk.{{}}.ffn_gate_exps.{stored}", entry=True),
            _UP + ending: Slice(tensor=f"blk.{{}}.ffn_up_exps.{stored}", entry=True),
            _DOWN + ending: Slice(tensor=f"blk.{{}}.ffn_down_exps.{stored}", entry=True),
        },
        fused(f"blk.{{}}.ffn_gate_up_exps.{stored}", _GATE + ending, _UP + ending, entry=True),
        {
            _GATE + ending: f"blk.{{}}.ffn_gate.{{}}.{stored}",
            _UP + ending: f"blk.{{}}.ffn_up.{{}}.{stored}",
            _DOWN + ending: f"blk.{{}}.ffn_down.{{}}.{stored}",
        },
    )


#: A mixture of experts: in stacks, in stacks of gate rows over up rows, or each on its own.
MIXTURE: Names = {
    **_experts("", "weight"),
    **_experts(".bias", "bias"),
    "layers.{}.router": "blk.{}.ffn_gate_inp.weight",
    "layers.{}.router.bias": "blk.{}.ffn_gate_inp.bias",
    "layers.{}.router.correction": "blk.{}.exp_probs_b.bias",
    "layers.{}.shared_expert.gate_proj": "blk.{}.ffn_gate_shexp.weight",
    "layers.{}.shared_expert.up_proj": "blk.{}.ffn_up_shexp.weight",
    "layers.{}.shared_expert.down_proj": "blk.{}.ffn_down_shexp.weight",
    # A row, which is stored as a vector.
    "layers.{}.shared_expert.gate": "blk.{}.ffn_gate_inp_shexp.weight",
}


def _head_dim(layer: LayerSpec) -> int:
    assert isinstance(layer.attention, HeadsSpec), "only heads are turned in pairs"
    return layer.attention.head_dim


#: Queries and keys whose heads' rows were put from halves into pairs, for rope's sake.
PAIRS: Names = {
    f"layers.{{}}.{ours}{ending}": Slice(tensor=f"blk.{{}}.{theirs}.{stored}", pairs=_head_dim)
    for ours, theirs in (("q_proj", "attn_q"), ("k_proj", "attn_k"))
    for ending, stored in (("", "weight"), (".bias", "bias"))
}


def _heads(layer: LayerSpec) -> int:
    return query_heads(layer.attention)


#: Latent attention; what makes keys and values of a latent is in stacks by heads, keys' turned
#: round, or in one matrix as Hugging Face's.
LATENT: Names = {
    "layers.{}.q_a_proj": "blk.{}.attn_q_a.weight",
    "layers.{}.q_a_norm": "blk.{}.attn_q_a_norm.weight",
    "layers.{}.q_b_proj": "blk.{}.attn_q_b.weight",
    "layers.{}.kv_a_proj": "blk.{}.attn_kv_a_mqa.weight",
    "layers.{}.kv_a_norm": "blk.{}.attn_kv_a_norm.weight",
    **either(
        {
            "layers.{}.k_b_proj": Slice(tensor="blk.{}.attn_k_b.weight", heads=_heads),
            "layers.{}.v_b_proj": Slice(tensor="blk.{}.attn_v_b.weight", heads=_heads),
        },
        latent_heads("blk.{}.attn_kv_b.weight"),
    ),
}

#: The layer that predicts further tokens, behind the others.
FURTHER: Names = {
    "layers.{}.enorm": "blk.{}.nextn.enorm.weight",
    "layers.{}.hnorm": "blk.{}.nextn.hnorm.weight",
    "layers.{}.eh_proj": "blk.{}.nextn.eh_proj.weight",
    "layers.{}.shared_head_norm": "blk.{}.nextn.shared_head_norm.weight",
}
