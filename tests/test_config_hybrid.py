"""Configs of hybrids: which layers have a state, what is the text part of multimodal ones, and what
is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bandweave.models.attention_spec import HeadsSpec, LinearSpec
from bandweave.models.config import ConfigError
from bandweave.models.known_models import known_config, known_model
from bandweave.models.mlp_spec import MixtureSpec, MlpSpec
from bandweave.models.registry import architecture_of, spec_from_config, tensor_names, text_part
from bandweave.models.spec import ModelSpec
from bandweave.models.tensor_names import named

NEXT: Mapping[str, Any] = known_config("qwen3-next-80b-a3b")
DENSE: Mapping[str, Any] = known_config("qwen3.5-27b")
MIXTURE: Mapping[str, Any] = known_config("qwen3.5-35b-a3b")


def kinds(spec: ModelSpec) -> str:
    return "".join("L" if isinstance(one.attention, LinearSpec) else "F" for one in spec.layers)


def refused(config: Mapping[str, Any], *parts: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_from_config(config)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_three_layers_with_a_state_to_one_with_a_cache() -> None:
    for config in (NEXT, DENSE, MIXTURE):
        spec = spec_from_config(config)
        assert kinds(spec) == "LLLF" * (spec.num_layers // 4) and spec.has_state
        assert spec.norm_offset == 1.0
        heads = spec.layers[3].attention
        assert isinstance(heads, HeadsSpec) and heads.output_gate and heads.qk_norm == "head"
        assert heads.rope is not None and heads.rope.rotary_dim == 64
        assert heads.rope.theta == 1e7
    assert not spec_from_config(known_config("qwen3-8b")).has_state


def test_what_the_models_are() -> None:
    state = spec_from_config(NEXT).layers[0].attention
    assert state == LinearSpec(
        key_heads=16, value_heads=32, key_dim=128, value_dim=128, conv_kernel=4
    )
    mixture = spec_from_config(MIXTURE).layers[0].mlp
    assert isinstance(mixture, MixtureSpec) and mixture.shared_gate and mixture.router.normalise
    assert (mixture.num_experts, mixture.top_k, mixture.shared_size) == (256, 8, 512)
    assert isinstance(spec_from_config(DENSE).layers[0].mlp, MlpSpec)
    # 32 heads of 128 by 128 in 36 layers
    shape = known_model("qwen3-next-80b-a3b")
    assert sum(layer.attention.state_elements for layer in shape.layers) == 36 * 32 * 128 * 128
    assert shape.kv_elements(1000) - shape.kv_elements(0) == 1000 * 12 * 2 * 2 * 256


def test_kinds_are_listed_or_counted() -> None:
    listed = ["full_attention", "linear_attention"]
    assert kinds(spec_from_config({**NEXT, "num_hidden_layers": 2, "layer_types": listed})) == "FL"
    changed = {**NEXT, "num_hidden_layers": 5, "full_attention_interval": 2}
    assert kinds(spec_from_config(changed)) == "LFLFL"
    changed["full_attention_interval"] = None
    assert kinds(spec_from_config(changed)) == "LLLFL"


def test_layers_with_experts() -> None:
    changed = {**NEXT, "num_hidden_layers": 4, "mlp_only_layers": [1], "decoder_sparse_step": 1}
    sparse = [isinstance(one.mlp, MixtureSpec) for one in spec_from_config(changed).layers]
    assert sparse == [True, False, True, True]
    none = spec_from_config({**NEXT, "num_experts": 0})
    assert all(isinstance(one.mlp, MlpSpec) for one in none.layers)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"layer_types": ["linear_attention"]}, ("layer_types", "1 entries")),
        ({"layer_types": ["sliding_attention"] * 48}, ("layer_types", "sliding_attention")),
        ({"full_attention_interval": 0}, ("full_attention_interval",)),
        ({"linear_num_value_heads": 33}, ("33 value heads", "16 key heads")),
        ({"linear_conv_kernel_dim": 1000}, ("conv_kernel",)),
        ({"linear_key_head_dim": 1 << 12}, ("key_dim",)),
        ({"attn_output_gate": False}, ("attn_output_gate",)),
        ({"hidden_act": "gelu"}, ("hidden_act",)),
        ({"text_config": {"hidden_size": 8}}, ("text_config",)),
        ({"num_experts_per_tok": 600}, ("num_experts_per_tok",)),
    ],
)
def test_what_is_refused(changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused({**NEXT, **changes}, *parts)


def test_the_text_of_a_multimodal_model() -> None:
    for config, own in ((DENSE, "Qwen3_5ForCausalLM"), (MIXTURE, "Qwen3_5MoeForCausalLM")):
        text = text_part(config)
        assert architecture_of(text) == own and "text_config" not in text
        assert spec_from_config(text) == spec_from_config(config)
        for tied in (True, False):
            whole = {**config, "tie_word_embeddings": tied}
            assert spec_from_config(whole).tied_embeddings is tied
            assert spec_from_config(text_part(whole)).tied_embeddings is tied
    assert text_part(NEXT) == NEXT
    inner = {**DENSE["text_config"], "attn_logit_softcapping": 30.0}
    refused({**DENSE, "text_config": inner}, "attn_logit_softcapping")
    refused({**text_part(DENSE), "text_config": inner}, "text_config is given")


def test_where_the_tensors_of_a_state_lie() -> None:
    names = {family: tensor_names(family) for family in ("qwen3_next", "qwen3_5")}
    stored = "model.layers.7.linear_attn"
    for family, part in (("qwen3_next", "in_proj_qkvz"), ("qwen3_5", "in_proj_qkv")):
        assert named(names[family], "layers.7.delta_q_proj") == f"{stored}.{part}.weight"
        assert named(names[family], "layers.7.delta_v_conv") == f"{stored}.conv1d.weight"
        assert named(names[family], "layers.7.delta_rate") == f"{stored}.A_log"
