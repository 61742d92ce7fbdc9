"""GGUF headers and shapes of models that lie here as files."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandweave.checkpoints.gguf import GgufFile
from bandweave.checkpoints.model_files import role_of, shape_from_path
from bandweave.checkpoints.source import CheckpointError
from bandweave.models.known_models import known_model
from bandweave.planning.costs.weight_bytes import stored_format
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape
from tests.helpers.gguf_bytes import gguf, small_llama


@pytest.mark.parametrize("experts", [0, 8])
def test_shape_of_a_gguf_file(tmp_path: Path, experts: int) -> None:
    path = tmp_path / "small-Q4_0.gguf"
    path.write_bytes(gguf(*small_llama(experts=experts)))
    file = GgufFile.open(path)
    sizes = {name: entry.stop - entry.start for name, entry in file.tensors.items()}
    assert file.metadata["tokenizer.ggml.tokens"] == 5000  # counted, not kept
    assert file.whole_metadata()["tokenizer.ggml.tokens"] == [f"t{n}" for n in range(5000)]
    assert sizes["output.weight"] == 5000 * 210
    file.close()
    shape = shape_from_path(path)
    assert len(shape.layers) == 2 and shape.runs_on_bandweave
    assert shape.architecture == ("MixtralForCausalLM" if experts else "LlamaForCausalLM")
    assert shape.layers[0].attention.kv_elements == 2 * 2 * 64
    stored = stored_format(shape)
    assert stored.of("head") == pytest.approx(210 / 256)
    assert stored.of("attention") == stored.of("embedding") == pytest.approx(18 / 32)
    assert stored.of("norm") == 4
    assert stored.of("expert" if experts else "dense") == pytest.approx(18 / 32)
    assert stored.total(shape.parameters_by_role()) == pytest.approx(sum(sizes.values()))
    assert shape.stored_format == "gguf-q4_0"


def test_parts_count_together(tmp_path: Path) -> None:
    fields, tensors = small_llama()
    names = list(tensors)
    halves = [{name: tensors[name] for name in part} for part in (names[:5], names[5:])]
    paths = [tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    paths[0].write_bytes(gguf(fields, halves[0]))
    with pytest.raises(CheckpointError, match=r"m-00002-of-00002\.gguf is missing"):
        shape_from_path(paths[0])
    paths[1].write_bytes(gguf({"general.architecture": "llama"}, halves[1]))
    assert shape_from_path(paths[0]).total_parameters > 3e6
    for name in ("blk.1.ffn_up.weight", "blk.1.ffn_down.weight"):
        del halves[1][name]
    paths[1].write_bytes(gguf({"general.architecture": "llama"}, halves[1]))
    with pytest.raises(CheckpointError, match="its sizes ask for"):
        shape_from_path(paths[0])


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(CheckpointError, match="does not exist"):
        shape_from_path(path)
    whole = gguf(*small_llama())
    for content, message in (
        (b"", "does not start with GGUF"),
        (b"GGML" + whole[4:], "does not start with GGUF"),
        (whole[:4] + struct.pack("<I", 1) + whole[8:], "version 1"),
        (whole[:8] + struct.pack("<Q", 1 << 40) + whole[16:], "it is damaged"),
        (whole[:3000], "cut short"),
        (whole[:-64], "cut short"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            GgufFile.open(path)
    fields, tensors = small_llama()
    path.write_bytes(gguf({**fields, "general.architecture": "mamba"}, tensors))
    with pytest.raises(CheckpointError, match="architecture 'mamba'"):
        shape_from_path(path)
    path.write_bytes(gguf(fields, {}))
    with pytest.raises(CheckpointError, match="token_embd"):
        shape_from_path(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 1500), st.integers(0, 255))
def test_a_changed_byte_never_ends_in_another_error(
    tmp_path: Path, position: int, value: int
) -> None:
    fields, tensors = small_llama(layers=1)
    del fields["tokenizer.ggml.tokens"]
    content = bytearray(gguf(fields, tensors))
    content[position % len(content)] = value
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        shape_from_path(path)


@pytest.mark.parametrize("architecture", ["llama", "gpt-oss"])
def test_absurd_sizes_end_at_once(tmp_path: Path, architecture: str) -> None:
    fields, tensors = small_llama()
    fields = {key.replace("llama.", f"{architecture}."): fields[key] for key in fields}
    fields |= {"general.architecture": architecture, f"{architecture}.block_count": 2**31,
               f"{architecture}.attention.sliding_window": 128}  # fmt: skip
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(fields, tensors))
    with pytest.raises(CheckpointError, match="2147483648"):
        shape_from_path(path)


def test_shape_of_a_folder(tmp_path: Path) -> None:
    folder = synthesise(find_shape("tiny"), tmp_path / "m", 0, "bf16")
    shape = shape_from_path(folder)
    assert shape.layers == known_model("tiny").layers
    assert shape.runs_on_bandweave
    stored = stored_format(shape)
    assert {stored.of(role) for role in ("attention", "dense", "head", "norm")} == {2.0}
    sizes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert stored.total(shape.parameters_by_role()) == pytest.approx(sizes, rel=0.01)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    with pytest.raises(CheckpointError, match="model_type 'mamba'"):
        shape_from_path(folder)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.layers.3.mlp.experts.7.gate_proj.weight", "expert"),
        ("model.layers.3.mlp.experts.gate_up_proj_blocks", "expert"),
        ("model.layers.3.block_sparse_moe.experts.1.w1.weight", "expert"),
        ("model.layers.3.mlp.shared_experts.up_proj.weight", "shared"),
        ("model.layers.3.mlp.shared_expert_gate.weight", "shared"),
        ("model.layers.3.mlp.gate.weight", "router"),
        ("model.layers.3.mlp.gate.e_score_correction_bias", "router"),
        ("model.layers.3.mlp.router.bias", "router"),
        ("model.layers.3.block_sparse_moe.gate.weight", "router"),
        ("model.layers.3.mlp.gate_proj.weight", "dense"),
        ("model.layers.3.self_attn.kv_a_proj_with_mqa.weight_scale_inv", "attention"),
        ("model.layers.3.self_attn.q_norm.weight", "attention"),
        ("model.layers.3.linear_attn.in_proj_qkvz.weight", "attention"),
        ("model.layers.3.post_attention_layernorm.weight", "norm"),
        ("model.layers.61.mlp.experts.7.gate_proj.weight", "unused"),
        ("model.embed_tokens.weight", "embedding"),
        ("lm_head.weight", "head"),
        ("model.norm.weight", "norm"),
        ("visual.blocks.3.attn.weight", "unused"),
        ("blk.3.attn_kv_a_mqa.weight", "attention"),
        ("blk.3.ffn_gate_inp.weight", "router"),
        ("blk.3.exp_probs_b.bias", "router"),
        ("blk.3.ffn_gate_shexp.weight", "shared"),
        ("blk.3.ffn_down_exps.weight", "expert"),
        ("blk.3.ffn_down.weight", "dense"),
        ("blk.3.ffn_norm.weight", "norm"),
        ("blk.3.attn_norm.weight", "norm"),
        ("blk.3.attn_q_a_norm.weight", "attention"),
    ],
)
def test_roles(name: str, role: str) -> None:
    assert role_of(name, 61, tied=False) == role


def test_a_tied_table_is_the_head() -> None:
    assert role_of("model.embed_tokens.weight", 2, tied=True) == "head"
    assert role_of("token_embd.weight", 2, tied=True) == "head"
