"""Synthetic checkpoints: they open, they are reproducible, their numbers are sane."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError, widen
from bandweave.models.registry import build_graph
from bandweave.ranges import Range
from bandweave.synth import model as synth
from bandweave.synth.model import round_to_bf16, synthesise
from bandweave.synth.shapes import find_shape, shape_names
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.end_tokens import end_token_ids
from bandweave.text.tokenizer import Tokenizer


def digest(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}


# Parameters in millions, as the makers give them; tied embeddings counted once.
@pytest.mark.parametrize(
    ("name", "millions"),
    [("tinyllama-1.1b", 1100.0), ("smollm2-135m", 134.5), ("qwen3-0.6b", 596.0),
     ("qwen3-1.7b", 1720.6), ("qwen3-4b", 4022.5), ("qwen3-8b", 8190.7),
     ("llama-3.2-1b", 1235.8), ("llama-3.1-8b", 8030.3), ("mistral-7b", 7248.0),
     ("tiny", 0.48)],
)  # fmt: skip
def test_known_shapes(name: str, millions: float) -> None:
    shape = find_shape(name)
    assert shape.name == name
    weights = build_graph(shape.spec()).weights()
    found = sum(math.prod(weight.shape) for weight in weights) / 1e6
    assert found == pytest.approx(millions, rel=0.002, abs=0.01)


def test_shapes_all_have_specs() -> None:
    assert len(shape_names()) >= 20  # counted in test_known_models.py
    for name in shape_names():
        find_shape(name).spec()


def test_changed_shapes() -> None:
    shape = find_shape("llama-3.1-8b", layers=2, hidden=256, heads=4, kv_heads=2, vocab=300,
                       intermediate=100, context=128, head_dim=32)  # fmt: skip
    spec = shape.spec()
    assert (spec.num_layers, spec.hidden_size, spec.num_heads, spec.num_kv_heads) == (2, 256, 4, 2)
    assert (spec.vocab_size, spec.intermediate_size, spec.context_length) == (300, 100, 128)
    assert spec.head_dim == 32
    assert find_shape("tiny", hidden=64).spec().head_dim == 16  # follows hidden / heads
    assert find_shape("qwen3-0.6b", hidden=64).spec().head_dim == 128


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("qwen3-0.6", {}, ("qwen3-0.6", "did you mean qwen3-0.6b?", "tinyllama-1.1b")),
        ("zzz", {}, ("known are", "tiny")),
        ("tiny", {"layers": 0}, ("layers is 0",)),
        ("tiny", {"hidden": 1.5}, ("hidden is 1.5",)),
        ("tiny", {"heads": 3}, ("heads 3", "multiple")),
        ("tiny", {"kv_heads": 3}, ("kv_heads 3", "evenly")),
        ("tiny", {"head_dim": 7}, ("head_dim 7", "rotated")),
    ],
)
def test_shapes_that_are_none(name: str, changes: dict, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        find_shape(name, **changes)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_opens_and_reads(tmp_path: Path, dtype: str) -> None:
    steps: list[tuple[int, int]] = []
    path = synthesise(find_shape("tiny"), tmp_path / "m", 7, dtype,
                      lambda done, total: steps.append((done, total)))  # fmt: skip
    with Folder.open(path) as folder:
        assert folder.spec == find_shape("tiny").spec()
        assert end_token_ids(folder.path) == (257,)
        assert {folder.dtype(name) for name in folder.names()} == {dtype}
        assert steps[-1] == (folder.stored_bytes, folder.stored_bytes)
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        for name in folder.names():
            shape = folder.shape(name)
            values = widen(folder.read(name, Range(start=0, stop=shape[0])))
            assert np.isfinite(values).all()
            if len(shape) == 1:
                assert values.mean() == pytest.approx(1, abs=0.01)
                assert values.std() == pytest.approx(0.02, rel=0.3)
                continue
            expected = 1.0 if name == "embed_tokens" else 1 / math.sqrt(shape[1])
            if name.endswith(("o_proj", "down_proj")):
                expected /= 2  # 1 / sqrt(2 * layers)
            assert values.std() == pytest.approx(expected, rel=0.03)
            assert abs(values.mean()) < 5 * expected / math.sqrt(values.size)
    if dtype != "bf16":  # numpy has none
        assert safetensors.numpy.load_file(path / "model.safetensors")["lm_head.weight"].any()


def test_same_seed_same_bytes_in_any_shards(tmp_path: Path) -> None:
    shape = find_shape("tiny", vocab=300)
    first = digest(synthesise(shape, tmp_path / "a", 1))
    assert first == digest(synthesise(shape, tmp_path / "b", 1))
    other = digest(synthesise(shape, tmp_path / "c", 2))
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}
    # The bytes themselves, so that a change of the generator is noticed.
    assert first["model.safetensors"][:16] == EXPECTED_DIGEST
    shards = synthesise(shape, tmp_path / "d", 1, shard_bytes=100_000)
    files = sorted(shards.glob("*.safetensors"))
    assert len(files) > 3
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    with Folder.open(tmp_path / "a") as whole, Folder.open(shards) as parts:
        assert whole.fingerprint() != parts.fingerprint()
        for name in whole.names():
            rows = Range(start=0, stop=whole.shape(name)[0])
            np.testing.assert_array_equal(whole.read(name, rows), parts.read(name, rows))


EXPECTED_DIGEST = "73dfd20bb537c123"


def test_tensors_larger_than_a_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = find_shape("tiny", vocab=300)
    synthesise(shape, tmp_path / "a", 1)
    monkeypatch.setattr(synth, "_PANEL_WEIGHTS", 1 << 10)
    synthesise(shape, tmp_path / "b", 1)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_text_prompts_and_chats_work(tmp_path: Path) -> None:
    path = synthesise(find_shape("tiny"), tmp_path / "m")
    with Folder.open(path) as folder:
        tokenizer = Tokenizer.from_folder(path, vocab_size=folder.spec.vocab_size)
    assert tokenizer.size == 512
    ids = tokenizer.encode("Grüße, 世界! 🎉")
    assert ids == [256, *"Grüße, 世界! 🎉".encode()]
    assert tokenizer.decode(ids) == "Grüße, 世界! 🎉"
    assert len({tokenizer.decode([token]) for token in range(260, 512)}) == 252
    assert tokenizer.decode([300, 301]).isascii()
    assert tokenizer.eos_token_ids == (257,)
    text = ChatTemplate.from_folder(path).render([{"role": "user", "content": "Hi"}])
    assert tokenizer.encode(text, special_tokens=False) == [256, 258, *b"Hi", 257, 259]


def test_directories_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = find_shape("tiny")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "keep").write_text("me")
    with pytest.raises(CheckpointError, match="not empty"):
        synthesise(shape, tmp_path / "full")
    assert digest(tmp_path / "full").keys() == {"keep"}
    with pytest.raises(CheckpointError, match="is a file"):
        synthesise(shape, tmp_path / "full" / "keep")
    with pytest.raises(CheckpointError, match="cannot be written"):
        synthesise(shape, tmp_path / "full" / "keep" / "below")
    monkeypatch.setattr(synth.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match="free space"):
        synthesise(shape, tmp_path / "new")


def test_an_unfinished_folder_is_not_a_model(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(find_shape("tiny"), tmp_path / "m", on_progress=stop)
    with pytest.raises(CheckpointError, match="config.json"):
        Folder.open(tmp_path / "m")


@pytest.mark.parametrize(
    ("changes", "arguments", "part"),
    [({}, {"dtype": "q4"}, "bf16, f16, f32"), ({}, {"seed": -1}, "seed is -1"),
     ({"vocab": 259}, {}, "259 tokens is too small")],
)  # fmt: skip
def test_bad_requests(tmp_path: Path, changes: dict, arguments: dict, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        synthesise(find_shape("tiny", **changes), tmp_path / "m", **arguments)
    assert not (tmp_path / "m").exists()


def test_config_is_complete(tmp_path: Path) -> None:
    shape = find_shape("llama-3.2-1b", layers=1, hidden=64, heads=2, kv_heads=1, head_dim=32,
                       intermediate=64, vocab=300)  # fmt: skip
    config = json.loads((synthesise(shape, tmp_path / "m") / "config.json").read_text())
    assert config["rope_scaling"]["factor"] == 32.0
    assert config["tie_word_embeddings"] is True
    assert config["torch_dtype"] == "bfloat16"
    with Folder.open(tmp_path / "m") as folder:
        assert "lm_head" not in folder.names()
        rope = folder.spec.heads.rope
        assert rope is not None and rope.scaling is not None


def test_round_to_bf16() -> None:
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0xBF807FFF], np.uint32)
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xBF80]
    assert round_to_bf16(bits.view(np.float32)).tolist() == expected
