"""What a GGUF file says of a model: its architecture, its sizes, and the names of its tensors.

Knows the families that llama.cpp is compared with; knows no weights.
"""

from __future__ import annotations

import gguf

from bandweave.models.attention_spec import HeadsSpec, LatentSpec
from bandweave.models.mlp_spec import SIGMOID, MixtureSpec
from bandweave.models.spec import ModelSpec

_ARCHITECTURES = {
    "llama": "llama", "qwen_moe": "qwen3moe", "deepseek": "deepseek2", "gpt_oss": "gpt-oss",
}  # fmt: skip
_FILE_TYPES = {"q4": gguf.LlamaFileType.MOSTLY_Q4_0, "q8": gguf.LlamaFileType.MOSTLY_Q8_0}
_NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
    "input_norm": "attn_norm", "post_norm": "ffn_norm", "q_proj": "attn_q", "k_proj": "attn_k",
    "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up",
    "down_proj": "ffn_down", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm",
    "q_a_proj": "attn_q_a", "q_a_norm": "attn_q_a_norm", "q_b_proj": "attn_q_b",
    "kv_a_proj": "attn_kv_a_mqa", "kv_a_norm": "attn_kv_a_norm", "router": "ffn_gate_inp",
    "shared_expert.gate_proj": "ffn_gate_shexp", "shared_expert.up_proj": "ffn_up_shexp",
    "shared_expert.down_proj": "ffn_down_shexp", "sinks": "attn_sinks",
}  # fmt: skip


def architecture_of(spec: ModelSpec) -> str:
    """GGUF's name of the architecture; ``ValueError`` for a model that cannot be exported."""
    found = _ARCHITECTURES.get(spec.family)
    if found is None:
        raise ValueError(f"models of the family {spec.family} cannot be exported")
    attention = spec.layers[0].attention
    rope = attention.rope if isinstance(attention, HeadsSpec | LatentSpec) else None
    scaling = None if rope is None else rope.scaling
    if rope is None or (scaling is not None and scaling.kind != "yarn"):
        raise ValueError(f"the rope of this {spec.family} model cannot be exported")
    if found == "qwen3moe" and spec.heads.qk_norm != "head":
        raise ValueError("of Qwen's mixtures only those of Qwen3 can be exported")
    if found == "llama" and (scaling is not None or spec.heads.window):
        raise ValueError("only plain Llama models can be exported")
    return found


def tensor_name(name: str, spec: ModelSpec) -> str:
    """GGUF's name of the tensor that bandweave calls ``name``; ``ValueError`` where it has no
    place."""
    first, *rest = name.split(".")
    stem, kind = name, "weight"
    block = ""
    if first == "layers" and len(rest) > 1:
        block, stem = f"blk.{rest[0]}.", ".".join(rest[1:])
    if stem == "router.correction":
        return f"{block}exp_probs_b.bias"
    if stem.endswith(".bias"):
        stem, kind = stem.removesuffix(".bias"), "bias"
    if stem == "post_norm" and spec.family == "gpt_oss":
        return f"{block}post_attention_norm.weight"
    if stem not in _NAMES:
        raise ValueError(f"tensor {name} has no place in a GGUF file of {spec.family}")
    return f"{block}{_NAMES[stem]}.{kind}"


def write(writer: gguf.GGUFWriter, spec: ModelSpec, name: str, weight_format: str) -> None:
    """Writes all that a GGUF file says besides its tensors and its tokenizer."""
    writer.add_name(name)
    writer.add_context_length(spec.context_length)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_block_count(spec.num_layers)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    writer.add_vocab_size(spec.vocab_size)
    writer.add_file_type(_FILE_TYPES[weight_format])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_attention(writer, spec)
    _write_mlp(writer, spec)


def _write_attention(writer: gguf.GGUFWriter, spec: ModelSpec) -> None:
    attention = spec.layers[0].attention
    assert isinstance(attention, HeadsSpec | LatentSpec)
    rope = attention.rope
    assert rope is not None
    writer.add_head_count(attention.num_heads)
    if isinstance(attention, LatentSpec):
        # llama.cpp sees one KV head whose keys are the latent and the rotated key.
        writer.add_head_count_kv(1)
        writer.add_key_length(attention.kv_rank + attention.rope_dim)
        writer.add_value_length(attention.kv_rank)
        writer.add_key_length_mla(attention.query_dim)
        writer.add_value_length_mla(attention.v_dim)
        writer.add_kv_lora_rank(attention.kv_rank)
        if attention.q_rank is not None:
            writer.add_q_lora_rank(attention.q_rank)
    else:
        writer.add_head_count_kv(attention.num_kv_heads)
        writer.add_key_length(attention.head_dim)
        writer.add_value_length(attention.head_dim)
        windows = {one.attention.window for one in spec.layers
                   if isinstance(one.attention, HeadsSpec)} - {None}  # fmt: skip
        for window in windows:
            writer.add_sliding_window(window)
    writer.add_rope_dimension_count(rope.rotary_dim)
    writer.add_rope_freq_base(rope.theta)
    if (scaling := rope.scaling) is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(scaling.original_context_length)
        writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)
        if scaling.mscale_all_dim:
            writer.add_rope_scaling_yarn_log_mul(0.1 * scaling.mscale_all_dim)


def _write_mlp(writer: gguf.GGUFWriter, spec: ModelSpec) -> None:
    mixtures = [one.mlp for one in spec.layers if isinstance(one.mlp, MixtureSpec)]
    dense = [one.mlp for one in spec.layers if not isinstance(one.mlp, MixtureSpec)]
    sizes = [one.intermediate_size for one in (*dense, *mixtures)]
    writer.add_feed_forward_length(sizes[0])
    if not mixtures:
        return
    mlp, router = mixtures[0], mixtures[0].router
    writer.add_expert_count(mlp.num_experts)
    writer.add_expert_used_count(mlp.top_k)
    writer.add_expert_feed_forward_length(mlp.intermediate_size)
    if dense:
        writer.add_leading_dense_block_count(len(dense))
    if spec.family == "deepseek":
        sigmoid = router.scoring == SIGMOID
        function = gguf.ExpertGatingFuncType
        writer.add_expert_gating_func(function.SIGMOID if sigmoid else function.SOFTMAX)
        writer.add_expert_weights_norm(router.normalise)
        writer.add_expert_weights_scale(router.factor)
        writer.add_expert_shared_count(mlp.shared_size // mlp.intermediate_size)
        if router.groups > 1:
            writer.add_expert_group_count(router.groups)
            writer.add_expert_group_used_count(router.top_groups)
