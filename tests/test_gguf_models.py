"""GGUF files of every kind of architecture give the logits of the same weights in a folder."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from benchmarks.gguf_export import export

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import CheckpointError, widen
from bandweave.executors.executor import Step
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.models.registry import spec_from_config
from bandweave.models.rope import rope_table
from bandweave.ranges import Range
from tests.helpers.command import bandweave
from tests.helpers.gguf_models import write_gguf
from tests.helpers.laid_out import laid_out
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import F32, random_tensors
from tests.helpers.stored_models import write_model
from tests.llama_reference.cases import HYBRIDS, write_hybrid_case
from tests.transformers_reference.cases import CASES, FURTHER_FIELDS
from tests.transformers_reference.mixture_cases import YARN

_CASES = {case.name: case for case in CASES}

_PHI_ROPE = {
    **_CASES["phi3_longrope"].options["rope_parameters"],
    "short_factor": [1.0, 1.125, 1.25, 1.375, 1.5, 1.75],  # which float32 holds
    "long_factor": [1.0, 1.5, 2.5, 4.25, 8.5, 16.0],
}
_ALL_MIXED = {"mlp_only_layers": []}  # a file cannot say otherwise
_NO_FURTHER = {"num_nextn_predict_layers": 0}

#: By name: the reference model, what its config has in the place of what no GGUF file says, and
#: whether it is written as files of 2024 were.
MODELS: Mapping[str, tuple[str, Mapping[str, Any], bool]] = {
    "llama": ("grouped_queries", {}, False),
    "llama with biases": ("biases", {}, False),
    "mixtral": ("mixtral", {"sliding_window": None}, False),
    "mixtral, expert by expert": ("mixtral", {"sliding_window": None}, True),
    "qwen3moe": ("qwen3_moe", {"decoder_sparse_step": 1}, False),
    "gemma3": ("gemma3", {"query_pre_attn_scalar": 24}, False),
    "phi3": ("phi3_longrope", {"rope_parameters": _PHI_ROPE}, False),
    "deepseek2": ("deepseek_v3", _NO_FURTHER, False),
    "deepseek2, one tensor of keys and values": ("deepseek_v3", _NO_FURTHER, True),
    "deepseek2 of V2": ("deepseek_v2", {}, False),
    "glm4moe": ("glm4_moe", FURTHER_FIELDS, False),
    "gpt-oss": ("gpt_oss", {}, False),
    "qwen3next": ("qwen3_next", {**_ALL_MIXED, **FURTHER_FIELDS}, False),
    "qwen3next, four products in one": ("qwen3_next", {**_ALL_MIXED, **_NO_FURTHER}, True),
    "qwen35": ("qwen3_5", {}, False),
    "qwen35moe": ("qwen3_5_moe", {"linear_num_value_heads": 8, **FURTHER_FIELDS}, False),
}


def config_of(name: str) -> dict[str, Any]:
    case, changes, _ = MODELS[name]
    return {**_CASES[case].config(), **changes}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder of float32, and a GGUF file with the same weights."""
    config, (_, _, old) = config_of(request.param), MODELS[request.param]
    spec = spec_from_config(config)
    further = spec.further is not None
    values = laid_out(spec, random_tensors(spec, 7, further=further), further=further)
    for name, rates in values.items():
        if name.endswith(".A_log"):  # files have their exponentials, which float32 must hold
            exactly = np.linspace(0.5, 2, len(rates), dtype=np.float32)
            values[name] = np.log(exactly.astype(np.float64)).astype(np.float32)
    where = tmp_path_factory.mktemp("gguf")
    folder = write_model(where / "m", config, {name: ("F32", one) for name, one in values.items()})
    return folder, write_gguf(where / "m.gguf", config, values, old=old)


def whole(folder: Folder, name: str) -> F32:
    return widen(folder.read(name, Range(start=0, stop=folder.shape(name)[0])))


def test_every_tensor_and_the_spec(model: tuple[Path, Path]) -> None:
    with Folder.open(model[0]) as plain, Folder.open(model[1]) as other:
        added = np.float32(plain.spec.norm_offset - other.spec.norm_offset)
        assert set(other.names()) == set(plain.names())
        for name in plain.names():
            norms = name.endswith("norm") and not name.endswith("delta_norm")
            values = whole(plain, name) + (added if norms else np.float32(0))
            np.testing.assert_array_equal(whole(other, name), values)
            middle, stop = len(values) // 3, len(values) - 1
            part = widen(other.read(name, Range(start=middle, stop=stop)))
            np.testing.assert_array_equal(part, values[middle:stop])
        expected = dataclasses.replace(plain.spec, norm_offset=other.spec.norm_offset)
        assert other.spec == expected
        assert other.spec.column_block == 1 and other.is_gguf and not plain.is_gguf


def test_logits_are_the_folder_s(model: tuple[Path, Path]) -> None:
    tokens = np.array([1, 7, 200, 33, 5, 9, 250], np.int32)
    step = Step(
        tokens=tokens,
        slots=np.zeros(7, np.int32),
        positions=np.arange(7, dtype=np.int32),
        wants_logits=np.ones(7, np.bool_),
        page_tables=np.array([[0]], np.int32),
    )
    found = []
    with Folder.open(model[0]) as plain, Folder.open(model[1]) as other:
        for folder, shares in ((plain, (1,)), (other, (1,)), (other, (3, 2))):
            with NativeNodes(folder.spec, folder, weight_format="f32", shares=shares) as nodes:
                found.append(nodes.run(step))
    assert np.isfinite(found[0]).all() and len(np.unique(found[0])) > 1000
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_a_further_layer_that_a_file_counts_but_lacks(tmp_path: Path) -> None:
    config = config_of("glm4moe")
    values = laid_out(spec_from_config(config), random_tensors(spec_from_config(config), 7))
    with Folder.open(write_gguf(tmp_path / "m.gguf", config, values)) as folder:
        assert folder.spec.further is None
        assert folder.spec.num_layers == config["num_hidden_layers"]


def test_groups_of_experts_that_a_file_leaves_out(tmp_path: Path) -> None:
    """As files of DeepSeek V3 and R1 from 2025 do."""
    sizes = {"n_routed_experts": 256, "moe_intermediate_size": 4, "first_k_dense_replace": 2,
             "n_group": None, "num_nextn_predict_layers": 0}  # fmt: skip
    config = {**_CASES["deepseek_v3"].config(), **sizes}
    spec = spec_from_config({**config, "n_group": 8, "topk_group": 4})
    values = laid_out(spec, random_tensors(spec, 7))
    with Folder.open(write_gguf(tmp_path / "m.gguf", config, values)) as folder:
        mlp = folder.spec.layers[-1].mlp
        assert isinstance(mlp, MixtureSpec)
        assert (mlp.router.groups, mlp.router.top_groups) == (8, 4)
        (remark,) = folder.remarks
        assert "leaves out that experts are chosen by groups" in remark


def test_a_command_runs_a_file_as_the_folder_it_was_made_of(tmp_path: Path) -> None:
    """With the same integers and scales, on two nodes: the same tokens, tokenizer and template."""
    path = export(demo_folder("demo"), tmp_path / "demo-Q4_0.gguf", "q4")
    asked = ("--prompt", "What is 17 + 25?", "--json")
    file, folder = bandweave("run", path, "--nodes", "2", *asked), bandweave("run", "demo", *asked)
    assert file.status == folder.status == 0, file.err
    own, theirs = (json.loads(one.out) for one in (file, folder))
    assert own["logits_digest"] == theirs["logits_digest"]
    assert own["text"] == theirs["text"] and own["tokens"] == theirs["tokens"]


@pytest.mark.parametrize(
    ("name", "bias", "size"),
    [("qwen3moe", "blk.1.ffn_gate_inp.bias", 9), ("deepseek2", "blk.0.attn_q_a.bias", 36)],
)
def test_biases_that_the_model_has_not_are_refused(
    name: str, bias: str, size: int, tmp_path: Path
) -> None:
    config = config_of(name)
    spec = spec_from_config(config)
    values = laid_out(spec, random_tensors(spec, 7))
    path = write_gguf(tmp_path / "m.gguf", config, values, more={bias: np.ones(size, np.float32)})
    with pytest.raises(CheckpointError, match=f"{bias}' is a bias .*safetensors"):
        Folder.open(path)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rope.scaling.attn_factor": 1.25}, 1.25 * (0.1 * math.log(8) + 1)),
        ({"rope.scaling.yarn_attn_factor": 0.5}, 0.5 * (0.1 * math.log(8) + 1)),
        ({}, None),
    ],
)
def test_what_a_file_multiplies_yarn_s_growth_by(
    fields: dict[str, float], expected: float | None, tmp_path: Path
) -> None:
    config = {**_CASES["grouped_queries"].config(), "rope_parameters": dict(YARN)}
    spec = spec_from_config(config)
    values = laid_out(spec, random_tensors(spec, 7))
    named = {f"llama.{key}": value for key, value in fields.items()}
    with Folder.open(write_gguf(tmp_path / "m.gguf", config, values, fields=named)) as folder:
        rope = folder.spec.heads.rope
        assert rope is not None and rope.scaling is not None
        assert rope.scaling.attention_factor == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"llama.rope.scaling.attn_factor": 1.25}, "attn_factor"),
        ({"llama.rope.dimension_count": 4}, "rotate whole heads"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_ext_factor": 0.5}, "ext_f"),
    ],
)
def test_ropes_that_cannot_be_run_are_refused(
    fields: dict[str, Any], part: str, tmp_path: Path
) -> None:
    config = _CASES["grouped_queries"].config()
    spec = spec_from_config(config)
    values = laid_out(spec, random_tensors(spec, 7))
    own = "llama.rope.dimension_count" not in fields
    path = write_gguf(tmp_path / "m.gguf", config, values, fields=fields, rotated=own)
    with pytest.raises(CheckpointError, match=part):
        Folder.open(path)


def test_the_divisors_of_llama_3(tmp_path: Path) -> None:
    """Rounded to float32 in the file, so frequencies are near the folder's, not the same."""
    case = _CASES["llama3_rope"]
    config = case.config()
    spec = case.spec()
    values = laid_out(spec, case.tensors())
    assert spec.heads.rope is not None
    own = rope_table(spec.heads.rope)
    exact = rope_table(dataclasses.replace(spec.heads.rope, scaling=None))
    divisors = np.array(exact.frequencies) / np.array(own.frequencies)
    path = write_gguf(
        tmp_path / "m.gguf",
        {**config, "rope_parameters": {"rope_theta": 500000.0}},
        values,
        more={"rope_freqs.weight": divisors.astype(np.float32)},
    )
    with Folder.open(path) as folder:
        rope = folder.spec.heads.rope
        assert rope is not None
        np.testing.assert_allclose(rope_table(rope).frequencies, own.frequencies, rtol=1e-7)
        assert rope_table(rope).factor == 1.0 and divisors.max() > 7


@pytest.mark.parametrize(("kind", "runs_as"), [("Q8_0", "q8_0"), ("Q4_K", "int8")])
def test_columns_of_heads_in_another_order(kind: str, runs_as: str, tmp_path: Path) -> None:
    """As blocks where none holds columns of two heads, else as values."""
    linear = HYBRIDS["qwen35"]
    keys, heads = linear["linear_num_key_heads"], linear["linear_num_value_heads"]
    with Folder.open(write_hybrid_case(tmp_path / "m.gguf", "qwen35", kind)) as folder:
        name = "layers.0.delta_o_proj"
        rows, columns = folder.shape(name)
        file = gguf.GGUFReader(tmp_path / "m.gguf")
        (tensor,) = (one for one in file.tensors if one.name == "blk.0.ssm_out.weight")
        stored = gguf.dequantize(tensor.data, tensor.tensor_type)
        expected = stored.reshape(rows, heads // keys, keys, -1).swapaxes(1, 2).reshape(rows, -1)
        assert folder.stored_as(name) == runs_as
        dtype = folder.dtype(name)
        every = Range(start=0, stop=rows)
        np.testing.assert_array_equal(widen(folder.read(name, every), dtype), expected)
        half = Range(start=columns // 4, stop=3 * columns // 4)
        np.testing.assert_array_equal(
            widen(folder.read(name, Range(start=3, stop=9), half), dtype),
            expected[3:9, half.start : half.stop],
        )


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("qwen35.ssm.group_count", 0, "ssm.group_count"),
        ("qwen35.attention.recurrent_layers", [True], "recurrent_layers has 1 entries"),
        ("qwen35.ssm.inner_size", 1001, "ssm.inner_size"),
    ],
)
def test_hybrids_whose_fields_make_no_sense(
    field: str, value: Any, words: str, tmp_path: Path
) -> None:
    path = write_hybrid_case(tmp_path / "m.gguf", "qwen35", "F32", changed={field: value})
    with pytest.raises(ValueError, match=words):
        Folder.open(path)


def test_rates_that_are_no_exponentials(tmp_path: Path) -> None:
    def encode(name: str, values: F32) -> tuple[F32, None]:
        return (-values if name.endswith("ssm_a") else values), None

    path = write_hybrid_case(tmp_path / "m.gguf", "qwen35", "F32", encode=encode)
    with Folder.open(path) as folder, pytest.raises(ValueError, match=r"ssm_a.*negative"):
        whole(folder, "layers.0.delta_rate")
