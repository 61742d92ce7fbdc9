"""Content sums: equal for equal bytes in whatever pieces they are read, different for others."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.content.blocks import (
    Content,
    block_bytes,
    blocks_of,
    num_blocks,
    runs_of,
    sum_rows,
    sum_values,
)
from bandweave.content.manifest import MANIFEST, read_manifest, write_manifest
from bandweave.content.verification import verify_checkpoint
from bandweave.models.graph_op import SplitUnit
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape
from bandweave.weights.loading import load_weights
from tests.helpers.random_model import ODD_SPECS, MemorySource, random_source

MASK = (1 << 64) - 1
U64 = npt.NDArray[np.uint64]


def splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def sum_of(rows: list[tuple[int, bytes]]) -> int:
    """One block's sum, as native/kernels/content_sums.h describes it: rows with their numbers."""
    total = 0
    for number, data in rows:
        padded = data + bytes(-len(data) % 64)
        words = np.frombuffer(padded, "<u8").reshape(-1, 8)
        for stripe, line in enumerate(words.tolist()):
            for lane, word in enumerate(line):
                key = splitmix64(lane + 1) ^ splitmix64(number)
                keyed = word ^ ((key + stripe * 0x9E3779B97F4A7C15) & MASK)
                term = word + (keyed & 0xFFFFFFFF) * (keyed >> 32)
                total += term * (splitmix64(lane) | 1)
    return total & MASK


@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 90),
    first=st.integers(0, 50),
    size=st.integers(1, 40),
    columns=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float16, np.uint16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_are_what_the_page_says(
    rows: int, width: int, first: int, size: int, columns: bool, dtype: type, seed: int
) -> None:
    data = np.random.default_rng(seed).bytes(rows * width * np.dtype(dtype).itemsize)
    values = np.frombuffer(data, dtype).reshape(rows, width)
    found = sum_values(values, first, SplitUnit(columns=columns, size=size), "f32")
    if columns:
        blocks = [range(c, min(c + size, width)) for c in range(0, width, size)]
        expected = [
            sum_of([(first + r, values[r, b.start : b.stop].tobytes()) for r in range(rows)])
            for b in blocks
        ]
    else:
        groups: dict[int, list[tuple[int, bytes]]] = {}
        for r in range(rows):
            groups.setdefault((first + r) // size, []).append((first + r, values[r].tobytes()))
        expected = [sum_of(groups[key]) for key in sorted(groups)]
    assert found.tolist() == expected


@given(
    cuts=st.lists(st.integers(0, 60), max_size=6),
    columns=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_may_be_read_in_any_pieces(cuts: list[int], columns: bool, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((60, 50)).astype(np.float32)
    unit = SplitUnit(columns=columns, size=16)
    whole = sum_values(values, 0, unit, "f32")
    edges = sorted({0, 60, *cuts})
    total = np.zeros(len(whole), np.uint64)
    pieces = list(zip(edges, edges[1:], strict=False))
    for start, stop in reversed(pieces):
        sums = sum_values(values[start:stop], start, unit, "f32")
        at = 0 if columns else start // unit.size
        total[at : at + len(sums)] += sums
    assert np.array_equal(total, whole)


def test_every_change_of_a_bit_is_seen() -> None:
    values = np.random.default_rng(3).standard_normal((4, 40)).astype(np.float32)
    for unit in (SplitUnit(columns=False, size=2), SplitUnit(columns=True, size=32)):
        before = sum_values(values, 5, unit, "f32")
        seen = set()
        for byte in range(values.nbytes):
            for bit in range(8):
                changed = values.copy()
                changed.reshape(-1).view(np.uint8)[byte] ^= 1 << bit
                after = sum_values(changed, 5, unit, "f32")
                assert (after != before).sum() == 1
                seen.add(after.tobytes())
        assert len(seen) == 8 * values.nbytes


@pytest.mark.parametrize("columns", [False, True])
def test_rows_and_stripes_in_another_order_are_seen(columns: bool) -> None:
    values = np.random.default_rng(4).standard_normal((8, 64)).astype(np.float32)
    unit = SplitUnit(columns=columns, size=64)
    whole = sum_values(values, 0, unit, "f32")
    for changed in (
        values[::-1], values[[1, 0, 2, 3, 4, 5, 6, 7]], np.roll(values, 16, axis=1),
        np.roll(values, 2, axis=1), np.zeros_like(values), np.ascontiguousarray(values.T[:, :8].T),
    ):  # fmt: skip
        if not np.array_equal(changed, values):
            assert (sum_values(np.ascontiguousarray(changed), 0, unit, "f32") != whole).all()
    assert (sum_values(values, 1, unit, "f32") != whole).all()


@pytest.mark.parametrize("name", ODD_SPECS)
@pytest.mark.parametrize(
    ("shares", "weight_format"), [((1,), "q4"), ((1, 1), "f32"), ((3, 1, 2), "q4")]
)
def test_loading_sums_up_what_a_node_reads(
    name: str, shares: tuple[int, ...], weight_format: str
) -> None:
    """Whatever the split, together all blocks of all tensors, each as it is on its own."""
    spec = ODD_SPECS[name]
    source = random_source(spec, 3)
    everything = whole(source, spec)
    together = Content()
    for node in range(len(shares)):
        program = lower(build_graph(spec), make_split(spec, shares), node)
        content = load_weights(program, source, weight_format, threads=2).content
        for tensor, _, first, sums in content.runs():
            expected = everything.get(tensor, Range(start=first, stop=first + len(sums)))
            assert expected is not None and np.array_equal(sums, expected)
        together.update(content)
    assert together.tensors.keys() == everything.tensors.keys()
    assert all(one.known.all() for one in together.tensors.values())


def whole(source: MemorySource, spec: object) -> Content:
    content = Content()
    for weight in build_graph(spec).weights():  # type: ignore[arg-type]
        unit, shape = weight.unit, weight.shape  # type: ignore[arg-type]
        first, sums = sum_rows(source, weight.name, Range(start=0, stop=shape[0]), unit)
        content.learn(weight.name, unit, shape, first, sums)
    return content


def test_blocks() -> None:
    unit = SplitUnit(columns=True, size=64)
    assert num_blocks(unit, (10, 333)) == 6
    assert blocks_of(unit, Range(start=64, stop=333)) == Range(start=1, stop=6)
    assert block_bytes(unit, (10, 333), 16).tolist() == [1280] * 5 + [260]
    assert runs_of(np.array([1, 1, 0, 1], np.bool_)) == [
        Range(start=0, stop=2), Range(start=3, stop=4)
    ]  # fmt: skip


def test_what_two_know_is_known_together() -> None:
    unit, shape = SplitUnit(columns=False, size=1), (4,)
    one, other = Content(), Content()
    one.learn("a", unit, shape, 0, np.array([1, 2], np.uint64))
    other.learn("a", unit, shape, 2, np.array([3, 4], np.uint64))
    other.learn("b", unit, shape, 1, np.array([9], np.uint64))
    assert one.get("a", Range(start=0, stop=4)) is None
    one.update(other)
    found = one.get("a", Range(start=0, stop=4))
    assert found is not None and found.tolist() == [1, 2, 3, 4]
    assert (
        one.get("b", Range(start=0, stop=1)) is None
        and one.get("c", Range(start=0, stop=0)) is None
    )
    other_units = Content()
    other_units.learn("a", SplitUnit(columns=False, size=2), shape, 0, np.array([7], np.uint64))
    one.update(other_units)  # cut otherwise: nothing to learn from
    assert one.get("a", Range(start=0, stop=4)) is not None


# --- the manifest ---


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = synthesise(find_shape("tiny"), tmp_path / "tiny")
    time.sleep(0.1)
    return path


def content_of(path: Path) -> tuple[Content, str]:
    content = Content()
    with Folder.open(path) as folder:
        for weight in build_graph(folder.spec).weights():
            unit = weight.unit
            rows = Range(start=0, stop=weight.shape[0])
            first, sums = sum_rows(folder, weight.name, rows, unit)
            content.learn(weight.name, unit, weight.shape, first, sums)
        return content, folder.layout_fingerprint().headers


def test_a_manifest_comes_back(model: Path) -> None:
    content, headers = content_of(model)
    assert read_manifest(model, headers) is None
    assert write_manifest(model, headers, content, {"model.safetensors": "0" * 64}).exists()
    found = read_manifest(model, headers)
    assert found is not None and found.tensors.keys() == content.tensors.keys()
    for name, one in found.tensors.items():
        assert np.array_equal(one.sums, content.tensors[name].sums) and one.known.all()
    assert read_manifest(model, "1" * 64) is None  # of other files
    Folder.open(model).close()  # and the folder is what it was


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{", '{"bandweave_manifest": 1}', "\0", '{"bandweave_manifest": ']
)
def test_a_damaged_manifest_is_named(model: Path, text: str) -> None:
    (model / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match="write it again with"):
        read_manifest(model, "0" * 64)


def test_a_manifest_that_is_a_pipe_is_named(model: Path) -> None:
    os.mkfifo(model / MANIFEST)
    with pytest.raises(CheckpointError, match="is a named pipe"):
        read_manifest(model, "0" * 64)


def test_a_note_of_the_hub_that_is_a_pipe_promises_nothing(model: Path) -> None:
    note = model / ".cache" / "huggingface" / "download" / "model.safetensors.metadata"
    note.parent.mkdir(parents=True)
    os.mkfifo(note)
    with Folder.open(model) as folder:
        assert not verify_checkpoint(folder, lambda done, total: None).hub


def test_a_manifest_with_absurd_sums_is_named(model: Path) -> None:
    content, headers = content_of(model)
    text = write_manifest(model, headers, content, {}).read_text()
    for old, new in (
        ('"size": 64', '"size": 0'),
        ('"size": 64', '"size": "x"'),
        ('"columns": true', '"columns": 3'),
        ('"sums": "', '"sums": "xyz'),
    ):
        assert old in text
        (model / MANIFEST).write_text(text.replace(old, new, 1))
        with pytest.raises(CheckpointError, match="damaged"):
            read_manifest(model, headers)
    shutil.rmtree(model)
