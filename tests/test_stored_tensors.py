"""Which stored tensors are the model's: names, ties, dtypes and shards as transformers has them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.model_files import shape_from_path
from bandweave.checkpoints.safetensors import encode_header
from bandweave.checkpoints.source import widen
from bandweave.models.limits import MOST_LAYERS
from bandweave.models.registry import build_graph, spec_from_config
from bandweave.ranges import Range
from tests.test_checkpoints import CONFIG, random_tensors, refused, write_folder

TIED = {**CONFIG, "tie_word_embeddings": True}
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"

Tensors = dict[str, np.ndarray]


def whole(folder: Folder, name: str) -> np.ndarray:
    return widen(folder.read(name, Range(start=0, stop=folder.shape(name)[0])))


def write_bare(path: Path, config: dict[str, Any], tensors: list[tuple[str, str, tuple]]) -> Path:
    """A folder whose one file holds zeros of any dtype."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    header = encode_header(tensors)
    with (path / "model.safetensors").open("wb") as file:
        file.write(header)
        entries = json.loads(header[8:])
        entries.pop("__metadata__", None)
        file.truncate(len(header) + max(one["data_offsets"][1] for one in entries.values()))
    return path


# --- ties ---


def test_a_head_stored_beside_a_tied_embedding_is_used(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    with Folder.open(write_folder(tmp_path / "m", TIED, tensors)) as folder:
        assert not folder.spec.tied_embeddings
        np.testing.assert_array_equal(whole(folder, "lm_head"), tensors[HEAD])
        np.testing.assert_array_equal(whole(folder, "embed_tokens"), tensors[TABLE])
    assert not shape_from_path(tmp_path / "m").tied


@pytest.mark.parametrize("stored", [HEAD, TABLE])
def test_one_table_is_enough_for_a_tied_model(tmp_path: Path, stored: str) -> None:
    tensors = random_tensors(TIED)
    table = tensors.pop(TABLE)
    tensors[stored] = table
    with Folder.open(write_folder(tmp_path / "m", TIED, tensors)) as folder:
        assert folder.spec.tied_embeddings
        assert "lm_head" not in folder.names()
        np.testing.assert_array_equal(whole(folder, "embed_tokens"), table)


def test_a_model_without_head_or_ties_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    del tensors[HEAD]
    refused(write_folder(tmp_path / "m", CONFIG, tensors), "lacks 1 of", HEAD)
    del tensors[TABLE]
    refused(write_folder(tmp_path / "n", TIED, tensors), "lacks 1 of", TABLE)


# --- names ---


@pytest.mark.parametrize("rename", [
    lambda name: name.removeprefix("model."),  # weights saved without the head's class
    lambda name: "model." + name,
    lambda name: "model." + name if name == HEAD else name.removeprefix("model."),
    lambda name: "language_model." + name,  # parts of multimodal models
    lambda name: name if name == HEAD else name.replace("model.", "model.language_model."),
    lambda name: "language_model." + name.removeprefix("model."),
])  # fmt: skip
def test_prefixes(tmp_path: Path, rename: Any) -> None:
    tensors = random_tensors(CONFIG)
    path = write_folder(tmp_path / "m", CONFIG, {rename(name): v for name, v in tensors.items()})
    with Folder.open(path) as folder:
        np.testing.assert_array_equal(whole(folder, "norm"), tensors["model.norm.weight"])
        np.testing.assert_array_equal(whole(folder, "lm_head"), tensors[HEAD])


def test_two_tensors_for_one(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    tensors["norm.weight"] = tensors["model.norm.weight"] + 1
    refused(write_folder(tmp_path / "m", CONFIG, tensors), "model.norm.weight", "'norm.weight'")


def test_other_tensors_are_ignored(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    extra: Tensors = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32),
        "optimizer.step": np.ones((), np.int64),
        "model.layers.2.mlp.up_proj.weight": np.ones((24, 16), np.float32),
        "model.layers.0.self_attn.q_proj.bias": np.ones(16, np.float32),
        "vision_tower.layers.0.self_attn.q_proj.weight": np.ones(16, np.float32),
        "model.visual.blocks.0.norm1.weight": np.ones(16, np.float32),
    }
    with Folder.open(write_folder(tmp_path / "m", CONFIG, {**tensors, **extra})) as folder:
        names = {weight.name for weight in build_graph(folder.spec).weights()}
        assert set(folder.names()) == names


@pytest.mark.parametrize(
    ("rename", "parts"),
    [
        ("base_model.model.{}", ("adapter", "merge")),
        ("{}.lora_A.weight", ("adapter",)),
        ("{}.qweight", ("GPTQ or AWQ", "'quantization_config'")),
        ("{}.absmax", ("bitsandbytes", "original model")),
        ("{}.weight_scale_2", ("Model Optimizer", "original model")),
        ("{}.attention.wq.weight", ("Hugging Face layout",)),
        ("_orig_mod.{}", ("is it the config of these weights?",)),
    ],
)
def test_what_lies_there_instead_is_named(
    tmp_path: Path, rename: str, parts: tuple[str, ...]
) -> None:
    tensors = {rename.format(name): v for name, v in random_tensors(CONFIG).items()}
    refused(write_folder(tmp_path / "m", CONFIG, tensors), "lacks", *parts)


# --- dtypes and shapes ---


def test_float64_is_rounded_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    tensors = {name: generator.standard_normal(tensor.shape)
               for name, tensor in random_tensors(CONFIG).items()}  # fmt: skip
    with Folder.open(write_folder(tmp_path / "m", CONFIG, tensors)) as folder:
        for name in ("norm", "layers.1.down_proj", "embed_tokens"):
            assert folder.dtype(name) == "f32"
        table = tensors[TABLE].astype(np.float32)
        read = folder.read("embed_tokens", Range(start=3, stop=9), Range(start=2, stop=11))
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, table[3:9, 2:11])
        np.testing.assert_array_equal(folder.read_rows("embed_tokens", [7, 0]), table[[7, 0]])
        assert folder.read("norm", Range(start=0, stop=0)).dtype == np.float32


def test_float64_beyond_float32_is_infinite_without_a_warning(tmp_path: Path) -> None:
    tensors = {name: tensor.astype(np.float64) for name, tensor in random_tensors(CONFIG).items()}
    tensors["model.norm.weight"][3] = 1e300
    with Folder.open(write_folder(tmp_path / "m", CONFIG, tensors)) as folder:
        assert np.isinf(whole(folder, "norm")[3])


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8", "U8", "I32", "U32", "I64", "BOOL"])
def test_other_dtypes_are_refused(tmp_path: Path, dtype: str) -> None:
    shapes = random_tensors(CONFIG)
    tensors = [(name, dtype if "up_proj" in name else "F32", tensor.shape)
               for name, tensor in shapes.items()]  # fmt: skip
    path = write_bare(tmp_path / "m", CONFIG, tensors)
    refused(path, "up_proj", f"stored as {dtype}", "original model")


def test_mlx_is_named_before_its_shapes(tmp_path: Path) -> None:
    config = {**CONFIG, "quantization": {"group_size": 64, "bits": 4}}
    shapes = random_tensors(CONFIG)
    tensors = []
    for name, tensor in shapes.items():
        if tensor.ndim == 2:
            packed = (tensor.shape[0], tensor.shape[1] // 8)
            tensors += [(name, "U32", packed), (name.replace("weight", "scales"), "F16", packed)]
        else:
            tensors.append((name, "F16", tensor.shape))
    path = write_bare(tmp_path / "m", config, tensors)
    refused(path, "MLX", "original model")
    (path / "config.json").write_text(json.dumps(CONFIG))  # and without the field
    refused(path, "stored as U32", "quantised", "original model")


def test_a_transposed_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    refused(write_folder(tmp_path / "m", CONFIG, tensors), name, "transposed")


# --- shards without an index ---


def test_all_shards_load_without_an_index(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    path = write_folder(tmp_path / "m", CONFIG, tensors, shards=3)
    (path / "model.safetensors.index.json").unlink()
    (path / "consolidated.safetensors").write_bytes(b"no part of it")
    with Folder.open(path) as folder:
        for name in ("norm", "lm_head", "layers.1.q_proj"):
            assert whole(folder, name).any()
        with Folder.open(write_folder(tmp_path / "n", CONFIG, tensors)) as other:
            np.testing.assert_array_equal(whole(folder, "lm_head"), whole(other, "lm_head"))


def test_shards_without_an_index_that_are_not_whole(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "m", CONFIG, random_tensors(CONFIG), shards=3)
    (path / "model.safetensors.index.json").unlink()
    second = path / "model-00002-of-00003.safetensors"
    content = second.read_bytes()
    second.unlink()
    refused(path, "2 of 3", "model-00002-of-00003.safetensors is missing", "finish the download")
    second.write_bytes(content)
    (path / "model-00004-of-00003.safetensors").write_bytes(content)
    refused(path, "model-00004-of-00003.safetensors is one too many")
    (path / "model-00004-of-00003.safetensors").rename(path / "model-00001-of-00002.safetensors")
    refused(path, "parts of different models", "of 2", "of 3")


def test_a_single_file_outweighs_shards(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    path = write_folder(tmp_path / "m", CONFIG, tensors, shards=3)
    tensors = {name: tensor + 1 for name, tensor in tensors.items()}
    safetensors.numpy.save_file(tensors, path / "model.safetensors")
    with Folder.open(path) as folder:
        np.testing.assert_array_equal(whole(folder, "norm"), tensors["model.norm.weight"])


# --- many tensors ---


def test_opening_takes_steps_in_proportion_to_the_tensors(tmp_path: Path) -> None:
    small, large = (steps_to_open(tmp_path / str(layers), layers) for layers in (150, 600))
    assert large < 4.2 * small


def steps_to_open(path: Path, layers: int) -> int:
    """Calls of functions that opening a folder takes, by so many layers and experts beside them."""
    config = {**CONFIG, "num_hidden_layers": layers, "attention_bias": True, "mlp_bias": True}
    tensors: list[tuple[str, str, tuple]] = [
        (name, "F32", tensor.shape) for name, tensor in names_of(config).items()
    ]
    tensors += [(f"model.layers.{n // 7}.mlp.experts.{n}.w", "F32", (2,))
                for n in range(layers * 7)]  # fmt: skip
    write_bare(path, config, tensors)
    steps = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        Folder.open(path).close()
    finally:
        sys.setprofile(None)
    return steps


@pytest.mark.timeout(60)
def test_a_hundred_thousand_tensors_open(tmp_path: Path) -> None:
    """In seconds; by what a quadratic step would take it would be hours."""
    config = {**CONFIG, "num_hidden_layers": MOST_LAYERS, "attention_bias": True}
    tensors: list[tuple[str, str, tuple]] = [
        (name, "F32", tensor.shape) for name, tensor in names_of(config).items()
    ]
    tensors += [(f"extra.{n}", "F32", (2,)) for n in range(100_000 - len(tensors))]
    with Folder.open(write_bare(tmp_path / "m", config, tensors)) as folder:
        assert folder.spec.num_layers == MOST_LAYERS


def names_of(config: dict[str, Any]) -> Tensors:
    """As ``random_tensors``, without a number in them."""
    from bandweave.models.registry import hugging_face_name

    spec = spec_from_config(config)
    zero = np.float32(0)
    return {hugging_face_name(spec.family, weight.name): np.broadcast_to(zero, weight.shape)
            for weight in build_graph(spec).weights()}  # fmt: skip
