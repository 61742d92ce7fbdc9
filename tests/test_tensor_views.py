"""Views: tensors that are rows of fused ones, entries of stacks, or stored transposed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandweave.checkpoints.find import Finder
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.safetensors import SafetensorsFile
from bandweave.checkpoints.source import CheckpointError, widen
from bandweave.models import llama
from bandweave.models.attention_spec import HeadsSpec
from bandweave.models.graph_op import Split, WeightSpec
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.models.spec import LayerSpec, ModelSpec
from bandweave.models.tensor_names import (
    DECODER,
    Names,
    Slice,
    either,
    experts,
    fused,
    named,
    pattern_of,
)
from bandweave.ranges import Range
from tests.helpers.stored_formats import Tensor, awq, bf16, fp8, gptq, mxfp4, packed, write_tensors
from tests.test_checkpoints import CONFIG, random_tensors, refused, write_folder

HIDDEN, WIDTH, EXPERTS = 64, 96, 3
SPEC = ModelSpec(
    family="llama",
    hidden_size=HIDDEN,
    vocab_size=32,
    context_length=64,
    norm_eps=1e-5,
    layers=(
        LayerSpec(
            attention=HeadsSpec(num_heads=4, num_kv_heads=2, head_dim=8),
            mlp=MixtureSpec(num_experts=EXPERTS, top_k=2, intermediate_size=WIDTH),
        ),
    ),
)
GATE, UP, DOWN = (f"layers.{{}}.experts.{{}}.{name}_proj" for name in ("gate", "up", "down"))
STACK = "model.layers.0.mlp.experts.gate_up_proj"
ROW_BY_ROW = lambda layer: layer.mlp.intermediate_size  # noqa: E731
INTERLEAVED = either(
    {
        **fused("model.layers.{}.mlp.experts.gate_up_proj", GATE, UP, groups=ROW_BY_ROW,
                entry=True),
        **fused("model.layers.{}.mlp.experts.gate_up_proj_bias", f"{GATE}.bias", f"{UP}.bias",
                groups=ROW_BY_ROW, entry=True),
    },
    fused("model.layers.{}.mlp.experts.gate_up_proj", GATE, UP, groups=ROW_BY_ROW, entry=True,
          transposed=True),
)  # fmt: skip


def weights() -> list[WeightSpec]:
    result = []
    for number in range(EXPERTS):
        for pattern in (GATE, UP):
            name = pattern.replace("{}", "0", 1).replace("{}", str(number))
            for suffix, shape in (("", (WIDTH, HIDDEN)), (".bias", (WIDTH,))):
                result.append(WeightSpec(name=name + suffix, shape=shape, split=Split.REPLICATED))
    return result


class Opened:
    """A file of tensors, found through a table."""

    def __init__(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        table: Names,
        settings: Settings = Settings(block=(40, 48)),  # noqa: B008  it is frozen
    ) -> None:
        write_tensors(path, tensors)
        self.file = SafetensorsFile.open(path)
        found = {name: (self.file, entry) for name, entry in self.file.tensors.items()}
        self.finder = Finder(found, SPEC, weights(), table, settings)

    def read(self, name: str, rows: slice, columns: slice = slice(0, 1)) -> np.ndarray:
        weight = next(one for one in weights() if one.name == name)
        view = self.finder.find(weight)
        assert view is not None and view.shape == weight.shape
        return widen(view.read(Range(start=rows.start, stop=rows.stop),
                               Range(start=columns.start, stop=columns.stop)))  # fmt: skip


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    before = llama.TENSOR_NAMES
    yield
    llama.TENSOR_NAMES = before


def rounded(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values that bf16 holds."""
    bits = rng.standard_normal(shape).astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def parts_of(values: np.ndarray, interleaved: bool) -> tuple[np.ndarray, np.ndarray]:
    """Gate and up rows of a stack."""
    if interleaved:
        return values[:, ::2], values[:, 1::2]
    return values[:, :WIDTH], values[:, WIDTH:]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("form", ["bf16", "transposed", "fp8", "mxfp4"])
def test_experts_of_a_stack(tmp_path: Path, form: str, interleaved: bool) -> None:
    rng = np.random.default_rng(2)
    shape = (EXPERTS, 2 * WIDTH, HIDDEN)
    if form in ("fp8", "mxfp4"):
        # Blocks of 40 rows: one holds the end of gate and the start of up.
        options: dict[str, Any] = {"block": (40, 48)} if form == "fp8" else {}
        one = (fp8 if form == "fp8" else mxfp4)(rng, STACK, shape, **options)
        tensors, values = one.tensors, one.values
    else:
        values = rounded(rng, shape)
        stored = values.transpose(0, 2, 1).copy() if form == "transposed" else values
        tensors = {STACK: ("BF16", bf16(stored))}
    names = INTERLEAVED if interleaved else experts()
    opened = Opened(tmp_path / "x.safetensors", tensors, names)
    for expert in range(EXPERTS):
        for name, expected in zip(("gate", "up"), parts_of(values, interleaved), strict=True):
            for rows in (slice(0, WIDTH), slice(5, 71), slice(8, 8), slice(95, 96)):
                for columns in (slice(0, HIDDEN), slice(3, 50), slice(63, 64)):
                    got = opened.read(f"layers.0.experts.{expert}.{name}_proj", rows, columns)
                    np.testing.assert_array_equal(got, expected[expert][rows, columns])
    opened.file.close()


def test_each_expert_on_its_own_comes_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tensors: dict[str, Tensor] = {STACK: ("F32", np.zeros((EXPERTS, 2 * WIDTH, HIDDEN), "f4"))}
    name = "model.layers.0.mlp.experts.1.up_proj.weight"
    one = packed(rng, name, (WIDTH, HIDDEN))
    opened = Opened(tmp_path / "x.safetensors", {**tensors, **one.tensors}, experts())
    got = opened.read("layers.0.experts.1.up_proj", slice(0, WIDTH), slice(1, 30))
    np.testing.assert_array_equal(got, one.values[:, 1:30])
    assert not opened.read("layers.0.experts.2.up_proj", slice(0, 4), slice(0, 8)).any()
    opened.file.close()


BOTH = "model.layers.{}.mlp.experts.{}.both.weight"


@pytest.mark.parametrize(
    ("encode", "settings"),
    [
        (gptq, Settings(method="gptq", bits=4, group_size=32, zero_less=1)),
        (awq, Settings(method="awq", bits=4, group_size=32)),
        (packed, Settings()),
        (fp8, Settings(block=(40, 48))),
    ],
)
@pytest.mark.parametrize("groups", [1, 12, WIDTH])
def test_quantised_fused_tensors(
    tmp_path: Path, encode: Any, settings: Settings, groups: int
) -> None:
    options = {"block": (40, 48)} if encode is fp8 else {}
    name = BOTH.replace("{}", "0", 1).replace("{}", "2")
    one = encode(np.random.default_rng(6), name, (2 * WIDTH, HIDDEN), **options)
    turns = one.values.reshape(groups, 2, WIDTH // groups, HIDDEN)
    opened = Opened(tmp_path / "x.safetensors", one.tensors, fused(BOTH, GATE, UP, groups=groups),
                    settings)  # fmt: skip
    for part, which in enumerate(("gate", "up")):
        expected = turns[:, part].reshape(WIDTH, HIDDEN)
        for rows, columns in ((slice(0, WIDTH), slice(0, HIDDEN)), (slice(13, 90), slice(9, 37))):
            got = opened.read(f"layers.0.experts.2.{which}_proj", rows, columns)
            np.testing.assert_array_equal(got, expected[rows, columns])
    opened.file.close()


def test_interleaved_biases(tmp_path: Path) -> None:
    values = rounded(np.random.default_rng(5), (EXPERTS, 2 * WIDTH))
    tensors: dict[str, Tensor] = {f"{STACK}_bias": ("BF16", bf16(values))}
    opened = Opened(tmp_path / "x.safetensors", tensors, INTERLEAVED)
    for expert in range(EXPERTS):
        for name, first in (("gate", 0), ("up", 1)):
            got = opened.read(f"layers.0.experts.{expert}.{name}_proj.bias", slice(7, WIDTH))
            np.testing.assert_array_equal(got[:, 0], values[expert, first::2][7:])
    opened.file.close()


def test_a_stack_of_another_size_is_refused(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {STACK: ("F32", np.zeros((EXPERTS + 1, 2 * WIDTH, HIDDEN), "f4"))}
    opened = Opened(tmp_path / "x.safetensors", tensors, experts())
    with pytest.raises(CheckpointError, match=r"\[4, 192, 64\].*\[3, 192, 64\]"):
        opened.finder.find(weights()[0])
    assert opened.finder.find(
        WeightSpec(name="layers.0.experts.0.down_proj", shape=(4, 4), split=Split.REPLICATED)
    ) is None  # fmt: skip
    opened.file.close()


# --- fused tensors of a whole model ---

FUSED: dict[str, Any] = {
    **DECODER,
    **fused("model.layers.{}.self_attn.qkv_proj.weight", "layers.{}.q_proj", "layers.{}.k_proj",
            "layers.{}.v_proj"),
    # In turns of 4 rows each, as heads may be.
    **fused("model.layers.{}.mlp.gate_up_proj.weight", "layers.{}.gate_proj", "layers.{}.up_proj",
            groups=6),
    "layers.{}.o_proj": Slice(tensor="model.layers.{}.self_attn.o.weight", transposed=True),
}  # fmt: skip


def fused_tensors(plain: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    result = dict(plain)
    for layer in range(2):
        attention, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        rows = [result.pop(f"{attention}{name}_proj.weight") for name in "qkv"]
        result[f"{attention}qkv_proj.weight"] = np.concatenate(rows)
        gate, up = (result.pop(f"{mlp}{name}_proj.weight") for name in ("gate", "up"))
        turns = np.stack([gate.reshape(6, 4, -1), up.reshape(6, 4, -1)], axis=1)
        result[f"{mlp}gate_up_proj.weight"] = np.ascontiguousarray(turns.reshape(48, -1))
        result[f"{attention}o.weight"] = result.pop(f"{attention}o_proj.weight").T.copy()
    return result


def test_a_model_of_fused_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = random_tensors(CONFIG, np.float16)
    plain_path = write_folder(tmp_path / "plain", CONFIG, plain)
    path = write_folder(tmp_path / "fused", CONFIG, fused_tensors(plain), shards=3)
    with Folder.open(plain_path) as expected:
        llama.TENSOR_NAMES = FUSED  # type: ignore[misc]
        with Folder.open(path) as folder:
            assert folder.stored_bytes == expected.stored_bytes
            assert folder.stored_name("layers.1.k_proj").endswith("1.self_attn.qkv_proj.weight")
            for name in expected.names():
                shape = expected.shape(name)
                assert folder.shape(name) == shape and folder.dtype(name) == "f16"
                rows = Range(start=1, stop=shape[0] - 2)
                columns = Range(start=3, stop=shape[1]) if len(shape) == 2 else None
                np.testing.assert_array_equal(
                    folder.read(name, rows, columns), expected.read(name, rows, columns)
                )
            asked = []
            real = os.preadv

            def counting(descriptor: int, buffers: list, offset: int) -> int:
                asked.append(sum(len(buffer) for buffer in buffers))
                return real(descriptor, buffers, offset)

            monkeypatch.setattr(os, "preadv", counting)
            folder.read("layers.0.k_proj", Range(start=2, stop=5))
            assert asked == [3 * 16 * 2]  # its own rows and no others


def test_a_fused_tensor_that_does_not_fit(tmp_path: Path) -> None:
    tensors = fused_tensors(random_tensors(CONFIG))
    name = "model.layers.1.self_attn.qkv_proj.weight"
    tensors[name] = tensors[name][:-1].copy()
    llama.TENSOR_NAMES = FUSED  # type: ignore[misc]
    refused(write_folder(tmp_path / "m", CONFIG, tensors), name, "[31, 16]", "[32, 16]")
    del tensors[name]
    refused(write_folder(tmp_path / "n", CONFIG, tensors), "lacks 3 of", name)


# --- names ---


def test_names() -> None:
    assert pattern_of("layers.12.experts.7.up_proj.bias") == (
        "layers.{}.experts.{}.up_proj.bias", ("12", "7")
    )  # fmt: skip
    assert pattern_of("layers.3.q_proj") == ("layers.{}.q_proj", ("3",))
    assert pattern_of("norm") == ("norm", ())
    table = experts()
    up = "layers.3.experts.12.up_proj"
    assert named(table, up) == "model.layers.3.mlp.experts.12.up_proj.weight"
    assert named(INTERLEAVED, up) == "model.layers.3.mlp.experts.gate_up_proj"
    assert named(FUSED, "layers.5.v_proj") == "model.layers.5.self_attn.qkv_proj.weight"
    assert named(table, "layers.5.v_proj") is None
