"""The cache of packed weights: same bytes, never a wrong or a damaged one, under its quota."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.shapes import find_shape
from bandweave.checkpoints.synth import synthesise
from bandweave.engine import loading
from bandweave.engine.loading import Weights, keep_weights, load_weights
from bandweave.engine.lowering import lower
from bandweave.engine.panel_cache import PanelCache
from bandweave.engine.program import Program
from bandweave.models.registry import build_graph
from bandweave.planning.split import make_split


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(find_shape("tiny"), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def small_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_CACHED_BYTES", 0)


def program_of(folder: Folder, shares: tuple[int, ...] = (1,), node: int = 0) -> Program:
    return lower(build_graph(folder.spec), make_split(folder.spec, shares), node)


def load(
    model: Path, cache: PanelCache | None, weight_format: str = "q4", shares: tuple[int, ...] = (1,)
) -> Weights:
    with Folder.open(model) as folder:
        weights = load_weights(program_of(folder, shares), folder, weight_format, cache=cache)
    if cache is not None:
        keep_weights(weights, cache, model=str(model), weight_format=weight_format)
    return weights


def same(one: Weights, other: Weights) -> bool:
    return all(
        np.array_equal(matrix.panels, other.matrices[name].panels)
        for name, matrix in one.matrices.items()
    )


@pytest.mark.parametrize("weight_format", ["q4", "q8", "bf16", "f32"])
def test_a_second_start_packs_nothing(model: Path, tmp_path: Path, weight_format: str) -> None:
    cache = PanelCache(tmp_path)
    first = load(model, cache, weight_format)
    again = load(model, cache, weight_format)
    assert len(first.fresh) == len(first.matrices) and not again.fresh
    assert same(first, again) and same(first, load(model, None, weight_format))


def test_formats_and_splits_do_not_meet(model: Path, tmp_path: Path) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache)
    assert load(model, cache, "q8").fresh
    split = load(model, cache, shares=(1, 1))
    assert split.fresh and same(split, load(model, None, shares=(1, 1)))


def test_changed_weights_are_packed_anew(model: Path, tmp_path: Path) -> None:
    other = synthesise(find_shape("tiny"), tmp_path / "tiny", seed=1)
    cache = PanelCache(tmp_path / "cache")
    load(model, cache)
    assert load(other, cache).fresh


def test_damage_is_noticed(model: Path, tmp_path: Path) -> None:
    cache = PanelCache(tmp_path)
    first = load(model, cache)
    entries = sorted(cache.entries(), key=lambda entry: entry.weight)
    for index, entry in enumerate(entries):
        data = bytearray(entry.path.read_bytes())
        if index % 3 == 0:
            data[-1] ^= 1
        elif index % 3 == 1:
            del data[-100:]
        else:
            data[:4096] = bytes(4096)
        entry.path.write_bytes(data)
    again = load(model, cache)
    assert len(again.fresh) == len(entries) and same(first, again)
    assert not load(model, cache).fresh


def test_the_quota_forgets_what_was_used_longest_ago(model: Path, tmp_path: Path) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache, "q4")
    size = sum(entry.num_bytes for entry in cache.entries())
    small = PanelCache(tmp_path, quota_bytes=size // 2)
    small.trim()
    assert 0 < sum(entry.num_bytes for entry in small.entries()) <= size // 2
    assert small.clear() > 0 and small.entries() == []


def test_a_folder_that_cannot_be_written_only_keeps_nothing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert load(model, PanelCache(tmp_path / "file")).fresh
