"""GGUF files with blocks of every type: values, splits along whole blocks, formats, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.model_files import shape_from_path
from bandweave.checkpoints.source import CheckpointError, widen
from bandweave.executors.executor import Step
from bandweave.models.registry import build_graph, hugging_face_name, spec_from_config
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.weights.stored_formats import node_program, run_formats, told
from tests.helpers.gguf_mixed import CONFIG, TYPES, encoded_as, stored, write_mixed
from tests.helpers.gguf_models import Array, write_gguf
from tests.helpers.laid_out import laid_out
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import F32, random_tensors
from tests.helpers.reference_nodes import ReferenceNodes
from tests.helpers.stored_models import write_model
from tests.transformers_reference import cases

CASES = {case.name: case for case in cases.CASES}
STEP = Step(
    tokens=np.array([1, 700, 1200, 33, 5, 9], np.int32),
    slots=np.zeros(6, np.int32),
    positions=np.arange(6, dtype=np.int32),
    wants_logits=np.ones(6, np.bool_),
    page_tables=np.array([[0]], np.int32),
)


MIXTURE = {
    **CASES["deepseek_v2"].config(), "hidden_size": 256, "moe_intermediate_size": 512,
    "n_shared_experts": 1, "num_hidden_layers": 2, "first_k_dense_replace": 0, "vocab_size": 1300,
    "kv_lora_rank": 64, "qk_nope_head_dim": 32, "v_head_dim": 64,
    "num_attention_heads": 8, "num_key_value_heads": 8,
}  # fmt: skip
_EXPERT_TYPES = {
    "_gate_exps": "Q4_K", "_up_exps": "Q4_K", "_down_exps": "Q5_0",
    "_gate_shexp": "Q6_K", "_up_shexp": "Q6_K",
    "attn_output": "Q4_K", "attn_k_b": "Q8_0", "attn_v_b": "Q5_0",
}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed(tmp_path_factory.mktemp("gguf") / "m.gguf")


@pytest.fixture
def model(path: Path) -> Iterator[Folder]:
    with Folder.open(path) as folder:
        yield folder


def whole(folder: Folder, name: str) -> np.ndarray:
    rows = Range(start=0, stop=folder.shape(name)[0])
    return widen(folder.read(name, rows), folder.dtype(name))


def peers(path: Path) -> dict[str, np.ndarray]:
    """The values that the gguf package reads, by stored names."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(path).tensors
    }


def test_values_are_those_of_the_gguf_package(model: Folder, path: Path) -> None:
    theirs = peers(path)
    assert {model.dtype(name) for name in model.names()} == {
        *(kind.lower() for kind in TYPES.values()), "f32",
    }  # fmt: skip
    for name in model.names():
        values = theirs[model.stored_name(name)].reshape(model.shape(name))
        if name.endswith(("q_proj", "k_proj")):  # heads' rows in pairs of their halves
            values = values.reshape(-1, 32, 2, 256).swapaxes(1, 2).reshape(values.shape)
        own = whole(model, name)
        np.testing.assert_allclose(own, values, rtol=1e-6, atol=1e-7 * np.abs(values).max())
        if len(values.shape) == 2:
            rows = [len(values) - 1, 0, 77]
            np.testing.assert_array_equal(model.read_rows(name, rows), own[rows])


def test_no_node_cuts_a_block(model: Folder) -> None:
    assert model.spec.column_block == 256
    assert model.spec.head_unit(model.spec.layers[0].attention) == 4
    graph = build_graph(model.spec)
    split = make_split(model.spec, (3, 1, 1), stages=1)
    shares = split.shares
    assert [len(share.columns[0][1]) % 256 for share in shares] == [0, 0, 0]
    assert [len(share.heads[0][1]) % 4 for share in shares] == [0, 0, 0]
    for node in range(3):
        for weight in node_program(model, graph, split, node, "stored").weights.values():
            for part in weight.parts:
                assert part.columns is not None and part.columns.start % 256 == 0
                assert len(part.columns) % 256 == 0


def test_a_column_inside_of_a_block_cannot_be_read(model: Folder) -> None:
    rows = Range(start=0, stop=4)
    with pytest.raises(ValueError, match=r"cut blocks of 256"):
        model.read("layers.0.down_proj", rows, Range(start=0, stop=128))
    read = model.read("layers.0.down_proj", rows, Range(start=256, stop=768))
    assert read.shape == (4, 2 * 210)


@pytest.mark.parametrize("tied", [False, True])
def test_both_executors_on_any_nodes_give_one_answer(
    tmp_path: Path, path: Path, tied: bool
) -> None:
    path = write_mixed(tmp_path / "m.gguf", tied=True) if tied else path
    with Folder.open(path) as model:
        assert model.spec.tied_embeddings == tied
        with NativeNodes(model.spec, model, weight_format="stored") as nodes:
            expected = nodes.run(STEP)
        assert np.isfinite(expected).all() and len(np.unique(expected)) > 1000
        splits = (((1, 1), 1), ((1, 1, 1), 1), ((1,) * 5, 1), ((5, 2), 1), ((1, 1), 2))
        for shares, stages in splits[:2] if tied else splits:
            with NativeNodes(
                model.spec, model, weight_format="stored", shares=shares, stages=stages
            ) as nodes:
                np.testing.assert_array_equal(nodes.run(STEP), expected)
        with ReferenceNodes(model.spec, model, weight_format="stored", shares=(2, 1)) as reference:
            np.testing.assert_array_equal(reference.run(STEP), expected)


@pytest.mark.parametrize("weight_format", ["f32", "bf16", "q8"])
def test_blocks_made_into_another_format(model: Folder, tmp_path: Path, weight_format: str) -> None:
    """Are what a folder of the same values is in it."""
    values = {name: whole(model, name) for name in model.names()}
    tensors = {hugging_face_name("llama", name): ("F32", value) for name, value in values.items()}
    with Folder.open(write_model(tmp_path / "m", CONFIG, tensors)) as folder:
        with NativeNodes(folder.spec, folder, weight_format=weight_format) as nodes:
            alone = nodes.run(STEP)
        with NativeNodes(model.spec, model, weight_format=weight_format, shares=(3, 2)) as nodes:
            answer = nodes.run(STEP)
        with NativeNodes(model.spec, model, weight_format=weight_format) as nodes:
            np.testing.assert_array_equal(nodes.run(STEP), answer)
    scale = np.abs(alone).max()
    # Sums of units of 256 columns and of 64 are rounded to the grid in other places.
    np.testing.assert_allclose(answer, alone, rtol=0, atol=2e-3 * scale)


@pytest.mark.parametrize(("kind", "second"), [("Q5_0", "q5_0"), ("Q4_0", "q4")])
def test_experts_and_a_shared_one_of_other_types(tmp_path: Path, kind: str, second: str) -> None:
    """As files have them whose makers chose types by layer and by kind."""
    spec = spec_from_config(MIXTURE)
    values = laid_out(spec, random_tensors(spec, 3))

    def encode(name: str, values: F32) -> tuple[Array, gguf.GGMLQuantizationType | None]:
        types = {**_EXPERT_TYPES, "_down_shexp": kind}
        own = next((own for part, own in types.items() if part in name), None)
        return (values, None) if own is None else encoded_as(own, name, values)

    path = write_gguf(tmp_path / "m.gguf", MIXTURE, values, encode=encode)
    with Folder.open(path) as model:
        assert model.spec.column_block == 256
        with NativeNodes(model.spec, model, weight_format="stored") as nodes:
            expected = nodes.run(STEP)
        formats = run_formats(model, build_graph(model.spec)).items()
        found = {own for name, own in formats if "expert" in name}
        assert found == {"q4_k", "q6_k", "q5_0", second}
        assert np.isfinite(expected).all() and len(np.unique(expected)) > 1000
        for shares in ((1, 1), (1, 3, 1)):
            with NativeNodes(model.spec, model, weight_format="stored", shares=shares) as nodes:
                np.testing.assert_array_equal(nodes.run(STEP), expected)
        with ReferenceNodes(model.spec, model, weight_format="stored", shares=(1, 1)) as reference:
            np.testing.assert_array_equal(reference.run(STEP), expected)


def test_what_runs_how_is_told(model: Folder) -> None:
    sentence = told(model, build_graph(model.spec))
    assert "q4_k in q4_k exactly" in sentence and "f16 in f32 exactly" in sentence
    assert "q4_0 in q4 exactly" in sentence and "mxfp4 in mxfp4 exactly" in sentence


@pytest.mark.parametrize("kind", ["IQ2_XXS", "TQ1_0", "IQ1_M", "Q1_0"])
def test_types_that_are_not_read(tmp_path: Path, kind: str) -> None:
    number = gguf.GGMLQuantizationType[kind]

    def encode(name: str, values: F32) -> tuple[Array, gguf.GGMLQuantizationType | None]:
        if name != "blk.1.ffn_up.weight":
            return stored(name, values)
        weights, size = gguf.GGML_QUANT_SIZES[number]
        return np.zeros((len(values), values.shape[1] // weights * size), np.uint8), number

    spec = spec_from_config(CONFIG)
    values = laid_out(spec, random_tensors(spec, 9))
    path = write_gguf(tmp_path / "m.gguf", CONFIG, values, encode=encode)
    with pytest.raises(CheckpointError) as caught:
        Folder.open(path)
    sentence = str(caught.value)
    assert f"'blk.1.ffn_up.weight' is stored as {kind}, which is not read" in sentence
    assert "download a version in Q4_K_M" in sentence
    assert not shape_from_path(path).runs_on_bandweave
