"""Configs whose model is part of another one, or that are silent where their class is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bandweave.models.attention_spec import HeadsSpec, LatentSpec
from bandweave.models.config import ConfigError
from bandweave.models.known_models import known_config, known_model
from bandweave.models.registry import spec_from_config
from bandweave.models.rope import RopeSpec
from bandweave.models.spec import ModelSpec

SIZES: Mapping[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "intermediate_size": 96, "vocab_size": 300, "max_position_embeddings": 512,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def ropes(spec: ModelSpec) -> list[RopeSpec | None]:
    heads = [layer.attention for layer in spec.layers]
    return [one.rope for one in heads if isinstance(one, HeadsSpec)]


def refused(config: Mapping[str, Any], *parts: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_from_config(config)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


# --- wholes ---


@pytest.mark.parametrize("named", [{"model_type": "mistral"}, {}])
def test_mistral_3_is_its_text(named: Mapping[str, str]) -> None:
    text = {**SIZES, "sliding_window": None, "rope_theta": 1e9}
    whole = {"model_type": "mistral3", "text_config": {**text, **named}}
    plain = spec_from_config({**text, "model_type": "mistral", "tie_word_embeddings": True})
    assert spec_from_config(whole) == plain
    listed = {**whole, "architectures": ["Mistral3ForConditionalGeneration"]}
    assert spec_from_config({**listed, "tie_word_embeddings": False}) == replace(
        plain, tied_embeddings=False
    )
    # The whole's word goes before its text's.
    untied = {**text, **named, "tie_word_embeddings": False}
    assert not spec_from_config({**whole, "text_config": untied}).tied_embeddings
    both = {**whole, "text_config": untied, "tie_word_embeddings": True}
    assert spec_from_config(both).tied_embeddings


def test_other_texts_are_refused() -> None:
    text = {**SIZES, "model_type": "mistral4"}
    refused({"model_type": "mistral3", "text_config": text}, "'mistral4'", "mistral or ministral3")
    refused({**SIZES, "model_type": "mistral", "text_config": text}, "text_config")
    kimi = {"model_type": "kimi_k25", "text_config": {"model_type": "kimi_linear"}}
    refused(kimi, "'kimi_linear'", "deepseek_v3 or kimi_k2")


def test_kimi_as_transformers_saves_it() -> None:
    config = known_config("kimi-k2.5")
    saved = {**config, "architectures": ["Kimi_K25ForConditionalGeneration"]}
    assert spec_from_config(saved) == spec_from_config(config)


def test_ministral_3_runs_up_to_where_it_scales_queries() -> None:
    silent = spec_from_config(
        {**SIZES, "model_type": "ministral3", "max_position_embeddings": 1 << 18}
    )
    assert silent.run_length == 16384 and "llama_4_scaling_beta" in silent.beyond_run_length
    scaling = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
    config = {**SIZES, "model_type": "ministral3", "rope_parameters": scaling}
    spec = spec_from_config(config)
    assert spec.run_length == 128 and spec.context_length == 512
    without = {**config, "rope_parameters": {**scaling, "llama_4_scaling_beta": 0}}
    assert spec_from_config(without).run_length == 512
    refused({**config, "rope_parameters": YARN}, "llama_4_scaling_beta")
    assert "16384 tokens" in known_model("devstral-small-2-24b").why_not_run(16385)
    assert known_model("devstral-small-2-24b").why_not_run(16384) == ""


# --- ropes ---


def test_gpt_oss_without_a_rope_has_yarn() -> None:
    config = known_config("gpt-oss-20b")
    silent = {name: value for name, value in config.items() if name != "rope_scaling"}
    assert ropes(spec_from_config(silent)) == ropes(spec_from_config(config))
    plain = spec_from_config({**silent, "rope_parameters": {"rope_type": "default"}})
    (rope,) = set(ropes(plain))
    assert rope == RopeSpec(theta=150000.0, rotary_dim=64)


def test_a_factor_of_null_is_the_ratio_of_contexts() -> None:
    spec = spec_from_config(
        {**SIZES, "model_type": "llama", "rope_scaling": {**YARN, "factor": None}}
    )
    assert ropes(spec) == ropes(
        spec_from_config({**SIZES, "model_type": "llama", "rope_scaling": YARN})
    )
    lacking = {name: value for name, value in YARN.items() if name != "factor"}
    refused({**SIZES, "model_type": "llama", "rope_scaling": lacking}, "'factor'")


def test_gemma_3_in_either_spelling_and_in_both() -> None:
    config = {**SIZES, "model_type": "gemma3_text", "sliding_window_pattern": 2}
    linear = {"rope_type": "linear", "factor": 8.0}
    own = {"sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
           "full_attention": {**linear, "rope_theta": 5e5}}  # fmt: skip
    newer = ropes(spec_from_config({**config, "rope_parameters": own}))
    older = {"rope_scaling": linear, "rope_theta": 5e5, "rope_local_base_freq": 5e3}
    assert ropes(spec_from_config({**config, **older})) == newer
    unscaled = {**own, "full_attention": {"rope_type": "default", "rope_theta": 5e5}}
    mixed = {**config, "rope_parameters": unscaled, "rope_scaling": linear}
    assert ropes(spec_from_config(mixed)) == newer


# --- what else is silent ---


def test_windows_of_qwen2_s_mixtures_end_at_a_layer() -> None:
    """The other way round than in its dense models."""
    config = {
        **known_config("qwen2-57b-a14b"), "num_hidden_layers": 6, "use_sliding_window": True,
        "sliding_window": 100, "max_window_layers": 3, "layer_types": None,
    }  # fmt: skip
    windows = [getattr(layer.attention, "window", 0) for layer in spec_from_config(config).layers]
    assert windows == [100, None, 100, None, None, None]


def test_a_bound_of_weights_that_could_be_reached_is_refused() -> None:
    config = known_config("ernie-4.5-21b-a3b")
    assert spec_from_config({**config, "moe_norm_min": 1e-12}) == spec_from_config(config)
    refused({**config, "moe_norm_min": 0.1}, "moe_norm_min is 0.1")


def test_latent_attention_has_its_own_limit() -> None:
    spec = spec_from_config(known_config("deepseek-v3.2"))
    assert isinstance(spec.layers[0].attention, LatentSpec)
    assert "index_topk" in spec.beyond_run_length and spec.run_length == 2048
