"""Known models: their parameters add up to what their makers publish."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest

from bandweave.models.attention_spec import Attention, LatentSpec
from bandweave.models.config import ConfigError
from bandweave.models.config_shape import shape_from_config, shape_of
from bandweave.models.known_models import known_config, known_model, model_names
from bandweave.models.model_shape import ROLES, distinct_experts
from bandweave.models.registry import build_graph, spec_from_config
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.synth.shapes import shape_names

RUN = [name for name in model_names() if known_model(name).runs_on_bandweave]

# Total parameters in billions. Sources: model cards and reports of the makers, to the digits that
# they give; "sum": the sum over the tensors' sizes that the makers' index files list. Drafts'
# layers and vision towers are not counted: Kimi K2's report counts 17 B of a draft layer (1.04 T),
# GLM-4.5-Air's files hold 110 B with theirs, DeepSeek V3's 685 B.
TOTALS = {
    "tiny": 0.000476, "smollm2-135m": 0.1345, "smollm2-360m": 0.3618, "smollm2-1.7b": 1.711,
    "tinyllama-1.1b": 1.100, "llama-2-7b": 6.738, "llama-2-13b": 13.016, "llama-2-70b": 68.977,
    "llama-3-8b": 8.030, "llama-3-70b": 70.554, "llama-3.1-8b": 8.030, "llama-3.1-70b": 70.554,
    "llama-3.1-405b": 405.85, "llama-3.2-1b": 1.236, "llama-3.2-3b": 3.213,
    "mistral-7b": 7.248, "mistral-nemo-12b": 12.248, "mistral-small-24b": 23.572,
    "qwen3-0.6b": 0.596, "qwen3-1.7b": 1.721, "qwen3-4b": 4.022, "qwen3-8b": 8.191,
    "qwen3-14b": 14.768, "qwen3-32b": 32.762,
    "qwen2.5-0.5b": 0.494, "qwen2.5-1.5b": 1.544, "qwen2.5-3b": 3.086, "qwen2.5-7b": 7.616,
    "qwen2.5-14b": 14.770, "qwen2.5-32b": 32.764, "qwen2.5-72b": 72.706,
    # Gemma 3 report (arXiv:2503.19786), table 1: embedding and other parameters, no vision.
    "gemma-3-1b": 0.302 + 0.698, "gemma-3-4b": 0.675 + 3.209, "gemma-3-12b": 1.012 + 10.759,
    "gemma-3-27b": 1.416 + 25.600,
    "gemma-3-270m": 0.268,
    # Gemma 2 report (arXiv:2408.00118), table 2: the same of the second generation.
    "gemma-2-2b": 0.590 + 2.024, "gemma-2-9b": 0.918 + 8.324, "gemma-2-27b": 1.180 + 26.047,
    "mistral-large-2": 122.61, "phi-3-mini-4k": 3.821, "phi-3-medium-4k": 13.960, "phi-4": 14.660,
    "glm-4-9b": 9.40, "glm-4-32b": 32.57, "olmo-2-1b": 1.485, "olmo-2-7b": 7.299,
    "olmo-2-13b": 13.716, "olmo-2-32b": 32.234, "granite-3.3-2b": 2.534, "granite-3.3-8b": 8.171,
    "smollm3-3b": 3.075, "seed-oss-36b": 36.151, "ernie-4.5-0.3b": 0.36,
    "mixtral-8x7b": 46.70, "mixtral-8x22b": 140.63, "ernie-4.5-21b-a3b": 21.83,
    "qwen1.5-moe-a2.7b": 14.3, "qwen2-57b-a14b": 57.4,  # arXiv:2407.10671
    # The language models of their cards: 0.9, 2, 4 and 9 with vision, and the layer that drafts.
    "qwen3.5-0.8b": 0.752, "qwen3.5-2b": 1.88, "qwen3.5-4b": 4.2, "qwen3.5-9b": 8.95,
    "qwen3.5-27b": 26.9, "qwen3.5-35b-a3b": 34.7, "qwen3.5-122b-a10b": 122.1,
    "qwen3.5-397b-a17b": 396.3,
    "qwen3-30b-a3b": 30.53, "qwen3-235b-a22b": 235.09, "qwen3-coder-480b-a35b": 480.15,
    "qwen3-next-80b-a3b": 80.0,
    "gpt-oss-20b": 20.91, "gpt-oss-120b": 116.83,  # OpenAI's model card, table 1
    "glm-4.5-air": 106.0, "glm-4.5": 355.0, "glm-4.6": 355.0, "minimax-m2": 228.69,
    "glm-4.7-flash": 29.94, "glm-5": 744.0,
    "deepseek-v2-lite": 15.7, "deepseek-v2": 236.0, "deepseek-v3": 671.03, "deepseek-r1": 671.03,
    "deepseek-v3.1": 671.03, "deepseek-v3.2": 671.88,  # with the indexers'
    "kimi-k2": 1026.41, "kimi-k2.5": 1026.41,
    "kimi-linear-48b-a3b": 49.1, "kimi-k3": 2779.5,  # 2779.93 with vision
    "llama-4-scout": 107.8, "llama-4-maverick": 400.7,  # 109 and 402 with vision
    # Without vision and sound: the language models of their cards.
    "qwen3-vl-4b": 4.02, "qwen3-vl-8b": 8.19, "qwen3-vl-32b": 32.76, "qwen3-vl-30b-a3b": 30.53,
    "qwen3-vl-235b-a22b": 235.09, "gemma-4-31b": 30.7, "gemma-4-26b-a4b": 25.2, "gemma-4-12b": 11.9,
    "gemma-4-e4b": 7.47, "gemma-4-e2b": 4.63,  # 8 and 5.1 with vision and sound
    "gemma-3n-e4b": 6.87, "gemma-3n-e2b": 4.46,
    "nemotron-3-nano-30b-a3b": 31.6, "nemotron-3-super-120b-a12b": 120.6,
    "nemotron-3-ultra-550b-a55b": 550.0, "mimo-v2-flash": 309.0, "deepseek-v4-flash": 284.0,
    "deepseek-v4-pro": 1573.0,  # 1.6 T
    "minimax-m3": 426.0,  # counted
    "step-3.5-flash": 196.0, "mistral-large-3": 673.0, "hunyuan-a13b": 80.0,
    "ministral-3-3b": 3.4, "ministral-3-8b": 8.49, "ministral-3-14b": 13.5,
    "devstral-small-2-24b": 23.6, "devstral-2-123b": 125.0, "olmo-3-7b": 7.3, "olmo-3-32b": 32.2,
}  # fmt: skip

# Active parameters in billions as published, and the way of counting that the figure follows:
# "all" counts embedding and head, "read" the head alone, "body" neither. Makers round or cut to
# the digits that are written, so one unit of the last digit is allowed beside the 1 %.
ACTIVE = {
    "mixtral-8x7b": ("12.9", "all"),  # arXiv:2401.04088
    "mixtral-8x22b": ("39.1", "all"),
    "qwen3-30b-a3b": ("3.3", "all"),  # arXiv:2505.09388
    "qwen3-235b-a22b": ("22", "all"),
    "qwen3-coder-480b-a35b": ("35", "all"),
    "qwen3-next-80b-a3b": ("3", "body"),
    "gpt-oss-20b": ("3.61", "read"),  # the card counts the head, not the embedding
    "gpt-oss-120b": ("5.13", "read"),
    "glm-4.5-air": ("12", "body"),  # arXiv:2508.06471
    "glm-4.5": ("32", "body"),
    "glm-4.7-flash": ("3.6", "read"),
    "glm-5": ("40", "body"),
    "minimax-m2": ("10", "body"),
    "qwen1.5-moe-a2.7b": ("2.7", "all"),
    "qwen2-57b-a14b": ("14", "all"),
    "qwen3.5-35b-a3b": ("3", "read"),
    "qwen3.5-122b-a10b": ("10", "all"),
    "qwen3.5-397b-a17b": ("17", "all"),
    "llama-4-scout": ("17", "all"),
    "llama-4-maverick": ("17", "all"),
    "deepseek-v2": ("21", "all"),
    "deepseek-v3.1": ("37", "all"),
    "deepseek-v3.2": ("37", "read"),
    "kimi-k2.5": ("32.6", "all"),
    "deepseek-v2-lite": ("2.4", "read"),  # arXiv:2405.04434
    "deepseek-v3": ("37", "all"),  # arXiv:2412.19437
    "deepseek-r1": ("37", "all"),
    "kimi-k2": ("32.6", "all"),  # arXiv:2507.20534
    "kimi-linear-48b-a3b": ("3", "read"),  # arXiv:2510.26692
    "kimi-k3": ("104", "read"),
    "ernie-4.5-21b-a3b": ("3", "body"),
    "qwen3-vl-30b-a3b": ("3.3", "all"),
    "qwen3-vl-235b-a22b": ("22", "all"),
    "gemma-4-26b-a4b": ("3.8", "all"),
    "nemotron-3-nano-30b-a3b": ("3.6", "all"),
    "nemotron-3-super-120b-a12b": ("12", "read"),
    "nemotron-3-ultra-550b-a55b": ("55", "read"),
    "mimo-v2-flash": ("15", "read"),
    "deepseek-v4-flash": ("13", "read"),
    "deepseek-v4-pro": ("49", "read"),
    "minimax-m3": ("24", "read"),  # counted
    "step-3.5-flash": ("11", "read"),
    "mistral-large-3": ("39", "read"),
    "hunyuan-a13b": ("13", "all"),
}


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_total_parameters(name: str) -> None:
    assert known_model(name).total_parameters / 1e9 == pytest.approx(TOTALS[name], rel=0.01)


def test_every_model_is_checked() -> None:
    assert set(TOTALS) == set(model_names())
    experts = {name for name in model_names() if known_model(name).has_experts}
    assert experts - set(ACTIVE) == {"glm-4.6"}  # sized as GLM-4.5


@pytest.mark.parametrize("name", sorted(ACTIVE))
def test_active_parameters(name: str) -> None:
    model = known_model(name)
    text, counting = ACTIVE[name]
    ours = {
        "all": model.active_parameters,
        "read": model.read_parameters,
        "body": model.read_parameters - model.head_parameters,
    }[counting] / 1e9
    unit = 10.0 ** -len(text.partition(".")[2])
    assert abs(ours - float(text)) <= max(0.01 * float(text), unit), ours


def role_of(name: str) -> str:
    """What a tensor of a graph is for, by its name."""
    part = next(one for one in reversed(name.split(".")) if one not in ("bias", "correction"))
    if name in ("embed_tokens", "lm_head"):
        return "embedding" if name == "embed_tokens" else "head"
    if "shared_expert" in name:
        return "shared"
    if part == "router":
        return "router"
    if part in ("gate_proj", "up_proj", "down_proj"):
        return "expert" if ".experts." in name else "dense"
    norms = ("norm", "input_norm", "post_norm", "attention_out_norm", "mlp_out_norm")
    return "norm" if part in norms else "attention"


def indexer(attention: Attention, hidden: int) -> int:
    """Parameters of an indexer, which is counted and not read; 0 where there is none."""
    if not isinstance(attention, LatentSpec) or attention.index is None:
        return 0
    one = attention.index
    assert attention.q_rank is not None
    queries = attention.q_rank * one.num_heads * one.head_dim
    return queries + hidden * one.head_dim + 2 * one.head_dim + hidden * one.num_heads


@pytest.mark.parametrize("name", RUN)
def test_shapes_are_the_tensors_of_the_graph(name: str) -> None:
    spec = spec_from_config(known_config(name))
    # One layer of each kind is enough: layers that are alike are one object.
    kinds = tuple(dict.fromkeys(spec.layers))
    spec = replace(spec, layers=kinds)
    shape = shape_of(spec, name=name, architecture="", runs=True, stored_format="bf16")
    found: Counter[str] = Counter(dict.fromkeys(ROLES, 0))
    for weight in build_graph(spec).weights():
        found[role_of(weight.name)] += math.prod(weight.shape)
    found["attention"] += sum(indexer(layer.attention, spec.hidden_size) for layer in kinds)
    assert sum(found.values()) == shape.total_parameters
    if shape.tied:  # the table is called an embedding there, and a head here
        found["head"] += found.pop("embedding")
        found["embedding"] = 0
    assert found == shape.parameters_by_role()
    whole = known_model(name)
    assert set(whole.layers) == set(shape.layers)


#: Models that are planned for and cannot be run, and why: any other name must run.
PLANNED = {
    **dict.fromkeys(("llama-4-scout", "llama-4-maverick"), "attention in chunks"),
    **dict.fromkeys((name for name in model_names() if name.startswith("qwen3-vl")), "vision"),
    **dict.fromkeys(("gemma-4-31b", "gemma-4-26b-a4b", "gemma-4-12b", "gemma-4-e4b",
                     "gemma-4-e2b", "gemma-3n-e4b", "gemma-3n-e2b"),
                    "layers that share keys; their embeddings"),
    **dict.fromkeys((name for name in model_names() if name.startswith("nemotron-3")),
                    "state spaces"),
    **dict.fromkeys(("deepseek-v4-flash", "deepseek-v4-pro", "minimax-m3"), "sparse attention"),
    **dict.fromkeys(("kimi-linear-48b-a3b", "kimi-k3"), "delta attention, latent experts"),
    **dict.fromkeys(("mimo-v2-flash", "step-3.5-flash"), "heads that differ by layer"),
    "mistral-large-3": "another router", "hunyuan-a13b": "another rope",
}  # fmt: skip


@pytest.mark.parametrize("name", model_names())
def test_a_known_model_runs_or_is_planned_for(name: str) -> None:
    assert known_model(name).runs_on_bandweave == (name not in PLANNED)
    if name in PLANNED:
        with pytest.raises(ConfigError, match=f"^{known_model(name).architecture} is not supp"):
            spec_from_config(known_config(name))
    else:
        spec_from_config(known_config(name))


def test_which_can_be_made() -> None:
    assert set(shape_names()) == set(model_names()) - set(PLANNED)


@pytest.mark.parametrize(
    ("name", "kib_a_token"),
    [("deepseek-r1", 68.6), ("kimi-k2", 68.6), ("qwen3-235b-a22b", 188), ("gpt-oss-120b", 72),
     ("llama-3.1-70b", 320), ("llama-2-7b", 512), ("minimax-m2", 248)],
)  # fmt: skip
def test_cache_of_a_token(name: str, kib_a_token: float) -> None:
    assert known_model(name).kv_elements(1) * 2 / 1024 == pytest.approx(kib_a_token, rel=0.01)


def test_windows_bound_the_cache() -> None:
    model = known_model("gpt-oss-120b")
    first, more = model.kv_elements(128), model.kv_elements(10_128) - model.kv_elements(128)
    assert more / 10_000 == first / 128 / 2  # every second layer has a window of 128


def test_names() -> None:
    assert known_model("DeepSeek-R1-671B").layers == known_model("deepseek-v3").layers
    with pytest.raises(ValueError, match="did you mean deepseek-"):
        known_model("deepseek-r2")
    with pytest.raises(ValueError, match="model_type 'mamba' is not known"):
        shape_from_config({"model_type": "mamba"})


def test_distinct_experts() -> None:
    # 256 experts, 8 a token: 15.8, 57.4 and 222 for 2, 8 and 64 independent tokens.
    for rows, expected in ((1, 8.0), (2, 15.75), (8, 57.4), (64, 222.4)):
        assert distinct_experts(256, 8, rows) == pytest.approx(expected, rel=0.01)
        assert distinct_experts(256, 8, rows, routing=0.75) <= distinct_experts(256, 8, rows)
    assert distinct_experts(0, 0, 5) == 0


def test_published_file_sizes() -> None:
    # DeepSeek R1 Q4_K_M: 404.4 GB; Llama 3.1 8B Q4_K_M: 4.92 GB; gpt-oss-120b: 63.4 GB (MXFP4).
    for name, form, gigabytes in (
        ("deepseek-r1", "gguf-q4_k_m", 404.4), ("llama-3.1-8b", "gguf-q4_k_m", 4.92),
        ("llama-2-7b", "gguf-q4_0", 3.83), ("gpt-oss-120b", "gguf-mxfp4", 63.4),
        ("llama-3.1-8b", "bf16", 16.06), ("deepseek-r1", "fp8", 671 + 1.9),
    ):  # fmt: skip
        size = find_format(form).total(known_model(name).parameters_by_role()) / 1e9
        assert size == pytest.approx(gigabytes, rel=0.025), (name, form)
    with pytest.raises(ValueError, match="gguf-q4_k_m"):
        find_format("q4_k_m")


# Fields that change what a family computes, beside its sizes.
MATHS = {
    "deepseek_v3": ("rope_scaling", "n_group", "topk_group", "topk_method", "scoring_func",
                    "norm_topk_prob", "routed_scaling_factor", "first_k_dense_replace"),
    "deepseek_v2": ("rope_scaling", "topk_method", "scoring_func", "norm_topk_prob",
                    "routed_scaling_factor", "first_k_dense_replace"),
    "kimi_k2": ("rope_scaling", "n_group", "topk_group", "scoring_func", "norm_topk_prob",
                "routed_scaling_factor", "first_k_dense_replace"),
    "gpt_oss": ("rope_scaling", "swiglu_limit", "layer_types", "sliding_window", "attention_bias"),
    "gemma3_text": ("rope_local_base_freq", "query_pre_attn_scalar", "sliding_window_pattern",
                    "hidden_activation"),
    "glm4_moe": ("norm_topk_prob", "routed_scaling_factor", "partial_rotary_factor",
                 "first_k_dense_replace", "use_qk_norm"),
    "qwen3_moe": ("norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"),
    "qwen3_next": ("norm_topk_prob", "partial_rotary_factor", "full_attention_interval"),
    "minimax_m2": ("scoring_func", "rotary_dim", "use_qk_norm"),
}  # fmt: skip


def test_fields_that_change_the_maths_are_kept() -> None:
    seen = set()
    for name in model_names():
        config = known_config(name)
        model_type = config["model_type"]
        seen.add(model_type)
        missing = [field for field in MATHS.get(model_type, ()) if config.get(field) is None]
        assert not missing, (name, missing)
    assert seen >= MATHS.keys()
    scaling = known_config("deepseek-r1")["rope_scaling"]
    assert scaling["type"] == "yarn" and scaling["factor"] * 4096 == 163840
    assert known_config("gemma-3-27b")["query_pre_attn_scalar"] == 168
