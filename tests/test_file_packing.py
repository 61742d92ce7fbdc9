"""Rows that are packed straight from a file: the bytes of those that were read first, no others
read, and what becomes of a file that is cut short meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from bandweave import _native
from bandweave.checkpoints.byte_file import LocalFile
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.formats import packing
from bandweave.formats.gguf_blocks import RUNS_AS, as_stored, block_size
from bandweave.models.registry import build_graph
from bandweave.programs.program import Program
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.weights.loading import load_weights
from bandweave.weights.panel_cache import PanelCache
from bandweave.weights.stored_formats import node_program
from tests.helpers.gguf_blocks import packed, random_blocks
from tests.helpers.gguf_mixed import write_mixed

PLAIN = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}


def stored_rows(source: str, rows: int, columns: int) -> npt.NDArray[np.generic]:
    rng = np.random.default_rng(7)
    if source in RUNS_AS:
        return random_blocks(rng, source, rows, columns)
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    if source == "bf16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(PLAIN[source])


@pytest.mark.parametrize("source", [*PLAIN, *RUNS_AS])
@pytest.mark.parametrize("columns", [256, 8192])
def test_rows_of_a_file_pack_to_the_same_bytes(source: str, columns: int, tmp_path: Path) -> None:
    """Whole rows and halves of them, near and far from each other, from any output on."""
    rows, unit = 83, 256
    values = stored_rows(source, rows, 2 * columns)
    path = tmp_path / "rows"
    path.write_bytes(b"odd" + values.tobytes())
    weight_format = RUNS_AS.get(source, "q4")
    blocks = source if source in RUNS_AS else ""
    stride, half = values.strides[0], values.shape[1] // 2
    size = _native.matrix_bytes(weight_format, rows, columns, unit)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for first, start in ((0, 0), (0, half), (5, half)):
            own = np.ascontiguousarray(values[: rows - first, start : start + half])
            whole, other = (
                _native.Matrix(_native.Arena(size), weight_format, rows, columns, unit)
                for _ in range(2)
            )
            whole.clear()
            other.clear()
            sums = whole.pack(first, own, 3, 16, 0, blocks)
            at = 3 + start * values.itemsize
            found = other.pack_file(first, descriptor, at, stride, rows - first, 3, 16, 0, source)
            assert found is not None and np.array_equal(found, sums)
            assert np.array_equal(whole.panels, other.panels)
        beyond = other.pack_file(0, descriptor, 3 + 9 * stride, stride, rows, source=source)
        assert beyond is None
        with pytest.raises(ValueError, match="do not fit"):
            other.pack_file(0, descriptor, 3, half - 8, 2, source=source)
        with pytest.raises(ValueError, match="do not fit"):
            other.pack_file(1, descriptor, 3, stride, rows, source=source)
    finally:
        os.close(descriptor)


def test_any_scale_of_mxfp4_packs_as_the_oracle_says() -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 256, (16, 16, block_size("mxfp4")[1]), np.uint8)
    rows[..., 0] = np.arange(256).reshape(16, 16) % 248  # beyond, numbers are infinite
    rows[::3, ::2, 1:] &= 0x88  # zeros of either sign
    rows = rows.reshape(16, -1)
    expected = packing.pack(as_stored("mxfp4", rows, 512))
    assert packed("mxfp4", rows, 512).panels.tobytes() == expected.tobytes()


# --- whole models ---


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed(tmp_path_factory.mktemp("mixed") / "model.gguf")


class _Read:
    """A folder whose rows are all read before they are packed."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def rows_in_file(self, name: str, rows: Range, columns: Range | None = None) -> None:
        """Nothing is."""


def node_programs(folder: Folder, weight_format: str) -> list[Program]:
    split = make_split(folder.spec, (2, 1, 1))
    graph = build_graph(folder.spec)
    return [node_program(folder, graph, split, node, weight_format) for node in range(3)]


@pytest.mark.parametrize("weight_format", ["stored", "q8", "f32"])
def test_a_share_is_what_it_is_however_it_is_read(mixed: Path, weight_format: str) -> None:
    for path in (mixed, demo_folder()):
        with Folder.open(path) as folder:
            straight = 0
            for program in node_programs(folder, weight_format):
                for part in program.parts():
                    found = folder.rows_in_file(part.tensor, part.rows, part.columns)
                    straight += found is not None
                one = load_weights(program, folder, weight_format, threads=2)
                other = load_weights(program, cast(Any, _Read(folder)), weight_format)
                assert one.matrices.keys() == other.matrices.keys()
                for name, matrix in one.matrices.items():
                    assert np.array_equal(matrix.panels, other.matrices[name].panels), name
                assert one.content.tensors.keys() == other.content.tensors.keys()
                for name, content in one.content.tensors.items():
                    assert np.array_equal(content.sums, other.content.tensors[name].sums), name
            assert straight


def test_rows_lie_where_the_file_says(mixed: Path) -> None:
    """Queries' and keys' rows are stored in pairs, which no distance leads to."""
    for path in (mixed, demo_folder()):
        with Folder.open(path) as folder:
            files = {name: (path.parent if path == mixed else path) / name for name in folder.files}
            for name in folder.names():
                shape = folder.shape(name)
                rows = Range(start=shape[0] // 4, stop=shape[0] // 2 + 1)
                values = folder.read(name, rows)
                place = folder.rows_in_file(name, rows)
                if place is None:
                    assert path == mixed and ("q_proj" in name or "k_proj" in name)
                    continue
                data = files[folder.file_name(name)].read_bytes()
                length = values.nbytes // len(rows)
                stored = b"".join(
                    data[place.start + row * place.stride :][:length] for row in range(len(rows))
                )
                assert stored == values.tobytes()


def test_a_file_that_is_cut_while_it_is_read_is_named(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where it is cut in the midst of a read.
    monkeypatch.setattr(LocalFile, "check_unchanged", lambda file: None)
    path = tmp_path / "model.gguf"
    path.write_bytes(mixed.read_bytes())
    with Folder.open(path) as folder:
        (program, *_) = node_programs(folder, "stored")
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(CheckpointError, match=r"model\.gguf ends at byte .* changed while"):
            load_weights(program, folder, "stored")


def test_blocks_that_stay_as_they_are_stored_are_not_kept_again(
    mixed: Path, tmp_path: Path
) -> None:
    with Folder.open(mixed) as folder:
        for weight_format, kept in (("stored", {"f16"}), ("q8", set())):
            (program, *_) = node_programs(folder, weight_format)
            cache = PanelCache(tmp_path / weight_format)
            weights = load_weights(program, folder, weight_format, cache=cache, least_cached=0)
            dtypes = {
                folder.dtype(part.tensor) for one in weights.fresh for part in one.weight.parts
            }
            assert dtypes == kept if kept else {"q4_k", "q6_k", "f16"} < dtypes
            assert weights.learnt  # what the file holds is remembered all the same


def test_a_table_in_the_controllers_files_is_not_read_for_its_content(mixed: Path) -> None:
    with Folder.open(mixed) as folder:
        (program, *_) = node_programs(folder, "stored")
        assert program.embedding is not None
        table = program.embedding.tensor
        assert table in load_weights(program, folder, "stored").content.tensors
        unread = load_weights(program, folder, "stored", sum_table=False)
        assert table not in unread.content.tensors and unread.content.tensors
