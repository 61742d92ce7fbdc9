"""config.json and GGUF metadata as the planner counts them: fields of any value, and windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bandweave.models.config import ConfigError
from bandweave.models.config_shape import shape_from_config
from bandweave.models.gguf.architectures import find_architecture
from bandweave.models.gguf.metadata import Metadata, architecture_of
from bandweave.models.known_models import known_config
from bandweave.models.registry import spec_from_config
from bandweave.planning.machines.hardware_text import hardware_from_text, hardware_from_toml
from bandweave.planning.machines.quantities import quantity

ABSURD: tuple[Any, ...] = (
    "x", "", -1, 1.5, float("nan"), 10**3000, [1], [[]], {}, {"a": 1}, True, 1 << 40,
)  # fmt: skip


def moe(**changes: Any) -> dict[str, Any]:
    return {**known_config("qwen3-30b-a3b"), **changes}


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("qwen3-30b-a3b", "num_experts"), ("qwen3-30b-a3b", "num_experts_per_tok"),
        ("qwen3-30b-a3b", "moe_intermediate_size"), ("qwen3-30b-a3b", "decoder_sparse_step"),
        ("qwen3-30b-a3b", "mlp_only_layers"), ("deepseek-v3", "first_k_dense_replace"),
        ("deepseek-v3", "n_shared_experts"), ("deepseek-v3", "moe_layer_freq"),
        ("deepseek-v3", "kv_lora_rank"), ("deepseek-v3", "q_lora_rank"),
        ("qwen3-next-80b-a3b", "full_attention_interval"), ("gemma-3-27b", "layer_types"),
        ("gemma-3-27b", "sliding_window"), ("llama-3-8b", "num_hidden_layers"),
        ("llama-3-8b", "model_type"), ("llama-3-8b", "architectures"),
        ("llama-3-8b", "tie_word_embeddings"), ("llama-3-8b", "attention_bias"),
        ("llama-3-8b", "mlp_bias"), ("llama-3-8b", "text_config"), ("llama-3-8b", "hidden_size"),
        ("glm-4.6", "use_qk_norm"),
    ],
)  # fmt: skip
def test_absurd_values_are_sentences(model: str, name: str, value: Any) -> None:
    config = {**known_config(model), name: value}
    try:
        shape = shape_from_config(config)
    except ConfigError as error:
        assert name in str(error) or str(value)[:3] in str(error)
        assert len(str(error)) < 500
    else:
        assert 0 < shape.total_parameters < 1 << 90


def test_more_experts_a_token_than_there_are() -> None:
    with pytest.raises(ConfigError, match="num_experts_per_tok is 9, but num_experts is 8"):
        shape_from_config(moe(num_experts=8, num_experts_per_tok=9))


def test_layers_with_experts() -> None:
    def routed(**changes: Any) -> list[bool]:
        return [layer.experts > 0 for layer in shape_from_config(moe(**changes)).layers]

    assert all(routed())
    assert routed(num_hidden_layers=4, mlp_only_layers=[1]) == [True, False, True, True]
    assert routed(num_hidden_layers=4, decoder_sparse_step=2) == [False, True, False, True]


def windows(model_type: str, **changes: Any) -> list[int | None]:
    config = {"model_type": model_type, "num_hidden_layers": 4, "head_dim": 128, **changes}
    config = {**known_config("qwen3-8b"), **config, "architectures": None}
    shape = shape_from_config(config)
    found = [layer.attention.window for layer in shape.layers]
    if shape.runs_on_bandweave:
        own = [getattr(layer.attention, "window", 0) for layer in spec_from_config(config).layers]
        longest = shape.context_length
        assert [min(one or longest, longest) for one in found] == [one or longest for one in own]
    return found


def test_windows_are_the_engine_s() -> None:
    assert windows("llama") == [None] * 4
    assert windows("mistral") == [4096] * 4
    assert windows("mistral", sliding_window=None) == [None] * 4
    assert windows("mistral", sliding_window=100) == [100] * 4
    assert windows("qwen3", sliding_window=100) == [None] * 4
    used = {"sliding_window": 100, "use_sliding_window": True}
    assert windows("qwen3", **used) == [None] * 4
    assert windows("qwen3", **used, max_window_layers=0) == [100] * 4
    assert windows("qwen3", **used, max_window_layers=3) == [None] * 3 + [100]  # from a layer on
    assert windows("qwen2", **used, max_window_layers=3) == [None] * 3 + [100]
    assert windows("mixtral", sliding_window=100, num_experts_per_tok=2, num_local_experts=8) == (
        [100] * 4
    )


def test_architectures_are_enough() -> None:
    config = known_config("llama-3-8b")
    del config["model_type"]
    assert shape_from_config(config, name="m") == shape_from_config(
        known_config("llama-3-8b"), name="m"
    )


# --- GGUF ---


def config_from_gguf(
    fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    def vector(name: str) -> list[float]:
        raise AssertionError(name)

    data = Metadata(
        architecture=architecture_of(fields), fields=fields, shapes=shapes, vector=vector
    )
    return find_architecture(data).config(data)


def gguf_config(architecture: Any = "llama", **sizes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "block_count": 2, "embedding_length": 64, "feed_forward_length": 128,
        "attention.head_count": 4, "attention.head_count_kv": 2, "context_length": 512,
    }  # fmt: skip
    metadata = {f"{architecture}.{key}": value for key, value in {**fields, **sizes}.items()}
    shapes = {"token_embd.weight": (100, 64)}
    return config_from_gguf({**metadata, "general.architecture": architecture}, shapes)


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("name", [
    "block_count", "expert_count", "expert_used_count", "attention.key_length",
    "attention.key_length_mla", "attention.value_length", "rope.dimension_count",
    "nextn_predict_layers", "attention.sliding_window", "attention.head_count",
])  # fmt: skip
@pytest.mark.parametrize("architecture", ["llama", "deepseek2", "gpt-oss"])
def test_absurd_metadata_are_sentences(architecture: str, name: str, value: Any) -> None:
    sizes: dict[str, Any] = {}
    if architecture == "deepseek2":
        sizes = {"attention.kv_lora_rank": 64, "attention.key_length": 96, "expert_count": 4,
                 "attention.value_length": 32, "expert_used_count": 2}  # fmt: skip
    try:
        shape_from_config(gguf_config(architecture, **{**sizes, name: value}))
    except ConfigError as error:
        assert len(str(error)) < 300


_GGUF_SIZES = {
    "num_hidden_layers": "block_count", "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length", "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length", "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length", "head_dim": "attention.key_length",
    "n_shared_experts": "expert_shared_count", "first_k_dense_replace": "leading_dense_block_count",
    "kv_lora_rank": "attention.kv_lora_rank", "q_lora_rank": "attention.q_lora_rank",
    "v_head_dim": "attention.value_length_mla", "qk_rope_head_dim": "rope.dimension_count",
    "sliding_window": "attention.sliding_window", "n_group": "expert_group_count",
    "num_experts": "expert_count", "n_routed_experts": "expert_count",
    "num_local_experts": "expert_count", "num_key_value_heads": "attention.head_count_kv",
}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "model"),
    [("llama", "mixtral-8x7b"), ("llama", "llama-3.2-1b"), ("qwen2", "qwen2.5-7b"),
     ("qwen3", "qwen3-8b"), ("qwen3moe", "qwen3-235b-a22b"), ("gemma3", "gemma-3-4b"),
     ("gpt-oss", "gpt-oss-20b"), ("glm4moe", "glm-4.6"), ("minimax-m2", "minimax-m2"),
     ("deepseek2", "deepseek-r1"), ("deepseek2", "kimi-k2"), ("deepseek2", "deepseek-v2-lite")],
)  # fmt: skip
def test_gguf_sizes_count_as_the_config_does(architecture: str, model: str) -> None:
    known = known_config(model)
    sizes = {key: known[name] for name, key in _GGUF_SIZES.items() if known.get(name) is not None}
    if "kv_lora_rank" in known:
        sizes["attention.key_length_mla"] = known["qk_nope_head_dim"] + known["qk_rope_head_dim"]
        sizes["expert_gating_func"] = 1 if model == "deepseek-v2-lite" else 2
    names = {"token_embd.weight", "blk.0.attn_norm.weight"}
    names |= set() if known["tie_word_embeddings"] else {"output.weight"}
    names |= {"blk.0.attn_q.bias"} if known.get("attention_bias") else set()
    names |= {"blk.0.attn_q_norm.weight"} if known.get("use_qk_norm") else set()
    shapes = {name: (known["vocab_size"], 1) for name in names}
    metadata = {f"{architecture}.{key}": value for key, value in sizes.items()}
    config = config_from_gguf({**metadata, "general.architecture": architecture}, shapes)
    found, expected = (shape_from_config(one, name="m") for one in (config, known))
    assert found.total_parameters == expected.total_parameters
    assert found.kv_elements(10_000) == expected.kv_elements(10_000)
    assert found.read_parameters == expected.read_parameters


@pytest.mark.parametrize("architecture", [None, 3, ["llama"], "", {}])
def test_what_is_no_architecture_of_gguf(architecture: Any) -> None:
    with pytest.raises(ConfigError, match="must be the name of an architecture"):
        gguf_config(architecture)


def test_architectures_of_gguf_that_are_not_known() -> None:
    with pytest.raises(
        ConfigError, match="'mamba' is not supported in GGUF files, .*; supported are cohere2, deep"
    ):
        gguf_config("mamba")


def test_a_window_of_gguf() -> None:
    mixtral = gguf_config("llama", expert_count=4, expert_used_count=2)
    assert mixtral["sliding_window"] is None  # not what an absent field means
    window = {"attention.sliding_window": 100, "expert_count": 4, "expert_used_count": 2}
    assert gguf_config("gpt-oss", **window)["sliding_window"] == 100


# --- what users write ---


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), [],
                                   {}, None, True, "9" * 5000 + "W", "1e400W", "-3W"])  # fmt: skip
def test_quantities_that_are_not_believed(value: Any) -> None:
    with pytest.raises(ValueError, match="watts is") as caught:
        quantity(value, "W", what="watts")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x = " + "[" * 50_000, "nested too deeply"),
        ("x = " + "9" * 5000, "no TOML"),
        ("x = 3", "must be a table"),
        ("[a]\nbandwidth = 0x" + "f" * 5000 + "\nmemory = '1GB'", "[a]: bandwidth is a number"),
        ("[a]\nbandwidth = '1GB/s'\nmemory = '1GB'\nkind = []", "[a]: kind is []"),
        ("[a]\nbandwidth = '1GB/s'\nmemory = '1GB'\nhost = 3", "[a]: host is 3"),
        ("[a]\nbandwidth = '1GB/s'\nmemory = '1GB'\nx = 3", "[a]: 'x' is no field"),
        ("[a]\nbandwidth = '1GB/s'\nmemory = 1979-05-27", "[a]: memory is"),
    ],
)
def test_hardware_files_that_are_refused(text: str, part: str) -> None:
    with pytest.raises(ValueError) as caught:
        hardware_from_toml(text)
    assert part in str(caught.value) and len(str(caught.value)) < 300


def test_a_number_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="watts is a number of thousands of digits"):
        quantity(10**5000, "W", what="watts")


def test_a_description_that_is_long() -> None:
    with pytest.raises(ValueError) as caught:
        hardware_from_text("bandwidth=1GB/s," + "x" * 5000)
    assert len(str(caught.value)) < 300
