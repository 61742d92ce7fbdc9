"""Folders in Hugging Face layout: what is read from them, and what is refused and why."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandweave.checkpoints import resolve
from bandweave.checkpoints.folder import Fingerprint, Folder
from bandweave.checkpoints.resolve import resolve_model
from bandweave.checkpoints.safetensors import SafetensorsFile, encode_header
from bandweave.checkpoints.source import CheckpointError, widen
from bandweave.models.registry import build_graph, hugging_face_name, spec_from_config
from bandweave.ranges import Range

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 3,
}


def random_tensors(config: dict, dtype: type = np.float32) -> dict[str, np.ndarray]:
    spec = spec_from_config(config)
    generator = np.random.default_rng(0)
    shapes = {hugging_face_name(spec.family, w.name): w.shape for w in build_graph(spec).weights()}
    return {name: generator.standard_normal(s).astype(dtype) for name, s in shapes.items()}


def write_folder(path: Path, config: dict, tensors: dict, shards: int = 1) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if shards == 1:
        safetensors.numpy.save_file(tensors, path / "model.safetensors")
        return path
    weight_map = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {key: tensors[key] for key in list(tensors)[shard::shards]}
        safetensors.numpy.save_file(part, path / name)
        weight_map.update(dict.fromkeys(part, name))
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", CONFIG, random_tensors(CONFIG))


def edit_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def edit_header(path: Path, edit: Callable[[dict], None]) -> None:
    """Changes a file's header and leaves its data alone."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def refused(path: Path, *parts: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        Folder.open(path)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "\n" not in message
    return message


# --- what is read ---


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reads_any_rectangle(tmp_path: Path, shards: int, dtype: type) -> None:
    tensors = random_tensors(CONFIG, dtype)
    with Folder.open(write_folder(tmp_path / "m", CONFIG, tensors, shards)) as folder:
        spec = folder.spec
        assert set(folder.names()) == {w.name for w in build_graph(spec).weights()}
        for name in folder.names():
            expected = tensors[hugging_face_name("llama", name)]
            assert folder.shape(name) == expected.shape
            assert folder.dtype(name) == ("f32" if dtype is np.float32 else "f16")
            rows = Range(start=0, stop=expected.shape[0])
            np.testing.assert_array_equal(folder.read(name, rows), expected)
        full = tensors["model.layers.1.mlp.down_proj.weight"]
        for r0, r1, c0, c1 in [(0, 16, 0, 24), (3, 9, 5, 6), (0, 16, 8, 24), (4, 4, 0, 24),
                               (2, 3, 7, 7), (15, 16, 23, 24)]:  # fmt: skip
            part = folder.read(
                "layers.1.down_proj", Range(start=r0, stop=r1), Range(start=c0, stop=c1)
            )
            assert part.flags.c_contiguous and part.shape == (r1 - r0, c1 - c0)
            np.testing.assert_array_equal(part, full[r0:r1, c0:c1])
        assert folder.stored_bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_reads_bf16_bits(tmp_path: Path) -> None:
    spec = spec_from_config(CONFIG)
    weights = build_graph(spec).weights()
    entries = [(hugging_face_name("llama", w.name), "BF16", w.shape) for w in weights]
    generator = np.random.default_rng(1)
    arrays = [generator.integers(0, 1 << 15, w.shape, dtype=np.uint16) for w in weights]
    path = tmp_path / "m"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    data = b"".join(array.tobytes() for array in arrays)
    (path / "model.safetensors").write_bytes(encode_header(entries) + data)
    with Folder.open(path) as folder:
        for weight, array in zip(weights, arrays, strict=True):
            assert folder.dtype(weight.name) == "bf16"
            read = folder.read(weight.name, Range(start=0, stop=weight.shape[0]))
            assert read.dtype == np.uint16
            np.testing.assert_array_equal(read, array)
            np.testing.assert_array_equal(
                widen(read).view(np.uint32), array.astype(np.uint32) << 16
            )


def test_reads_only_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = os.preadv

    def counting(descriptor: int, buffers: list, offset: int) -> int:
        asked.append(sum(len(buffer) for buffer in buffers))
        return real(descriptor, buffers, offset)

    config = {**CONFIG, "intermediate_size": 1536}
    tensors = random_tensors(config)
    full = tensors["model.layers.0.mlp.down_proj.weight"]
    with Folder.open(write_folder(tmp_path / "m", config, tensors)) as opened:
        monkeypatch.setattr(os, "preadv", counting)
        for start, stop, reads in [
            (8, 20, [12 * 4] * 5),  # gaps of more than a page
            (0, 1536, [5 * 1536 * 4]),
            (600, 1500, [(4 * 1536 + 900) * 4]),  # shorter ones
        ]:
            rows, columns = Range(start=2, stop=7), Range(start=start, stop=stop)
            read = opened.read("layers.0.down_proj", rows, columns)
            assert asked == reads
            np.testing.assert_array_equal(read, full[2:7, start:stop])
            asked.clear()


def test_short_reads_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv

    def short(descriptor: int, buffers: list, offset: int) -> int:
        return real(descriptor, [buffers[0][:7]], offset)

    monkeypatch.setattr(os, "preadv", short)
    with Folder.open(folder) as opened:
        read = opened.read("embed_tokens", Range(start=1, stop=40))
    expected = random_tensors(CONFIG)["model.embed_tokens.weight"][1:]
    np.testing.assert_array_equal(read, expected)


def test_threads_read_at_once(folder: Path) -> None:
    expected = random_tensors(CONFIG)["model.layers.0.mlp.gate_proj.weight"]
    with Folder.open(folder) as opened, ThreadPoolExecutor(4) as pool:
        jobs = [(row, column) for row in range(24) for column in range(16)]
        parts = pool.map(
            lambda job: opened.read(
                "layers.0.gate_proj",
                Range(start=job[0], stop=24),
                Range(start=job[1], stop=16),
            ),
            jobs,
        )
        for (row, column), part in zip(jobs, parts, strict=True):
            np.testing.assert_array_equal(part, expected[row:, column:])


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [("norm", (0, 17), None), ("norm", (0, 4), (0, 1)), ("lm_head", (-1, 3), None),
     ("lm_head", (5, 3), None), ("lm_head", (0, 3), (0, 17)), ("lm_head", (0, 41), None)],
)  # fmt: skip
def test_ranges_outside_are_refused(folder: Path, name: str, rows: tuple, columns: tuple) -> None:
    with Folder.open(folder) as opened, pytest.raises(ValueError, match=name):
        opened.read(
            name,
            Range(start=rows[0], stop=rows[1]),
            None if columns is None else Range(start=columns[0], stop=columns[1]),
        )


def test_closed_folder(folder: Path) -> None:
    opened = Folder.open(folder)
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match="closed"):
        opened.read("norm", Range(start=0, stop=1))


def test_no_descriptor_is_left_open(folder: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    with Folder.open(folder):
        pass
    edit_header(folder / "model.safetensors", lambda h: h.pop("lm_head.weight"))
    refused(folder)
    assert len(os.listdir("/dev/fd")) == before


def test_fingerprint_tells_layouts_apart(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    paths = [write_folder(tmp_path / name, CONFIG, tensors) for name in "ab"]
    paths.append(write_folder(tmp_path / "c", CONFIG, tensors, shards=2))
    paths.append(write_folder(tmp_path / "d", CONFIG, random_tensors(CONFIG, np.float16)))
    paths.append(write_folder(tmp_path / "e", {**CONFIG, "rope_theta": 5e5}, tensors))
    prints = []
    for path in paths:
        with Folder.open(path) as folder:
            prints.append(folder.fingerprint())
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
    assert len(prints[0].sample) == 64
    assert all(one.fits(Fingerprint(config=one.config)) for one in prints)
    assert not prints[0].fits(prints[2]) and not prints[0].fits(prints[4])


def test_every_tensor_of_every_family_has_a_name() -> None:
    for architecture, biases in (
        ("LlamaForCausalLM", ("attention_bias", "mlp_bias")),
        ("MistralForCausalLM", ()),
        ("Qwen3ForCausalLM", ("attention_bias",)),
    ):
        flags = dict.fromkeys(biases, True)
        spec = spec_from_config({**CONFIG, **flags, "architectures": [architecture]})
        names = [hugging_face_name(spec.family, w.name) for w in build_graph(spec).weights()]
        assert len(set(names)) == len(names)
        assert not any("{" in name for name in names)
    assert hugging_face_name("llama", "layers.11.q_proj.bias") == (
        "model.layers.11.self_attn.q_proj.bias"
    )
    for family, name in [("llama", "layers.0.q_norm"), ("gpt", "norm"), ("llama", "layers.x.norm"),
                         ("llama", "layers.0"), ("llama", "")]:  # fmt: skip
        with pytest.raises(ValueError, match="no Hugging Face name"):
            hugging_face_name(family, name)


# --- folders that are refused ---


def test_wrong_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file")
    refused(tmp_path, "has no config.json")
    (tmp_path / "model.gguf").write_text("")
    refused(tmp_path, "has no config.json", "name that file in the place of its folder")
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "LoRA", "merge")


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("pytorch_model.bin", ("pytorch_model.bin", "can run code", "safetensors")),
        ("model.Q4_0.gguf", ("it has model.Q4_0.gguf: name that file",)),
        ("adapter_model.safetensors", ("adapter_model.safetensors", "not a model's")),
        ("README.md", ("neither model.safetensors nor", "download")),
    ],
)
def test_folder_without_safetensors(folder: Path, file: str, parts: tuple[str, ...]) -> None:
    (folder / "model.safetensors").rename(folder / file)
    refused(folder, *parts)


def test_an_adapter_beside_a_config(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "LoRA", "merge")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe{}", b"[" * 100_000, b""])
def test_config_that_is_no_json_object(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, "config.json")


def test_config_that_is_not_supported(folder: Path) -> None:
    edit_json(folder / "config.json", architectures=["MambaForCausalLM"])
    refused(folder, "MambaForCausalLM", "supported are Llama", "Qwen3", "ForCausalLM")
    edit_json(folder / "config.json", architectures=["LlamaForCausalLM"], num_attention_heads=0)
    refused(folder, "num_attention_heads")
    edit_json(folder / "config.json", num_attention_heads=4)
    edit_json(folder / "config.json", quantization_config={"quant_method": "hqq"})
    refused(folder, "quantised by hqq", "original")


def test_tensor_of_another_shape(folder: Path) -> None:
    edit_json(folder / "config.json", intermediate_size=32)
    refused(folder, "model.layers.0.mlp.gate_proj.weight", "[24, 16]", "[32, 16]")


def test_tensors_missing(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=3)
    refused(folder, "lacks 9 of the 30 tensors", "model.layers.2.input_layernorm.weight")


def test_tensor_in_two_files(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "m", CONFIG, random_tensors(CONFIG), shards=2)
    first, second = sorted(path.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    index = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
    index = {tensor: file for tensor, file in index.items() if file == first.name}
    index["model.norm.weight"] = index.pop(next(iter(index)))
    known = next(iter(index))
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {known: first.name, list(index)[1]: second.name}})
    )
    refused(path, first.name, second.name, "remove")


@pytest.mark.parametrize(
    "name",
    ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b.safetensors", "..", "",
     "C:x.safetensors", "x.bin", "x\0.safetensors", 5, None],
)  # fmt: skip
def test_index_that_points_elsewhere(tmp_path: Path, name: object) -> None:
    path = write_folder(tmp_path / "m", CONFIG, random_tensors(CONFIG), shards=2)
    index = path / "model.safetensors.index.json"
    edit_json(index, weight_map={"model.norm.weight": name})
    refused(path, "index.json", "plain name")


def test_index_and_files_differ(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "m", CONFIG, random_tensors(CONFIG), shards=3)
    index = path / "model.safetensors.index.json"
    files = sorted(path.glob("*.safetensors"))
    content = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map={**content, "model.extra": files[1].name})
    refused(path, "model.extra", files[1].name)
    edit_json(index, weight_map=content)
    files[1].unlink()
    refused(path, "lacks 1 of its 3 weight files", files[1].name)
    edit_json(index, weight_map={})
    refused(path, "weight_map")


# --- files that are refused ---


def test_truncated_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for size in [*range(0, 30), len(content) // 3, len(content) - 1]:
        path.write_bytes(content[:size])
        message = refused(folder, "model.safetensors")
        if size > 8:
            assert f"found {size}" in message
    path.write_bytes(content[:-1])
    refused(folder, f"expected {len(content)} bytes, found {len(content) - 1}", "download")
    path.write_bytes(content + b"xyz")
    refused(folder, "3 bytes belong to no tensor")


def test_file_cut_while_it_is_read(folder: Path) -> None:
    with Folder.open(folder) as opened:
        os.truncate(folder / "model.safetensors", 5000)
        with pytest.raises(CheckpointError, match="ends at byte 5000"):
            for name in opened.names():
                opened.read(name, Range(start=0, stop=opened.shape(name)[0]))


def test_files_that_are_something_else(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    refused(folder, "git lfs pull")
    path.write_bytes(b"\x80\x02}q\x00X" * 100)
    refused(folder, "no safetensors file")
    path.write_bytes(struct.pack("<Q", 200_000_000) + b"{}")
    refused(folder, "200000000", "100000000")
    path.write_bytes(struct.pack("<Q", 50_000) + b"{}")
    refused(folder, "expected at least 50008 bytes", "found 10")
    for header in (b"[]", b"{", b"\xff\xff", b"[" * 50_000, b'{"a": 1, "a": 2}', b"3"):
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        refused(folder, "header")


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("dtype", "F33", "unknown dtype 'F33'"),
        ("dtype", None, "unknown dtype"),
        ("dtype", ["F32"], "unknown dtype"),
        ("dtype", "F16", "needs 32 bytes"),
        ("shape", [17], "needs 68 bytes"),
        ("shape", [-16], "shape"),
        ("shape", [16.0], "shape"),
        ("shape", [True], "shape"),
        ("shape", "16", "shape"),
        ("shape", [1] * 17, "shape"),
        ("shape", [1 << 63], "shape"),
        ("shape", [1 << 60, 1 << 60], "needs"),
        ("data_offsets", [0], "offsets"),
        ("data_offsets", [-64, 0], "offsets"),
        ("data_offsets", [64, 0], "hold -64"),
        ("data_offsets", [0, 1e9], "offsets"),
        ("data_offsets", {}, "offsets"),
    ],
)
def test_header_that_lies(folder: Path, field: str, value: object, part: str) -> None:
    path = folder / "model.safetensors"
    edit_header(path, lambda header: header["model.norm.weight"].update({field: value}))
    refused(folder, "model.norm.weight", part)


def test_overlaps_holes_and_ends(folder: Path) -> None:
    path = folder / "model.safetensors"
    original = path.read_bytes()

    def shift(header: dict, amount: int) -> None:
        entry = header["model.norm.weight"]
        entry["data_offsets"] = [offset + amount for offset in entry["data_offsets"]]

    edit_header(path, lambda header: shift(header, -4))
    refused(folder, "starts at byte", "inside of")
    path.write_bytes(original)
    edit_header(path, lambda header: shift(header, 1 << 40))
    refused(folder, "belong to no tensor")
    path.write_bytes(original)
    edit_header(path, lambda header: header.update({"model.norm.weight": [1]}))
    refused(folder, "model.norm.weight", "not an object")
    path.write_bytes(original)
    edit_header(path, lambda header: header.pop("model.norm.weight"))
    refused(folder, "belong to no tensor")


@given(place=st.integers(0, 100_000), byte=st.integers(0, 255), cut=st.integers(0, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damaged_header_is_refused_or_read(
    folder: Path, place: int, byte: int, cut: int
) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    place %= 8 + length
    content[place : place + cut] = bytes([byte])
    path = folder / "damaged"
    path.write_bytes(content)
    try:
        SafetensorsFile.open(path).close()
    except CheckpointError as error:
        assert "damaged" in str(error)  # the file's name


def test_own_header_is_read_by_the_format_s_library(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = encode_header([("a", "F32", (2, 3)), ("b", "F16", (4,)), ("none", "F32", (0, 3))])
    assert len(header) % 8 == 0
    path.write_bytes(header + bytes(range(32)))
    arrays = safetensors.numpy.load_file(path)
    assert arrays["a"].tobytes() == bytes(range(24))
    assert arrays["b"].tobytes() == bytes(range(24, 32))
    file = SafetensorsFile.open(path)
    assert file.tensors["b"].stop == path.stat().st_size
    assert file.tensors["none"].start == file.tensors["none"].stop
    file.close()


# --- names of models ---


def test_resolve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert resolve_model("model") == Path("model")
    assert resolve_model(str(folder)) == folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve_model("~/model") == folder
    Path("real.GGUF").write_text("")
    assert resolve_model("real.GGUF") == Path("real.GGUF")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("modle", ("does not exist", "did you mean model?")),
        ("./model/deeper", ("does not exist",)),
        ("no-such-thing", ("does not exist", "demo")),
        ("org/Some-Model-1.1B", ("does not exist", "hub", "org/name")),
        ("weights.gguf", ("does not exist",)),
        ("model/model.safetensors", ("is a file", "folder")),
        ("", ("names no model",)),
        ("a\0b", ("names no model",)),
        ("x" * 5000, ("cannot be looked up",)),
    ],
)
def test_resolve_refuses(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, parts: tuple[str, ...]
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(CheckpointError) as caught:
        resolve_model(text)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_resolve_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    package = tmp_path / "bandweave"
    monkeypatch.setattr(resolve, "__file__", str(package / "checkpoints" / "resolve.py"))
    with pytest.raises(CheckpointError, match="lacks the model demo"):
        resolve_model("demo")
    (package / "assets").mkdir(parents=True)
    folder.rename(package / "assets" / "demo")
    assert resolve_model("demo") == package / "assets" / "demo"
