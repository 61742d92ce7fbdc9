"""Stored formats: what quantised tensors stand for, read by rectangles, alone and in the engine."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.quantised import input_major, nibbles, scaled, scales
from bandweave.checkpoints.quantised import mxfp4 as mxfp4_format
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.safetensors import SafetensorsFile
from bandweave.content.verification import verify_checkpoint
from bandweave.executors.executor import Step
from bandweave.models.registry import hugging_face_name
from bandweave.ranges import Range
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.stored_formats import fp8, mxfp4, write_tensors
from tests.helpers.stored_models import CONFIG, FORMATS, encoded, write_model

GATE = "layers.0.gate_proj"
GATE_STORED = "model.layers.0.mlp.gate_proj.weight"


@pytest.fixture(scope="module", params=sorted(FORMATS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model in a format, and the same with its values as float32."""
    form = FORMATS[request.param]
    tensors, values = encoded(request.param)
    where = tmp_path_factory.mktemp("formats")
    config = {**CONFIG, "quantization_config": form.config}
    path = write_model(where / "stored", config, tensors)
    plain = write_model(where / "plain", CONFIG, {n: ("F32", v) for n, v in values.items()})
    return path, plain, values


def whole(folder: Folder, name: str) -> np.ndarray:
    return folder.read(name, Range(start=0, stop=folder.shape(name)[0]))


# --- values ---


def test_values_and_rectangles(model: Any) -> None:
    path, _, values = model
    rng = np.random.default_rng(1)
    with Folder.open(path) as folder:
        for name in folder.names():
            expected = values[_plain_name(name)]
            assert folder.shape(name) == expected.shape
            if len(expected.shape) == 1 or name in ("embed_tokens", "lm_head"):
                continue
            read = whole(folder, name)
            assert read.dtype == np.float32 and folder.dtype(name) == "f32"
            np.testing.assert_array_equal(read, expected)
            for _ in range(8):
                r, c = (sorted(rng.integers(0, size + 1, 2).tolist()) for size in expected.shape)
                part = folder.read(name, *(Range(start=a, stop=b) for a, b in (r, c)))
                assert part.flags.c_contiguous and part.shape == (r[1] - r[0], c[1] - c[0])
                np.testing.assert_array_equal(part, expected[r[0] : r[1], c[0] : c[1]])
            rows = rng.integers(0, expected.shape[0], 3).tolist()
            np.testing.assert_array_equal(folder.read_rows(name, rows), expected[rows])


def _plain_name(name: str) -> str:
    return hugging_face_name("llama", name)


def test_sizes_are_those_of_the_files(model: Any) -> None:
    path, plain, _ = model
    with Folder.open(path) as folder, Folder.open(plain) as other:
        data = sum(size for size in folder.files.values()) - _header_bytes(path)
        assert folder.stored_bytes == pytest.approx(data, rel=0.01)
        assert folder.stored_bytes < other.stored_bytes
        for name in folder.names():
            bits = folder.item_bits(name)
            assert folder.tensor_bytes(name) == round(math.prod(folder.shape(name)) * bits / 8)
        assert folder.read_bits(GATE) == 32


def _header_bytes(path: Path) -> int:
    return 8 + int.from_bytes((path / "model.safetensors").read_bytes()[:8], "little")


def test_content_is_that_of_the_values(model: Any) -> None:
    """So copies of one model can be compared, whoever reads which part of it."""
    path, plain, _ = model
    with Folder.open(path) as folder, Folder.open(plain) as other:
        own, theirs = (verify_checkpoint(one, lambda done, total: None) for one in (folder, other))
        sums, expected = own.content.tensors[GATE].sums, theirs.content.tensors[GATE].sums
        np.testing.assert_array_equal(sums, expected)
        assert folder.fingerprint() != other.fingerprint()


def test_the_key_of_a_file_tells_how_it_is_read(tmp_path: Path) -> None:
    form = FORMATS["gptq"]
    tensors, _ = encoded("gptq")
    for name, fields in (("one", form.config), ("two", {**form.config, "format": "gptq_v2"})):
        write_model(tmp_path / name, {**CONFIG, "quantization_config": fields}, tensors)
    (tmp_path / "two/model.safetensors").unlink()
    (tmp_path / "two/model.safetensors").hardlink_to(tmp_path / "one/model.safetensors")
    time.sleep(0.1)  # a file that was written just now is not believed to be known
    with Folder.open(tmp_path / "one") as one, Folder.open(tmp_path / "two") as two:
        assert one.file_key("norm") == two.file_key("norm") != ""
        assert one.file_key(GATE) != two.file_key(GATE)
        assert one.file_keys == two.file_keys
        assert one.is_in(GATE, two.file_keys) and not one.is_in(GATE, ())


@pytest.mark.parametrize("weight_format", ["f32", "q4"])
def test_the_engine_gives_the_same_logits(model: Any, weight_format: str) -> None:
    path, plain, _ = model
    step = Step(
        tokens=np.array([1, 7, 200, 33, 5, 9], np.int32),
        slots=np.zeros(6, np.int32),
        positions=np.arange(6, dtype=np.int32),
        wants_logits=np.ones(6, np.bool_),
        page_tables=np.array([[0]], np.int32),
    )
    with Folder.open(path) as folder, Folder.open(plain) as other:
        with NativeNodes(other.spec, other, weight_format=weight_format) as nodes:
            expected = nodes.run(step)
            assert np.isfinite(expected).all() and len(np.unique(expected)) > 1000
        for shares in ((1,), (1, 1)):
            with NativeNodes(
                folder.spec, folder, weight_format=weight_format, shares=shares
            ) as nodes:
                np.testing.assert_array_equal(nodes.run(step), expected)


# --- stacks, larger sizes ---


@pytest.mark.parametrize(
    ("find", "encode", "options"),
    [
        (scaled.find, fp8, {"block": (8, 16)}),
        (scaled.find, fp8, {"block": None}),
        (scaled.find, fp8, {"one": (3,)}),
        (scaled.find, fp8, {"one": (3, 1, 1), "dtype": "BF16"}),
        (mxfp4_format.find, mxfp4, {}),
    ],
)
def test_stacks_of_matrices(tmp_path: Path, find: Any, encode: Any, options: Any) -> None:
    """Each entry has blocks of its own."""
    one = encode(np.random.default_rng(4), "x", (3, 20, 96), **options)
    path = tmp_path / "x.safetensors"
    write_tensors(path, one.tensors)
    file = SafetensorsFile.open(path)
    found = {name: (file, entry) for name, entry in file.tensors.items()}
    matrix = find(found, "x", one.values.shape, Settings(block=(8, 16)))
    for entry, values in enumerate(one.values):
        got = matrix.read(range(1, 19, 2), Range(start=3, stop=90), entry)
        np.testing.assert_array_equal(got, values[1:19:2, 3:90])
    file.close()


@pytest.mark.parametrize("name", ["fp8 blocks", "mxfp4", "int4 zeros", "gptq order"])
def test_what_is_larger_than_a_piece(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matrices are widened in pieces; here of a few rows, or inputs."""
    for module in (input_major, nibbles, scaled, scales):
        monkeypatch.setattr(module, "PIECE", 300)
    form = FORMATS[name]
    tensors, values = encoded(name)
    fields = {**CONFIG, "quantization_config": form.config}
    with Folder.open(write_model(tmp_path / "m", fields, tensors)) as folder:
        np.testing.assert_array_equal(whole(folder, GATE), values[GATE_STORED])
        part = folder.read(GATE, Range(start=9, stop=150), Range(start=5, stop=58))
        np.testing.assert_array_equal(part, values[GATE_STORED][9:150, 5:58])
