"""Checkpoints of mixtures: as their makers store them, from the command on; and what is said of
those that are damaged, or whose config makes no sense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.engine.options import EngineOptions
from bandweave.engine.placement import resolve_context
from bandweave.executors.backend import NATIVE
from bandweave.formats.packing import unpack
from bandweave.formats.registry import get_format
from bandweave.models.config import ConfigError
from bandweave.models.known_models import known_config
from bandweave.models.registry import build_graph, spec_from_config
from bandweave.programs.program import Weight
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.weights.loading import load_weights
from bandweave.weights.stored_formats import node_program, run_formats
from tests.helpers.command import bandweave, lines_of
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.reference_nodes import Book
from tests.helpers.stored_formats import F32, Encoded, Tensor, fp8, mxfp4, packed
from tests.helpers.stored_mixtures import (
    DEEPSEEK,
    GPT_OSS,
    is_expert,
    is_product,
    stored_mixture,
    write_both,
)
from tests.helpers.stored_models import FORMATS, write_model
from tests.transformers_reference.cases import CASES

CONFIGS = {case.architecture: case.config() for case in CASES}
ASK = ("--raw", "--prompt", "What is 17 + 25?", "--max-tokens", "12")


# --- configs ---


def said_of(architecture: str, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        spec_from_config({**CONFIGS[architecture], **changes})
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


V2, V3, GLM = "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "Glm4MoeForCausalLM"
QWEN, MINIMAX, GPT = "Qwen3MoeForCausalLM", "MiniMaxM2ForCausalLM", "GptOssForCausalLM"
MIXTRAL, GRANITE = "MixtralForCausalLM", "GraniteForCausalLM"


@pytest.mark.parametrize(
    ("architecture", "changes", "part"),
    [
        (V3, {"n_group": 5}, "n_group is 5, but n_routed_experts is 12"),
        (V3, {"topk_group": 5}, "topk_group is 5, but n_group is 4"),
        (V3, {"num_experts_per_tok": 13}, "num_experts_per_tok is 13"),
        (V3, {"num_experts_per_tok": 7}, "topk_group groups have 6 experts together"),
        (V3, {"n_group": 12, "topk_group": 12}, "two largest scores need two experts"),
        (V3, {"scoring_func": "softmax"}, "scoring_func is 'softmax'"),
        (V2, {"scoring_func": "sigmoid"}, "scoring_func is 'sigmoid'"),
        (V3, {"topk_method": "greedy"}, "topk_method is 'greedy'"),
        (MINIMAX, {"scoring_func": "softmax"}, "scoring_func is 'softmax'"),
        (MIXTRAL, {"scoring_func": "sigmoid"}, "scoring_func is 'sigmoid'"),
        (GLM, {"mlp_layer_types": ["dense", "sparse"]}, "each of the 3 layers"),
        (GLM, {"mlp_layer_types": ["dense", "sparse", "other"]}, "mlp_layer_types"),
        (V3, {"moe_layer_freq": [0, 1]}, "moe_layer_freq is [0, 1]"),
        (V3, {"moe_layer_freq": [1, 1, 1]}, "first_k_dense_replace"),
        (V3, {"moe_layer_freq": 2}, "contradict"),
        (V3, {"moe_layer_freq": True}, "moe_layer_freq is True"),
        (V3, {"moe_layer_freq": "1"}, "moe_layer_freq is '1'"),
        (V3, {"first_k_dense_replace": -1}, "first_k_dense_replace is -1"),
        (V3, {"first_k_dense_replace": True}, "first_k_dense_replace is True"),
        (V3, {"layer_types": ["full_attention"] * 2}, "2 entries for 3 layers"),
        (GLM, {"layer_types": ["sliding_attention"] * 3}, "'sliding_attention'"),
        (QWEN, {"layer_types": ["sliding_attention"] * 3}, "'sliding_attention'"),
        (GPT, {"layer_types": ["full_attention"] * 2}, "2 entries for 3 layers"),
        (GPT, {"layer_types": ["chunked_attention"] * 3}, "'chunked_attention'"),
        (QWEN, {"mlp_only_layers": [3]}, "0 to 2"),
        (QWEN, {"mlp_only_layers": [-1]}, "0 to 2"),
        (QWEN, {"mlp_only_layers": 1}, "list of layers"),
        (QWEN, {"decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
        (QWEN, {"shared_expert_intermediate_size": 8}, "no shared expert"),
        (QWEN, {"n_shared_experts": 1}, "n_shared_experts is 1"),
        (QWEN, {"first_k_dense_replace": 1}, "first_k_dense_replace is 1"),
        (GPT, {"routed_scaling_factor": 2.5}, "routed_scaling_factor is 2.5"),
        (MINIMAX, {"attn_type_list": [1, 0]}, "attn_type_list is [1, 0]"),
        (MINIMAX, {"attn_type_list": [1]}, "attn_type_list is [1]"),
        (V3, {"routed_scaling_factor": 1e30}, "routed_scaling_factor is 1e+30"),
        (V3, {"routed_scaling_factor": "2"}, "routed_scaling_factor is '2'"),
        (GPT, {"swiglu_limit": 1e9}, "swiglu_limit is 1000000000.0"),
        (GPT, {"swiglu_alpha": 1e-9}, "swiglu_alpha is 1e-09"),
        (GRANITE, {"logits_scaling": 1e-9}, "logits_scaling is 1e-09"),
        (GRANITE, {"rms_norm_eps": 1.5}, "rms_norm_eps is 1.5"),
        (V3, {"moe_intermediate_size": 0}, "moe_intermediate_size is 0"),
        (V3, {"kv_lora_rank": True}, "kv_lora_rank is True"),
        (V3, {"n_routed_experts": "12"}, "n_routed_experts is '12'"),
        (V3, {"n_routed_experts": 1 << 20}, "num_experts is 1048576"),
        (V3, {"qk_rope_head_dim": 15}, "15 elements of 15 are to be rotated"),
        (V3, {"n_shared_experts": -1}, "n_shared_experts is -1"),
        (V3, {"norm_topk_prob": 1}, "norm_topk_prob is 1"),
        (V3, {"rope_parameters": {"rope_type": "spiral"}}, "'spiral'"),
        (V3, {"rope_parameters": {"rope_type": "yarn", "factor": "4"}}, "factor is '4'"),
        (V3, {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "mscale_all_dim": [1]}},
         "mscale_all_dim is [1]"),
        (V3, {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "mscale_all_dim": 1e9}},
         "mscale_all_dim"),
    ],
)  # fmt: skip
def test_configs_of_mixtures_that_are_refused(
    architecture: str, changes: Mapping[str, Any], part: str
) -> None:
    assert part in said_of(architecture, **changes)


def test_lists_by_layer_that_agree() -> None:
    sparse = [False, True, True]
    for changes in (
        {"moe_layer_freq": 1},
        {"moe_layer_freq": [0, 1, 1]},
        {"mlp_layer_types": ["dense", "sparse", "sparse"], "first_k_dense_replace": None},
        {"layer_types": ["full_attention"] * 3},
    ):
        spec = spec_from_config({**CONFIGS[V3], **changes})
        assert [hasattr(layer.mlp, "num_experts") for layer in spec.layers] == sparse


# --- DeepSeek V3.2, GLM-5, the text of Kimi K2.5 ---


def indexed(where: Path, **changes: Any) -> Folder:
    """A folder with the config alone, of more positions than an indexer chooses."""
    config = {**known_config("deepseek-v3.2"), **changes}
    path = where / "v32"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return Folder.open(path, weights=False)


def test_a_context_beyond_the_indexer_s_is_refused(tmp_path: Path) -> None:
    with indexed(tmp_path, index_topk=1024) as folder:
        assert (folder.spec.context_length, folder.spec.run_length) == (163840, 1024)

        def context(asked: int | None) -> int:
            return resolve_context(folder, EngineOptions(run=RunOptions(context=asked)))

        assert [context(asked) for asked in (None, 7, 1024)] == [1024, 7, 1024]
        with pytest.raises(ValueError, match=r"1025 .* beyond 1024 \(index_topk\).*up to 1024"):
            context(1025)
        with pytest.raises(ValueError, match="the model's is from 1 to 1024"):
            context(200000)


def test_the_text_of_a_multimodal_model() -> None:
    whole = known_config("kimi-k2.5")
    assert spec_from_config(whole) == spec_from_config(whole["text_config"])
    for changes, part in (
        ({"text_config": {**whole["text_config"], "num_experts_per_tok": 999}}, "is 999"),
        ({"text_config": {**whole["text_config"], "qk_layernorm": True}}, "qk_layernorm"),
        ({"text_config": 3}, "text_config is 3"),
    ):
        with pytest.raises(ConfigError, match=part):
            spec_from_config({**whole, **changes})
    with pytest.raises(ConfigError, match="text_config is given"):
        spec_from_config({**whole["text_config"], "text_config": {"hidden_size": 8}})


@pytest.mark.parametrize(
    ("model", "changes", "part"),
    [
        ("deepseek-v3.2", {"layer_types": ["full_attention"] * 61}, "'indexed_attention'"),
        ("deepseek-v3.2", {"layer_types": ["indexed_attention"] * 60}, "each of the 61 layers"),
        ("glm-5", {"index_topk": 0}, "index_topk is 0"),
        ("glm-5", {"index_n_heads": "32"}, "index_n_heads is '32'"),
        ("ernie-4.5-21b-a3b", {"moe_k": 65}, "moe_k is 65, but moe_num_experts is 64"),
        ("ernie-4.5-21b-a3b", {"use_bias": True}, "use_bias is true"),
        ("ernie-4.5-21b-a3b", {"moe_layer_end_index": 28}, "moe_layer_end_index is 28"),
        ("ernie-4.5-21b-a3b", {"moe_layer_end_index": True}, "moe_layer_end_index is True"),
        ("ernie-4.5-21b-a3b", {"moe_layer_interval": 0}, "moe_layer_interval is 0"),
        ("ernie-4.5-0.3b", {"num_experts": 8}, "num_experts is 8"),
    ],
)
def test_configs_of_newer_families_that_are_refused(
    model: str, changes: Mapping[str, Any], part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        spec_from_config({**known_config(model), **changes})


def test_layers_of_ernie_with_experts() -> None:
    def sparse(**changes: Any) -> list[bool]:
        config = {**known_config("ernie-4.5-21b-a3b"), "num_hidden_layers": 5, **changes}
        return [hasattr(layer.mlp, "num_experts") for layer in spec_from_config(config).layers]

    every = {"moe_layer_start_index": 1, "moe_layer_end_index": -1}
    assert sparse(**every) == [False, True, True, True, True]
    assert sparse(**every, moe_layer_interval=2) == [False, True, False, True, False]
    assert sparse(moe_layer_start_index=2, moe_layer_end_index=3) == [
        False,
        False,
        True,
        True,
        False,
    ]


# --- as makers store them ---

KIMI = {**DEEPSEEK, "model_type": "kimi_k2", "n_group": 1, "moe_intermediate_size": 160}
Stored = tuple[Mapping[str, Tensor], Mapping[str, F32]]


def blocks(dtype: str) -> Any:
    return partial(fp8, block=(128, 128), dtype=dtype)


def int4(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Encoded:
    return packed(rng, name, (shape[0], shape[1]))


MADE: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], Callable[[], Stored]]] = {
    "gpt-oss": (
        GPT_OSS, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
        lambda: stored_mixture(GPT_OSS, mxfp4, is_expert, by_rows=True),
    ),
    "deepseek f32 scales": (
        DEEPSEEK, {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
        lambda: stored_mixture(DEEPSEEK, blocks("F32"), is_product, by_rows=True),
    ),
    "deepseek exponents": (
        DEEPSEEK, {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0"},
        lambda: stored_mixture(DEEPSEEK, blocks("F8_E8M0"), is_product, by_rows=True),
    ),
    "kimi": (
        KIMI, FORMATS["int4"].config,
        lambda: stored_mixture(KIMI, int4, is_expert, by_rows=True),
    ),
}  # fmt: skip


def made(where: Path, name: str) -> tuple[Path, Path]:
    """A model as its maker stores it, and its values as float32."""
    config, quantization, make = MADE[name]
    return write_both(where, config, quantization, make())


def runnable(where: Path, name: str) -> tuple[Path, Path]:
    """The same, with a tokenizer."""
    both = made(where, name)
    for path in both:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(demo_folder() / file, path / file)
    return both


def test_the_command_gives_the_answer_of_the_plain_values(tmp_path: Path) -> None:
    stored, plain = runnable(tmp_path, "gpt-oss")
    expected = bandweave("run", plain, *ASK, "--format", "f32", "--json").json
    got = bandweave("run", stored, *ASK, "--format", "f32", "--json", "--nodes", "2").json
    assert got["logits_digest"] == expected["logits_digest"] and got["text"] == expected["text"]


def test_the_command_runs_stored_formats(tmp_path: Path) -> None:
    """One answer for every split, what they are in one line, and no more memory than planned."""
    stored, plain = runnable(tmp_path, "deepseek exponents")
    runs = [
        bandweave("run", stored, *ASK, "--format", "stored", "--json", "--nodes", nodes)
        for nodes in ("1", "3")
    ]
    assert len({run.json["logits_digest"] for run in runs}) == 1
    for run in runs:
        (line,) = lines_of(run.err)
        assert line == (
            "weights run in the format nearest to the stored one: bf16 in bf16 exactly, fp8 in q8"
        )
        assert run.json["plan"]["format"] == "stored"


@pytest.mark.parametrize("name", ["deepseek f32 scales", "deepseek exponents", "kimi"])
def test_the_engine_gives_the_logits_of_the_plain_values(tmp_path: Path, name: str) -> None:
    stored, plain = made(tmp_path, name)
    step = Book(num_sequences=1, pages_each=1).step([(0, list(range(3, 40)))])
    answers = set()
    for path, shares in ((plain, (1,)), (stored, (1,)), (stored, (2, 1))):
        with (
            Folder.open(path) as folder,
            NativeNodes(folder.spec, folder, weight_format="f32", shares=shares) as nodes,
        ):
            answers.add(nodes.run(step).tobytes())
    assert len(answers) == 1


# --- run as they are stored ---


@pytest.mark.parametrize("name", ["gpt-oss", "kimi"])
def test_stored_formats_are_one_for_each_operation(tmp_path: Path, name: str) -> None:
    """Experts stored as MXFP4 come back exactly; the routed ones of a mixture have one format, a
    shared one its own; routers stay float32; sizes are those of the memory plan."""
    path, _ = made(tmp_path, name)
    experts = {"gpt-oss": "mxfp4", "kimi": "q4"}[name]
    with Folder.open(path) as folder:
        graph = build_graph(folder.spec)
        for shares in ((1,), (2, 1)):
            split = make_split(folder.spec, shares)
            for node in range(len(shares)):
                program = node_program(folder, graph, split, node, "stored")
                for weight in program.weights.values():
                    expected = experts if ".experts." in weight.name else "bf16"
                    expected = "f32" if "router" in weight.name else expected
                    assert weight.format == expected, weight.name
                weights = load_weights(program, folder, "stored")
                assert NATIVE.weight_bytes(program, "stored") >= sum(
                    matrix.panels.nbytes for matrix in weights.matrices.values()
                )
                for weight in program.weights.values() if experts == "mxfp4" else ():
                    if weight.format == "mxfp4":
                        assert_exact(weight, weights.matrices[weight.name].panels, folder)


def assert_exact(weight: Weight, panels: np.ndarray, folder: Folder) -> None:
    parts = [folder.read(part.tensor, part.rows, part.columns) for part in weight.parts]
    packed = unpack(
        panels, format="mxfp4", outputs=weight.outputs, inputs=weight.inputs, unit=weight.unit
    )
    np.testing.assert_array_equal(get_format("mxfp4").dequantise(packed), np.concatenate(parts))


@pytest.mark.parametrize("name", ["gpt-oss", "kimi"])
def test_stored_formats_give_one_answer(tmp_path: Path, name: str) -> None:
    path, _ = made(tmp_path, name)
    step = Book(num_sequences=1, pages_each=1).step([(0, list(range(3, 40)))])
    answers = set()
    with Folder.open(path) as folder:
        for shares, threads in (((1,), 1), ((2, 1), 2), ((1, 3, 1), 1)):
            with NativeNodes(
                folder.spec, folder, weight_format="stored", shares=shares, threads=threads
            ) as nodes:
                answers.add(nodes.run(step).tobytes())
    assert len(answers) == 1


def test_nothing_tells_the_formats_without_weights(tmp_path: Path) -> None:
    path, _ = made(tmp_path, "gpt-oss")
    (path / "model.safetensors").unlink()
    with Folder.open(path, weights=False) as folder, pytest.raises(CheckpointError) as caught:
        run_formats(folder, build_graph(folder.spec))
    assert "'stored'" in str(caught.value)


# --- damage ---


@pytest.fixture(scope="module")
def tensors() -> Stored:
    return MADE["deepseek f32 scales"][2]()


def broken(tmp_path: Path, tensors: Stored, change: Callable[[dict[str, Tensor]], None]) -> str:
    """What is said of the model once a tensor was changed, at the latest when it is loaded."""
    own = dict(tensors[0])
    change(own)
    config = {**DEEPSEEK, "quantization_config": MADE["deepseek f32 scales"][1]}
    path = write_model(tmp_path / "m", config, own)
    with pytest.raises(CheckpointError) as caught, Folder.open(path) as folder:
        NativeNodes(folder.spec, folder, weight_format="q8")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def edit(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    def apply(tensors: dict[str, Tensor]) -> None:
        full = f"model.layers.1.mlp.{name}"
        dtype, array = tensors[full]
        tensors[full] = dtype, change(array.copy())

    return apply


def nan_at(index: int) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[index] = 0x7FC0  # of bf16
        return array

    return change


def drop(name: str) -> Any:
    def apply(tensors: dict[str, Tensor]) -> None:
        del tensors[f"model.layers.1.mlp.{name}"]

    return apply


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (edit("gate.weight", lambda a: a[:-1]), ("gate.weight", "[3, 160]", "[4, 160]")),
        (edit("gate.weight", lambda a: a[:, :-1]), ("gate.weight", "[4, 159]")),
        (edit("gate.weight", nan_at(5)), ("router", "NaN")),
        (edit("gate.e_score_correction_bias", lambda a: a[:-1]), ("[3]", "[4]")),
        (edit("gate.e_score_correction_bias", nan_at(3)), ("correction", "NaN")),
        (drop("gate.e_score_correction_bias"), ("e_score_correction_bias", "lacks 1")),
        (drop("experts.3.up_proj.weight"), ("experts.3.up_proj.weight", "lacks")),
        (drop("experts.2.up_proj.weight_scale_inv"), ("experts.2.up_proj", "lacks its scales")),
        (edit("experts.3.down_proj.weight", lambda a: a[:, :-1]), ("experts.3", "[160, 135]")),
        (edit("experts.3.down_proj.weight_scale_inv", lambda a: a[:, :1]), ("[2, 1]", "[2, 2]")),
        (edit("experts.2.gate_proj.weight_scale_inv", lambda a: a * np.nan), ("scale nan",)),
        (edit("shared_experts.up_proj.weight", lambda a: a[:-1]), ("shared", "[135, 160]")),
    ],
)
def test_damage_in_a_mixture_is_named(
    tmp_path: Path, tensors: Stored, change: Any, parts: tuple[str, ...]
) -> None:
    message = broken(tmp_path, tensors, change)
    for part in parts:
        assert part in message, message


def test_a_damaged_mixture_is_the_user_s_mistake(tmp_path: Path, tensors: Stored) -> None:
    """Whether it shows when the model is opened, or only while it is loaded."""
    for number, change in enumerate(
        (drop("gate.weight"), edit("experts.2.gate_proj.weight_scale_inv", lambda a: a * np.nan))
    ):
        own = dict(tensors[0])
        change(own)
        path = write_model(tmp_path / str(number), DEEPSEEK, own)
        shutil.copy(demo_folder() / "tokenizer.json", path / "tokenizer.json")
        outcome = bandweave("run", path, *ASK)
        assert (outcome.status, len(lines_of(outcome.err))) == (2, 1), outcome
