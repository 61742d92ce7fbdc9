"""config.json field by field: what transformers' classes have, and what becomes of it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bandweave.models.config import ConfigError
from bandweave.models.known_models import known_config, known_model, model_names
from bandweave.models.limits import MOST_LAYERS, MOST_SIZE
from bandweave.models.registry import spec_from_config
from bandweave.models.rope import RopeSpec, rope_table
from bandweave.models.spec import ModelSpec
from tests.transformers_reference import config_cases

FAMILIES = config_cases.ARCHITECTURES
FIELDS = config_cases.stored_fields()

#: Fields that a family reads: the spec's field, and a value beside the default.
READ: Mapping[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 4711),
    "hidden_size": ("hidden_size", 2048),
    "intermediate_size": ("intermediate_size", 600),
    "num_hidden_layers": ("num_layers", 3),
    "num_attention_heads": ("num_heads", 64),
    "num_key_value_heads": ("num_kv_heads", 16),
    "head_dim": ("head_dim", 96),
    "max_position_embeddings": ("context_length", 3000),
    "rms_norm_eps": ("norm_eps", 1e-5),
    "tie_word_embeddings": ("tied_embeddings", True),
    "attention_bias": ("qkv_bias", True),
    "mlp_bias": ("mlp_bias", True),
}

#: Fields that are read too, with tests of their own below.
READ_BELOW = (
    "architectures", "hidden_act", "rope_parameters", "sliding_window", "use_sliding_window",
    "max_window_layers", "layer_types", "eos_token_id",
)  # fmt: skip

#: Fields that change nothing that an answer depends on: why, and a value.
HARMLESS: Mapping[str, tuple[str, Any]] = {
    "attention_dropout": ("dropout is for training", 0.3),
    "bos_token_id": ("the tokenizer says how a text starts", 7),
    "chunk_size_feed_forward": ("no class of these families reads it", 4),
    "dtype": ("weights are taken as they are stored", "bfloat16"),
    "id2label": ("of classifiers", {"0": "x"}),
    "initializer_range": ("of training", 0.5),
    "label2id": ("of classifiers", {"x": 0}),
    "output_hidden_states": ("what else is given out", True),
    "pad_token_id": ("the row is read like any other", 3),
    "pretraining_tp": ("the same sums in pieces; no class reads it any more", 4),
    "problem_type": ("of classifiers", "regression"),
    "return_dict": ("the form of the result", False),
    "transformers_version": ("who wrote the config", "4.0.0"),
    "use_cache": ("the same answer without", False),
    "torch_dtype": ("the older name of dtype", "float16"),
    "auto_map": ("transformers too runs its own class, unless told otherwise", {"AutoModel": "x"}),
    "_name_or_path": ("where it came from", "somebody/something"),
    "unsloth_fixed": ("a field that no class knows", True),
}

#: Fields that are refused: a value, and one that is not.
REFUSED: Mapping[str, tuple[Any, Any]] = {
    "is_encoder_decoder": (True, False),
    "is_causal": (False, True),
    "per_layer_config": ({"0": {"num_attention_heads": 2}}, {}),
    "text_config": ({"hidden_size": 8}, {}),
    "configuration_files": (["config.4.0.0.json"], []),
    "transformers_weights": ("other.safetensors", None),
    "fusion_config": ({"mlp": True}, None),
    "pruned_heads": ({"0": [1]}, {}),
    "attention_chunk_size": (128, None),
    "kv_sharing_modes": (["own", "shared"], None),
    "quantization": ({"group_size": 64, "bits": 4}, None),
    "attn_logit_softcapping": (50.0, None),
    "final_logit_softcapping": (30.0, None),
    "embedding_multiplier": (12.0, 1.0),
    "residual_multiplier": (0.22, 1.0),
    "logits_scaling": (8.0, 1),
    "attention_multiplier": (0.015, None),
    "clip_qkv": (8.0, None),
    "use_bias": (True, False),
    "alibi": (True, False),
    "rope_interleave": (True, False),
    "no_rope_layers": ([1, 0], []),
    "num_local_experts": (8, 0),
    "kv_lora_rank": (512, None),
    "partial_rotary_factor": (0.5, 1.0),
    "hidden_act": ("gelu_pytorch_tanh", "swish"),
}


def config(model_type: str, **changes: Any) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [FAMILIES[model_type]], **changes}


def said(spec: ModelSpec, attribute: str) -> Any:
    """Of the model, or of each of its layers."""
    if attribute == "mlp_bias":
        return spec.layers[0].mlp.bias
    return getattr(spec.heads if hasattr(spec.heads, attribute) else spec, attribute)


def refused(config: dict[str, Any], *parts: str) -> str:
    with pytest.raises(ConfigError) as caught:
        spec_from_config(config)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_field_of_the_classes_is_dealt_with(model_type: str) -> None:
    known = {*READ, *READ_BELOW, *HARMLESS, *REFUSED}
    assert set(FIELDS[model_type]) <= known


@pytest.mark.parametrize("model_type", FAMILIES)
def test_absent_and_null_fields_are_the_classes_defaults(model_type: str) -> None:
    defaults = FIELDS[model_type]
    absent = spec_from_config({"model_type": model_type})
    nulls = {name: None for name in READ if name in defaults} | {"rope_parameters": None}
    null = spec_from_config({"model_type": model_type, **nulls})
    for name, (attribute, _) in READ.items():
        if name in defaults and defaults[name] is not None:
            expected = defaults[name]
            assert said(absent, attribute) == expected, name
            if name == "num_key_value_heads":
                expected = defaults["num_attention_heads"]
            assert said(null, attribute) == expected, name
    assert rope_of(absent).theta == 10000.0 and rope_of(absent).scaling is None
    if model_type == "llama":
        assert absent.num_kv_heads == 32 and absent.head_dim == 128
    assert absent.heads.window == (4096 if model_type == "mistral" else None)
    assert spec_from_config(config(model_type, sliding_window=None)).heads.window is None


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("name", READ)
def test_fields_that_are_read(model_type: str, name: str) -> None:
    attribute, value = READ[name]
    if name in FIELDS[model_type]:
        assert said(spec_from_config(config(model_type, **{name: value})), attribute) == value
    else:
        refused(config(model_type, **{name: value}), name)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("name", HARMLESS)
def test_fields_that_change_nothing(model_type: str, name: str) -> None:
    plain = spec_from_config(config(model_type))
    assert spec_from_config(config(model_type, **{name: HARMLESS[name][1]})) == plain
    assert spec_from_config(config(model_type, **{name: None})) == plain


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("name", REFUSED)
def test_fields_that_are_refused_by_name(model_type: str, name: str) -> None:
    value, neutral = REFUSED[name]
    refused(config(model_type, **{name: value}), name)
    plain = spec_from_config(config(model_type))
    assert spec_from_config(config(model_type, **{name: neutral})) == plain
    assert spec_from_config(config(model_type, **{name: None})) == plain


# --- transformers' own models ---


@pytest.mark.parametrize(
    "case", config_cases.stored(), ids=lambda case: case["config"]["model_type"]
)
def test_configs_mean_what_they_mean_to_transformers(case: dict[str, Any]) -> None:
    """Whatever loads here loads there, with the same sizes, windows and rope; but null is absent
    here where transformers wants a value."""
    result = case["result"]
    try:
        spec = spec_from_config(case["config"])
    except ConfigError as error:
        inner = case["config"].get("rope_scaling") or case["config"].get("rope_parameters") or {}
        names = (*case["config"], *inner, "sliding_window", "num_key_value_heads")
        assert any(name in str(error) for name in names), error
        return
    if "error" in result:
        assert None in case["config"].values(), result["error"]
        return
    longest = config_cases.LONGEST
    found = {
        "biases": biases(spec),
        "layers": spec.num_layers,
        "heads": spec.num_heads,
        "kv_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "norm_eps": spec.norm_eps,
        "tied": spec.tied_embeddings,
        "act_of_one": 0.7311,  # SiLU
        "seen": [
            min(getattr(layer.attention, "window", 0) or longest, longest) for layer in spec.layers
        ],
        "ahead": False,
        "scale": pytest.approx(result["scale"], rel=1e-6),
    }
    table = rope_table(rope_of(spec))
    assert table.factor == found["scale"]
    assert table.frequencies == pytest.approx(result.pop("frequencies"), rel=1e-5)
    assert found == result


def rope_of(spec: ModelSpec) -> RopeSpec:
    assert spec.heads.rope is not None
    return spec.heads.rope


def biases(spec: ModelSpec) -> list[str]:
    names = []
    if spec.heads.qkv_bias:
        names += [f"self_attn.{name}_proj.bias" for name in "qkv"]
    if spec.heads.output_bias:
        names.append("self_attn.o_proj.bias")
    if spec.layers[0].mlp.bias:
        names += [f"mlp.{name}_proj.bias" for name in ("gate", "up", "down")]
    return sorted(names)


def test_the_stored_configs_try_what_they_should() -> None:
    """Not all refused, and every kind of rope and window among those that load."""
    loaded = []
    for case in config_cases.stored():
        try:
            loaded.append(spec_from_config(case["config"]))
        except ConfigError:
            continue
    assert len(loaded) > 150
    scalings = [rope_of(spec).scaling for spec in loaded]
    kinds = {None if scaling is None else scaling.kind for scaling in scalings}
    assert kinds == {None, "linear", "llama3", "yarn"}
    assert {spec.heads.window for spec in loaded} >= {None, 8, 16}


# --- rope ---

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "theta"),
    [
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_theta": None}, 1e4),
        ({"rope_scaling": {"rope_theta": 2e5}}, 2e5),
        ({"rope_scaling": {"type": "linear", "factor": 2, "rope_theta": 2e5}, "rope_theta": 5.0},
         2e5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 3e5}}, 3e5),
        ({"rope_parameters": {"rope_type": "default"}, "rope_theta": 4e5}, 4e5),
        ({"rope_parameters": {"rope_theta": None}, "rope_theta": 4e5}, 4e5),
        # rope_scaling hides rope_parameters, its theta too, unless it is empty
        ({"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 7.0}}, 1e4),
        ({"rope_scaling": {}, "rope_parameters": {"rope_theta": 7.0}}, 7.0),
        ({"rope_scaling": None, "rope_parameters": {"rope_theta": 7.0}}, 7.0),
    ],
)  # fmt: skip
def test_where_theta_stands(changes: dict[str, Any], theta: float) -> None:
    assert rope_of(spec_from_config(config("llama", **changes))).theta == theta


def test_types_of_rope() -> None:
    def scaling(**parameters: Any) -> Any:
        return rope_of(spec_from_config(config("qwen3", rope_scaling=parameters))).scaling

    assert scaling(type="default", factor=4.0) is None
    assert scaling(rope_type="default", type="linear", factor=4.0) is None  # the newer name wins
    assert scaling(rope_type=None, type="linear", factor=4.0).factor == 4.0
    assert scaling(type="linear", factor=3).kind == "linear"
    stretched = scaling(**LLAMA3, attention_factor=1.5)  # of which this type knows nothing
    assert (stretched.kind, stretched.original_context_length) == ("llama3", 512)
    del (short := dict(LLAMA3))["original_max_position_embeddings"]
    assert scaling(**short).original_context_length == 32768
    outer = config("llama", rope_parameters=LLAMA3, original_max_position_embeddings=1024)
    own = rope_of(spec_from_config(outer)).scaling
    assert own is not None and own.original_context_length == 1024


@pytest.mark.parametrize("kind", ["dynamic", "su", "mrope", "proportional", 3])
def test_types_of_rope_that_are_refused(kind: Any) -> None:
    for name in ("rope_scaling", "rope_parameters"):
        for key in ("type", "rope_type"):
            refused(config("llama", **{name: {key: kind, "factor": 4.0}}), name, repr(kind))


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "linear", "factor": 0}, "factor"),
        ({"rope_type": "linear", "factor": "2"}, "factor"),
        ({"rope_type": "linear", "factor": float("inf")}, "factor"),
        ({"rope_type": "linear", "factor": float("nan")}, "factor"),
        ({**LLAMA3, "factor": None}, "factor"),
        ({**LLAMA3, "low_freq_factor": None}, "low_freq_factor"),
        ({**LLAMA3, "high_freq_factor": 1.0}, "high_freq_factor"),
        ({**LLAMA3, "original_max_position_embeddings": 1.5}, "original_max_position_embeddings"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_fast": -1}, "beta_fast"),
        ({"rope_type": "yarn", "factor": 4.0, "truncate": 3}, "truncate"),
        ({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1.0}, "rope_theta"),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1e9}, "1e+09"),
        ({"rope_type": "longrope", "long_factor": [1.0]}, "short_factor"),
        ({"rope_type": "longrope", "short_factor": [0.0] * 64}, "short_factor"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"full_attention": {"rope_type": "default"}}, "full_attention"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("linear", "rope_scaling"),
        ([], "rope_scaling"),
    ],
)
def test_parameters_of_rope_that_are_refused(parameters: Any, part: str) -> None:
    refused(config("llama", rope_scaling=parameters), part)


# --- windows ---


@pytest.mark.parametrize(
    ("model_type", "changes", "expected"),
    [
        ("llama", {"layer_types": ["full_attention"] * 4}, None),
        ("llama", {"sliding_window": 2048}, None),  # as long as the longest context
        ("mistral", {}, 4096),
        ("mistral", {"sliding_window": 100}, 100),
        ("mistral", {"sliding_window": 100, "layer_types": ["sliding_attention"] * 4}, 100),
        ("mistral", {"sliding_window": None, "layer_types": ["full_attention"] * 4}, None),
        ("mistral", {"sliding_window": 131072}, None),
        ("mistral", {"use_sliding_window": False, "max_position_embeddings": 4096}, None),
        ("qwen3", {"sliding_window": 100}, None),
        ("qwen3", {"sliding_window": 100, "use_sliding_window": True}, None),  # 28 layers see all
        ("qwen3", {"sliding_window": 100, "use_sliding_window": True, "max_window_layers": 0}, 100),
        ("qwen3", {"sliding_window": None, "use_sliding_window": True, "max_window_layers": 0},
         None),
        ("qwen3", {"sliding_window": 100, "use_sliding_window": True,
                   "layer_types": ["sliding_attention"] * 4}, 100),
        ("qwen3", {"sliding_window": 100, "use_sliding_window": True,
                   "layer_types": ["attention"] * 4}, None),
        ("qwen3", {"sliding_window": 40000, "use_sliding_window": True, "max_window_layers": 2},
         None),
    ],
)  # fmt: skip
def test_windows(model_type: str, changes: dict[str, Any], expected: int | None) -> None:
    spec = spec_from_config(config(model_type, num_hidden_layers=4, **changes))
    assert spec.heads.window == expected


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_windows_of_some_layers(model_type: str) -> None:
    used = {"model_type": model_type, "num_hidden_layers": 4, "use_sliding_window": True}

    def windows(**changes: Any) -> list[int | None]:
        layers = spec_from_config({**used, **changes}).layers
        return [getattr(layer.attention, "window", 0) for layer in layers]

    assert windows(max_window_layers=3, sliding_window=100) == [None, None, None, 100]
    kinds = ["full_attention", "sliding_attention"] * 2
    assert windows(layer_types=kinds, sliding_window=100) == [None, 100] * 2


@pytest.mark.parametrize(
    ("model_type", "changes", "parts"),
    [
        ("llama", {"sliding_window": 100}, ("sliding_window",)),
        ("llama", {"layer_types": ["sliding_attention"] * 4}, ("layer_types",)),
        ("mistral", {"layer_types": ["full_attention"] * 4}, ("layer_types",)),
        ("mistral", {"layer_types": ["full_attention", "sliding_attention"] * 2}, ("layer_types",)),
        ("mistral", {"use_sliding_window": False}, ("use_sliding_window",)),
        ("mistral", {"sliding_window": 0}, ("sliding_window",)),
        ("mistral", {"sliding_window": "all"}, ("sliding_window",)),
        ("qwen3", {"layer_types": ["sliding_attention"] * 4}, ("layer_types", "use_sliding")),
        ("qwen3", {"layer_types": ["full_attention"] * 3}, ("layer_types", "3 entries")),
        ("qwen3", {"layer_types": ["linear_attention"] * 4}, ("layer_types", "linear_attention")),
        ("qwen3", {"layer_types": "full_attention"}, ("layer_types",)),
        ("qwen3", {"use_sliding_window": 1}, ("use_sliding_window",)),
    ],
)  # fmt: skip
def test_windows_that_are_refused(
    model_type: str, changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    refused(config(model_type, num_hidden_layers=4, **changes), *parts)


# --- which model it is ---


@pytest.mark.parametrize(
    ("model_type", "architectures", "expected"),
    [
        ("llama", None, "LlamaForCausalLM"),
        ("mistral", [], "MistralForCausalLM"),
        (None, ["Qwen3ForCausalLM"], "Qwen3ForCausalLM"),
        ("qwen3", ["Qwen3Model"], "Qwen3ForCausalLM"),
        ("llama", ["LlamaForCausalLM", "Other"], "LlamaForCausalLM"),
    ],
)
def test_model_type_and_architectures(
    model_type: str | None, architectures: list[str] | None, expected: str
) -> None:
    given = spec_from_config({"model_type": model_type, "architectures": architectures})
    assert given == spec_from_config({"architectures": [expected]})


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, ("architectures", "model_type")),
        ({"model_type": "mamba"}, ("mamba", "supported are")),
        ({"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"},
         ("LlamaForSequenceClassification", "supported are")),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "mistral"},
         ("LlamaForCausalLM", "mistral", "model_type")),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "phi3"}, ("phi3",)),
        ({"architectures": "LlamaForCausalLM"}, ("architectures", "list")),
        ({"architectures": [3]}, ("architectures",)),
        ({"model_type": ["llama"]}, ("model_type",)),
    ],
)  # fmt: skip
def test_models_that_are_refused(changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(changes, *parts)


def test_mlx_is_named() -> None:
    own = {"group_size": 64, "bits": 4}
    for more in ({}, {"quantization_config": own}):
        message = refused(config("qwen3", quantization=own, **more), "MLX", "original model")
        assert "bandweave quantises" in message


# --- values that are not believed ---


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "intermediate_size", "head_dim",
                                  "num_hidden_layers", "num_attention_heads", "sliding_window",
                                  "num_key_value_heads", "max_position_embeddings"])  # fmt: skip
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "32", [32], {}, 1 << 32, 10**3000])
def test_sizes_that_are_not_believed(name: str, value: Any) -> None:
    refused(config("mistral", **{name: value}), name)


def test_bounds_of_sizes() -> None:
    most = config("llama", num_hidden_layers=MOST_LAYERS)
    assert spec_from_config(most).num_layers == MOST_LAYERS
    refused({**most, "num_hidden_layers": MOST_LAYERS + 1}, "num_hidden_layers", str(MOST_LAYERS))
    refused(config("llama", head_dim=1 << 17), "head")
    refused(config("llama", head_dim=1 << 16), "65536 elements of a head", "4096")
    refused(config("llama", vocab_size=MOST_SIZE, hidden_size=1 << 20), "not believed")
    refused(config("llama", num_key_value_heads=5), "num_attention_heads", "num_key_value_heads")
    refused(config("llama", hidden_size=100), "no multiple")


@pytest.mark.parametrize("value", [0, -1e-6, float("nan"), float("inf"), "1e-6", True, 10**4000])
def test_numbers_that_are_not_believed(value: Any) -> None:
    refused(config("llama", rms_norm_eps=value), "rms_norm_eps")
    refused(config("llama", rope_theta=value), "rope_theta")


def test_known_models_still_are_what_they_were() -> None:
    for name in model_names():
        config = known_config(name)
        if known_model(name).runs_on_bandweave and not config.get("sliding_window"):
            layers = spec_from_config(config).layers
            assert {getattr(layer.attention, "window", None) for layer in layers} == {None}, name
