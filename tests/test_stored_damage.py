"""Quantised checkpoints that are damaged, or of a kind that is not read: what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.stored_formats import Tensor
from tests.helpers.stored_models import CONFIG, FORMATS, encoded, write_model
from tests.test_stored_tensors import whole

GATE, GATE_STORED = "layers.0.gate_proj", "model.layers.0.mlp.gate_proj.weight"


def broken(tmp_path: Path, name: str, change: Any, config: Any = None) -> str:
    """The message about a model in a format, one of whose tensors was changed: ``change`` gets the
    tensors and changes them."""
    form, tensors = FORMATS[name], dict(encoded(name)[0])
    change(tensors)
    fields = {**CONFIG, "quantization_config": form.config if config is None else config}
    path = write_model(tmp_path / "m", fields, tensors)
    with pytest.raises(CheckpointError) as caught, Folder.open(path) as folder:
        whole(folder, GATE)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def edit(suffix: str, change: Any, dtype: str = "") -> Any:
    """Changes the array of one of the gate's tensors."""

    def apply(tensors: dict[str, Tensor]) -> None:
        name = next(one for one in tensors if "gate_proj" in one and one.endswith(suffix))
        kind, array = tensors[name]
        tensors[name] = dtype or kind, change(array.copy())

    return apply


def put(value: Any) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[1 % array.size] = value
        return array

    return change


def whole_point(value: int) -> Any:
    """Zero points a byte each, as ``int4 zeros`` may also store them; one of them is ``value``."""

    def change(array: np.ndarray) -> np.ndarray:
        points = np.zeros((160, 2), np.int8)
        points[3, 1] = value
        return points

    return change


def without(suffix: str) -> Any:
    def apply(tensors: dict[str, Tensor]) -> None:
        for name in [one for one in tensors if "gate_proj" in one and one.endswith(suffix)]:
            del tensors[name]

    return apply


@pytest.mark.parametrize(
    ("form", "change", "parts"),
    [
        ("fp8 blocks", without("_scale_inv"), ("gate_proj", "lacks its scales")),
        ("fp8 blocks", edit("_inv", put(np.nan)), ("gate_proj.weight_scale_inv", "scale nan")),
        ("fp8 blocks", edit("_inv", put(np.inf)), ("scale inf",)),
        ("fp8 blocks", edit("_inv", put(-1)), ("scale -1.0", "not negative")),
        ("fp8 blocks", edit("_inv", lambda a: a[:-1]), ("shape [3, 2]", "[4, 2]")),
        ("fp8 blocks", edit("weight", put(0xFF)), ("gate_proj.weight", "NaN")),
        ("fp8 blocks", edit("weight", lambda a: a[:-1]), ("[159, 64]", "[160, 64]")),
        ("fp8 blocks", edit("weight", lambda a: a, "F8_E5M2"), ("stored as F8_E5M2", "not read")),
        ("fp8 rows", edit("_scale", lambda a: a[:-1]), ("shape [159, 1]", "[160, 1]")),
        ("fp8 one scale", edit("_inv", lambda a: a.reshape(1, 1, 1)), ("shape [1, 1, 1]",)),
        ("fp8 exponents", edit("_inv", put(255)), ("scale nan",)),
        ("fp8 blocks", edit("_inv", lambda a: a.astype(np.int64), "I64"), ("stored as I64",)),
        ("mxfp4", without("_scales"), ("lacks its scales",)),
        ("mxfp4", edit("_scales", put(255)), ("scale nan",)),
        ("mxfp4", edit("_scales", lambda a: a[:, :-1]), ("shape [160, 1]", "[160, 2]")),
        ("mxfp4", edit("_blocks", lambda a: a[:, :-1]), ("shape [160, 1, 16]",)),
        ("mxfp4", edit("_blocks", lambda a: a, "I8"), ("stored as I8", "U8")),
        ("mxfp4", edit("_scales", lambda a: a.astype(np.float32), "F32"), ("stored as F32",)),
        ("int4", without("_scale"), ("lacks its scales",)),
        ("int4", without("_shape"), ("lacks its shape",)),
        ("int4", edit("_shape", put(72)), ("[160, 72]", "[160, 64]")),
        ("int4", edit("_packed", lambda a: a[:, :-1]), ("shape [160, 7]", "[160, 8]")),
        ("int4", edit("_scale", lambda a: a[:-1]), ("shape [159, 2]",)),
        ("int4 zeros", edit("_zero_point", lambda a: a[:-1]), ("shape [19, 2]", "[20, 2]")),
        (
            "int4",
            edit("_scale", lambda a: np.full((160, 2), np.nan, np.float32), "F32"),
            ("scale nan",),
        ),
        ("int4", edit("_scale", lambda a: a.astype(np.int64), "I64"), ("stored as I64",)),
        ("int4", edit("_scale", lambda a: a[:, :1]), ("shape [160, 1]", "[160, 2]")),
        ("int4", edit("_packed", lambda a: a.astype(np.int64), "I64"), ("stored as I64", "I32")),
        ("int4", edit("_shape", lambda a: a[:1]), ("shape [1]", "[2]")),
        ("int4", edit("_shape", put(-1)), ("[160, -1]",)),
        ("int4 zeros", edit("_zero_point", whole_point(8), "I8"), ("zero point 8", "-8 to 7")),
        ("int4 zeros", edit("_zero_point", whole_point(-9), "I8"), ("zero point -9",)),
        ("int4 zeros", edit("_zero_point", lambda a: a.astype(np.int64), "I64"), ("I64", "I32")),
        ("int4 order", edit("_g_idx", put(2)), ("names group 2", "there are 2")),
        ("int4 order", edit("_g_idx", lambda a: a * 0), ("puts 64 inputs into group 0", "have 32")),
        ("int4 order", edit("_g_idx", lambda a: a[:-1]), ("shape [63]", "[64]")),
        ("int4 order", edit("_g_idx", lambda a: a.astype(np.float32), "F32"), ("stored as F32",)),
        ("awq", without("qzeros"), ("lacks its zero points",)),
        ("awq", without("scales"), ("lacks its scales",)),
        ("awq", edit("qzeros", lambda a: a[:-1]), ("shape [1, 20]", "[2, 20]")),
        ("awq", edit("scales", put(np.inf)), ("scale inf",)),
        ("awq", edit("scales", put(-np.inf)), ("scale -inf",)),
        ("awq", edit("scales", lambda a: a[:, :-1]), ("shape [2, 159]", "[2, 160]")),
        ("awq", edit("qweight", lambda a: a.astype(np.int64), "I64"), ("stored as I64", "I32")),
        ("awq", edit("qzeros", lambda a: a.astype(np.int64), "I64"), ("stored as I64", "I32")),
        ("gptq", without("qzeros"), ("lacks its zero points",)),
        ("gptq", without("scales"), ("lacks its scales",)),
        ("gptq", edit("scales", put(np.nan)), ("scale nan",)),
        ("gptq", edit("scales", lambda a: a[:-1]), ("shape [1, 160]", "[2, 160]")),
        ("gptq", edit("qzeros", lambda a: a[:, :-1]), ("shape [2, 19]", "[2, 20]")),
        ("gptq", edit("g_idx", lambda a: a[:-1]), ("shape [63]", "[64]")),
        ("gptq", edit("g_idx", lambda a: a.astype(np.float32), "F32"), ("stored as F32",)),
        ("gptq order", edit("g_idx", lambda a: a * 0), ("puts 64 inputs into group 0", "have 32")),
        ("gptq", edit("qweight", lambda a: a[:-1]), ("shape [7, 160]", "[8, 160]")),
        ("gptq", edit("g_idx", put(-1)), ("names group -1",)),
        ("gptq", edit("g_idx", put(2)), ("names group 2",)),
        ("gptq order", without("g_idx"), ("lacks its groups",)),
    ],
)
def test_damage_is_named(tmp_path: Path, form: str, change: Any, parts: tuple[str, ...]) -> None:
    message = broken(tmp_path, form, change)
    for part in parts:
        assert part in message, message


COMPRESSED = FORMATS["int4"].config


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ("bitsandbytes", "AWQ or GPTQ")),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, ("modelopt", "original model")),
        ({"bits": 4}, ("unknown method",)),
        ({"quant_method": 3}, ("unknown method",)),
        ("gptq", ("quantization_config is 'gptq'", "object")),
        ({"quant_method": "gptq", "bits": 3, "group_size": 32}, ("bits", "is 3", "2 or 4 or 8")),
        ({"quant_method": "gptq", "bits": True}, ("bits", "is True")),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, ("group_size", "is 0")),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, ("marlin", "gptq_v2")),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, ("version", "gemv", "gemm")),
        ({"quant_method": "awq", "bits": 8}, ("bits", "is 8")),
        ({"quant_method": "fp8", "fmt": "e5m2"}, ("fmt", "e5m2")),
        ({"quant_method": "fp8", "weight_block_size": [128]}, ("block size", "two")),
        ({**COMPRESSED, "format": "nvfp4-pack-quantized"}, ("nvfp4", "not read")),
        ({**COMPRESSED, "config_groups": {}}, ("config_groups",)),
        ({**COMPRESSED, "config_groups": {"a": {"weights": {"num_bits": 3}}}}, ("int of 3 bits",)),
        ({**COMPRESSED, "sparsity_config": {"format": "sparse-24-bitmask"}}, ("sparse",)),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, config: Any, parts: tuple[str, ...]) -> None:
    message = broken(tmp_path, "gptq", lambda tensors: None, config)
    for part in parts:
        assert part in message, message


def test_zero_points_that_the_config_promises_are_missed(tmp_path: Path) -> None:
    weights = {"type": "int", "num_bits": 4, "group_size": 32, "symmetric": False}
    config = {**COMPRESSED, "config_groups": {"group_0": {"weights": weights}}}
    message = broken(tmp_path, "int4 zeros", without("_zero_point"), config)
    assert "gate_proj.weight_packed" in message and "lacks its zero points" in message


@pytest.mark.parametrize(("form", "suffix"), [("gptq", "scales"), ("int4", "_scale")])
def test_scales_of_integers_may_be_negative(tmp_path: Path, form: str, suffix: str) -> None:
    tensors, values = dict(encoded(form)[0]), encoded(form)[1]
    for name, (dtype, array) in encoded(form)[0].items():
        if name.endswith(suffix):
            # BF16 comes as bits.
            turned = array ^ np.uint16(0x8000) if array.dtype == np.uint16 else -array
            tensors[name] = dtype, turned
    config = {**CONFIG, "quantization_config": FORMATS[form].config}
    with Folder.open(write_model(tmp_path / "m", config, tensors)) as folder:
        np.testing.assert_array_equal(whole(folder, GATE), -values[GATE_STORED])


def test_a_format_without_its_config(tmp_path: Path) -> None:
    """What tensors tell by themselves is read, and the rest is asked for."""
    for name in ("fp8 bf16 scales", "mxfp4", "int4"):
        tensors, values = encoded(name)
        with Folder.open(write_model(tmp_path / name, CONFIG, tensors)) as folder:
            np.testing.assert_array_equal(whole(folder, GATE), values[GATE_STORED])
    message = broken(tmp_path, "gptq", lambda tensors: None, {})
    assert "GPTQ or AWQ" in message and "'quantization_config'" in message


def test_a_weight_beyond_float32_is_refused_with_its_name(tmp_path: Path) -> None:
    form, tensors = FORMATS["fp8 blocks"], dict(encoded("fp8 blocks")[0])
    edit("_inv", lambda scales: scales + np.float32(3e38))(tensors)
    config = {**CONFIG, "quantization_config": form.config}
    with Folder.open(write_model(tmp_path / "m", config, tensors)) as folder:
        assert np.isinf(whole(folder, GATE)).any()
        with pytest.raises(CheckpointError, match="gate_proj"):
            NativeNodes(folder.spec, folder, weight_format="q8")
