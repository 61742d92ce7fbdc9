"""The cache of packed weights: same bytes, never a wrong or a damaged one, under its quota."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import TensorSource
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.programs.lowering import lower
from bandweave.programs.program import Program
from bandweave.programs.split import make_split
from bandweave.ranges import Range
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape
from bandweave.weights import cache_folder, loading
from bandweave.weights.keeping import keep_weights
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import Weights
from bandweave.weights.panel_cache import Held, PanelCache, _next
from bandweave.weights.panel_sections import missing
from tests.helpers.random_model import ODD_SPECS, random_source

SETTLE_SECONDS = 0.1  # a file that was written just now is not believed to be known


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = synthesise(find_shape("tiny"), tmp_path_factory.mktemp("models") / "tiny")
    time.sleep(SETTLE_SECONDS)
    return path


@pytest.fixture(autouse=True)
def small_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_CACHED_BYTES", 0)


def program_of(
    spec: ModelSpec, shares: tuple[int, ...] = (1,), node: int = 0, stages: int = 1
) -> Program:
    return lower(build_graph(spec), make_split(spec, shares, stages=stages), node)


def load_from(
    source: TensorSource, program: Program, cache: PanelCache | None, weight_format: str = "q4",
    threads: int = 1,
) -> Weights:  # fmt: skip
    weights = load_weights(program, source, weight_format, cache=cache, threads=threads)
    if cache is not None:
        keep_weights(weights, source, cache, model="model", weight_format=weight_format)
    return weights


def load(
    model: Path, cache: PanelCache | None, weight_format: str = "q4",
    shares: tuple[int, ...] = (1,), node: int = 0,
) -> Weights:  # fmt: skip
    with Folder.open(model) as folder:
        return load_from(folder, program_of(folder.spec, shares, node), cache, weight_format)


def same(one: Weights, other: Weights) -> bool:
    assert one.matrices.keys() == other.matrices.keys()
    return all(
        np.array_equal(matrix.panels, other.matrices[name].panels)
        for name, matrix in one.matrices.items()
    )


def packed(weights: Weights) -> set[str]:
    """The matrices of which anything had to be packed."""
    return {one.weight.name for one in weights.fresh}


@pytest.mark.parametrize("weight_format", ["q4", "q8", "mxfp4", "bf16", "f32"])
def test_a_second_start_packs_nothing(model: Path, tmp_path: Path, weight_format: str) -> None:
    cache = PanelCache(tmp_path)
    first = load(model, cache, weight_format)
    again = load(model, cache, weight_format)
    assert packed(first) == first.matrices.keys() and not again.fresh
    assert same(first, again) and same(first, load(model, None, weight_format))


def test_formats_do_not_meet(model: Path, tmp_path: Path) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache)
    assert packed(load(model, cache, "q8")) == load(model, None).matrices.keys()


# --- another split ---

SPLITS: list[tuple[tuple[int, ...], int]] = [
    ((1,), 1), ((1, 1), 1), ((3, 2, 1), 1), ((1, 1), 2), ((5, 1), 1),
]  # fmt: skip


@pytest.mark.parametrize("weight_format", ["q4", "q8", "mxfp4", "bf16", "f32"])
@pytest.mark.parametrize("before", SPLITS)
def test_another_split_finds_all_that_any_split_packed(
    model: Path, tmp_path: Path, weight_format: str, before: tuple[tuple[int, ...], int]
) -> None:
    cache = PanelCache(tmp_path)
    with Folder.open(model) as folder:
        for node in range(len(before[0])):
            program = program_of(folder.spec, before[0], node, before[1])
            load_from(folder, program, cache, weight_format)
        kept = sum(entry.num_bytes for entry in cache.entries())
        for shares, stages in SPLITS:
            for node in range(len(shares)):
                program = program_of(folder.spec, shares, node, stages)
                found = load_from(folder, program, cache, weight_format, threads=2)
                assert not found.fresh
                assert same(found, load_from(folder, program, None, weight_format))
    assert sum(entry.num_bytes for entry in cache.entries()) == kept


@pytest.mark.parametrize("weight_format", ["q4", "f32"])
def test_only_what_is_missing_is_packed(model: Path, tmp_path: Path, weight_format: str) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache, weight_format, (3, 2, 1), 1)  # what lies in the middle
    whole = load(model, cache, weight_format)
    assert whole.fresh and same(whole, load(model, None, weight_format))
    with Folder.open(model) as folder:
        ((_, columns),) = make_split(folder.spec, (3, 2, 1)).shares[1].columns
    for one in whole.fresh:
        if one.weight.name.endswith("down_proj"):
            assert one.part.stop <= columns.start or one.part.start >= columns.stop
    assert sum("down_proj" in one.weight.name for one in whole.fresh) == 2 * sum(
        "down_proj" in name for name in whole.matrices
    )
    assert not load(model, cache, weight_format).fresh
    # Three entries together serve one that straddles them.
    straddling = load(model, cache, weight_format, (1, 4, 1), 1)
    assert not straddling.fresh
    assert same(straddling, load(model, None, weight_format, (1, 4, 1), 1))


@pytest.mark.parametrize("name", ODD_SPECS)
@pytest.mark.parametrize("weight_format", ["q4", "bf16"])
def test_awkward_sizes_are_never_taken_for_others(
    tmp_path: Path, name: str, weight_format: str
) -> None:
    spec, cache = ODD_SPECS[name], PanelCache(tmp_path)
    source = random_source(spec, 3)
    for shares in ((1, 1, 1), (1,), (2, 1), (1, 2), (5, 1), (1, 1, 1)):
        for node in range(len(shares)):
            program = program_of(spec, shares, node)
            found = load_from(source, program, cache, weight_format)
            assert same(found, load_from(source, program, None, weight_format))
            assert not load_from(source, program, cache, weight_format).fresh


RANGES = st.tuples(st.integers(0, 12), st.integers(1, 6)).map(
    lambda pair: Range(start=pair[0], stop=pair[0] + pair[1])
)


@given(RANGES, st.lists(RANGES, max_size=5))
def test_what_is_missing_is_what_no_entry_holds(needed: Range, held: list[Range]) -> None:
    read: list[Range] = []
    entries = [Held(name=str(one), range=one, content="") for one in held]
    while (step := _next(needed, read, entries, "")) is not None:
        source, part = step
        assert source.range.start <= part.start < part.stop <= source.range.stop
        assert not set(places(part)) & {place for one in read for place in places(one)}
        read.append(part)
    there = {place for one in read for place in places(one)}
    possible = {place for one in held for place in places(one)}
    assert there == set(places(needed)) & possible
    gaps = missing(needed, read)
    assert [place for gap in gaps for place in places(gap)] == [
        place for place in places(needed) if place not in possible
    ]
    assert all(a.stop < b.start for a, b in pairwise(gaps))


def places(one: Range) -> range:
    return range(one.start, one.stop)


# --- what may go wrong ---


def twin(model: Path, path: Path, times: tuple[int, int] | None = None) -> Path:
    """Other weights of the same shapes: files of equal names, headers and sizes, and times."""
    synthesise(find_shape("tiny"), path, seed=1)
    for one in (model, path):
        for file in one.glob("*.safetensors"):
            os.utime(file, times or (1, 1))
    time.sleep(SETTLE_SECONDS)
    return path


def test_other_weights_of_equal_size_and_time_are_packed_anew(model: Path, tmp_path: Path) -> None:
    other = twin(model, tmp_path / "tiny")
    cache = PanelCache(tmp_path / "cache")
    first = load(model, cache)
    found = load(other, cache)
    assert packed(found) == found.matrices.keys()
    assert same(found, load(other, None)) and not same(found, first)
    for _ in range(2):  # both are kept, and told apart
        assert not load(model, cache).fresh and same(load(model, cache), first)
        assert not load(other, cache).fresh and same(load(other, cache), found)


def test_a_file_that_was_written_to_is_packed_anew(model: Path, tmp_path: Path) -> None:
    """In place, at equal size, with its times set back."""
    changed = shutil.copytree(model, tmp_path / "tiny")
    other = twin(model, tmp_path / "other")
    cache = PanelCache(tmp_path / "cache")
    file = changed / "model.safetensors"
    os.utime(file, (1, 1))
    time.sleep(SETTLE_SECONDS)
    load(changed, cache)
    assert not load(changed, cache).fresh
    with open(file, "r+b") as opened:
        opened.write((other / "model.safetensors").read_bytes())
    os.utime(file, (1, 1))
    assert packed(load(changed, cache)) and same(load(changed, cache), load(other, None))


def test_one_changed_block_is_packed_anew_alone(model: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(model, tmp_path / "tiny")
    cache = PanelCache(tmp_path / "cache")
    load(model, cache)
    with Folder.open(model) as folder:
        _, entry = folder._tensors["layers.1.up_proj"].matrix.stored[0]
    with open(changed / "model.safetensors", "r+b") as opened:
        opened.seek(entry.stop - 2)
        (value,) = np.frombuffer(opened.read(2), np.uint16)
        opened.seek(entry.stop - 2)
        opened.write(np.uint16(value ^ 1).tobytes())
    time.sleep(SETTLE_SECONDS)
    before = sum(entry.num_bytes for entry in cache.entries())
    found = load(changed, cache)
    assert packed(found) == found.matrices.keys()  # a file that nobody knows is read
    assert same(found, load(changed, None))
    kept = [entry for entry in cache.entries() if "1.gate_up" in entry.weight]
    assert sum(entry.num_bytes for entry in cache.entries()) - before == kept[0].num_bytes
    assert not load(changed, cache).fresh and not load(model, cache).fresh


def test_a_copy_is_read_once_and_takes_no_more_room(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "tiny")
    cache = PanelCache(tmp_path / "cache")
    load(model, cache)
    time.sleep(SETTLE_SECONDS)
    before = {entry.path for entry in cache.entries()}
    assert load(copy, cache).fresh and not load(copy, cache).fresh
    assert {entry.path for entry in cache.entries()} == before


def test_a_file_that_is_being_written_is_not_known(model: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(model, tmp_path / "tiny")
    cache = PanelCache(tmp_path / "cache")
    (changed / "model.safetensors").touch()
    with Folder.open(changed) as folder:
        assert folder.file_key("norm") == ""
        load_from(folder, program_of(folder.spec), cache, "q4")
    assert load(changed, cache).fresh  # what was kept is not taken for it


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


@pytest.mark.parametrize("weight_format", ["q4", "bf16"])
@pytest.mark.parametrize("place", [0, 100, 4095, 4096, 4100, 8192, -1])
def test_another_split_notices_damage_where_it_reads(
    model: Path, tmp_path: Path, weight_format: str, place: int
) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache, weight_format)
    for entry in cache.entries():
        data = bytearray(entry.path.read_bytes())
        data[place] ^= 0x10
        entry.path.write_bytes(data)
    for node in range(2):
        found = load(model, cache, weight_format, (1, 1), node)
        assert same(found, load(model, None, weight_format, (1, 1), node))
        # The last byte is none of node 0's.
        assert packed(found) == (found.matrices.keys() if place != -1 or node else set())


def test_entries_under_a_wrong_name_are_not_believed(model: Path, tmp_path: Path) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache)
    by_size: dict[int, list[Path]] = defaultdict(list)
    for entry in cache.entries():
        by_size[entry.num_bytes].append(entry.path)
    for paths in by_size.values():  # sound entries of equal size, each in another's place
        data = [path.read_bytes() for path in paths]
        for path, other in zip(paths, data[1:] + data[:1], strict=True):
            path.write_bytes(other)
    found = load(model, cache)
    swapped = [paths for paths in by_size.values() if len(paths) > 1]
    assert len(found.fresh) == sum(map(len, swapped)) > 10
    assert same(found, load(model, None))


def test_entries_of_another_range_are_not_believed(model: Path, tmp_path: Path) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache, shares=(1, 1))
    for entry in cache.entries():
        key, place, content, suffix = entry.path.name.split(".")
        start, stop = map(int, place.split("-"))
        entry.path.rename(
            entry.path.with_name(f"{key}.{stop}-{2 * stop - start}.{content}.{suffix}")
        )
    found = load(model, cache, shares=(1, 1), node=1)
    assert packed(found) == found.matrices.keys()
    assert same(found, load(model, None, shares=(1, 1), node=1))


def test_the_quota_forgets_what_was_used_longest_ago(model: Path, tmp_path: Path) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache, "q4")
    size = sum(entry.num_bytes for entry in cache.entries())
    small = PanelCache(tmp_path, quota_bytes=size // 2)
    small.trim()
    assert 0 < sum(entry.num_bytes for entry in small.entries()) <= size // 2
    assert small.clear() > 0 and small.entries() == []


def test_a_small_disk_is_never_filled(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PanelCache(tmp_path)
    load(model, cache, "f32")
    size = sum(entry.num_bytes for entry in cache.entries())
    cache.clear()
    disk = size  # all that there is

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=disk - sum(entry.num_bytes for entry in cache.entries()))

    monkeypatch.setattr(cache_folder.shutil, "disk_usage", usage)
    for weight_format in ("f32", "q4", "f32", "bf16"):
        load(model, cache, weight_format)
        kept = sum(entry.num_bytes for entry in cache.entries())
        assert 0 < kept <= disk // 2
    assert {entry.weight_format for entry in cache.entries()} >= {"bf16"}
    disk //= 8
    cache.trim()
    assert sum(entry.num_bytes for entry in cache.entries()) <= disk // 2


def test_one_start_does_not_forget_its_own_entries_for_others(model: Path, tmp_path: Path) -> None:
    load(model, PanelCache(tmp_path), "f32")
    whole = sum(entry.num_bytes for entry in PanelCache(tmp_path).entries())
    PanelCache(tmp_path).clear()
    small = PanelCache(tmp_path, quota_bytes=whole // 2)
    load(model, small, "f32")
    first = {entry.path for entry in small.entries()}
    load(model, small, "f32")
    assert first and {entry.path for entry in small.entries()} == first


def test_a_folder_that_cannot_be_written_only_keeps_nothing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert load(model, PanelCache(tmp_path / "file")).fresh


def test_what_is_known_of_files_outlives_damage(model: Path, tmp_path: Path) -> None:
    cache = PanelCache(tmp_path)
    first = load(model, cache)
    (known,) = tmp_path.glob("??/*.content")
    sound = known.read_bytes()
    for damaged in (sound[:-1], sound[:40], b"", sound[:100] + b"\xff" + sound[101:], b"x" * 999):
        known.write_bytes(damaged)
        again = load(model, cache)
        assert packed(again) == again.matrices.keys() and same(again, first)
        assert not load(model, cache).fresh
