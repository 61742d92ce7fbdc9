"""The benchmarks' own arithmetic: intervals, turns, ratios, tables, and the files for the peers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import document, table
from benchmarks.contestant import Contestant
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Point, Result, Series
from benchmarks.rounds import Entry, Rounds, measure, order
from benchmarks.statistics import Estimate, estimate, ratios

from bandweave import _native
from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import widen
from bandweave.formats.matrix import QuantisedMatrix
from bandweave.formats.packing import unpack
from bandweave.ranges import Range
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape

# --- statistics ---


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert estimate([3.0] * 9) == Estimate(median=3.0, low=3.0, high=3.0, count=9)
    assert estimate([2.5]) == Estimate(median=2.5, low=2.5, high=2.5, count=1)


def test_an_outlier_moves_neither_median_nor_interval() -> None:
    values = [10.0, 10.1, 9.9, 10.0, 10.05, 9.95, 10.0, 10.02, 9.98]
    assert estimate([*values, 1000.0]).high < 10.2


def test_the_interval_covers_the_median_that_often() -> None:
    generator = random.Random(1)
    covered = 0
    for _ in range(100):
        one = estimate([generator.gauss(5.0, 1.0) for _ in range(25)])
        covered += one.low <= 5.0 <= one.high
    assert 88 <= covered <= 100


def test_the_same_values_give_the_same_interval() -> None:
    values = [random.Random(2).random() for _ in range(10)]
    assert estimate(values) == estimate(values)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one round"):
        estimate([])
    with pytest.raises(ValueError, match="1 rounds against 2"):
        ratios([1.0], [1.0, 2.0])


def test_ratios_cancel_what_a_round_has_in_common() -> None:
    assert ratios([2.0, 4.0, 8.0], [1.0, 2.0, 4.0]) == [2.0, 2.0, 2.0]


# --- rounds ---


class FakeRunning:
    """Counts its samples; the machine slows down by one each sample of anyone."""

    clock = 0

    def __init__(self, name: str, speed: float, log: list[str]) -> None:
        self.name, self.speed, self.log = name, speed, log
        self.description: dict[str, Any] = {"engine": name}

    def sample(self, work: Work) -> dict[str, Any]:
        self.log.append(self.name)
        FakeRunning.clock += 1
        return {"speed": self.speed + FakeRunning.clock}


def contestant(name: str) -> Contestant:
    return Contestant(name=name, command=())


def run_fakes(rounds: int) -> tuple[Rounds, list[str]]:
    log: list[str] = []
    running: Any = {name: FakeRunning(name, 100.0, log) for name in "AB"}
    work = Work(prompt_tokens=1, new_tokens=2)
    entries = [Entry(contestant=contestant(name), work=work) for name in "AB"]
    return measure(running, entries, rounds), log


def test_turns() -> None:
    assert order(2) == [0, 1, 1, 0]
    assert order(3) == [0, 1, 2, 2, 1, 0]
    _, log = run_fakes(2)
    assert "".join(log) == "AB" + "ABBA" * 2  # one of each to warm up


def test_a_drift_cancels_in_a_round() -> None:
    rounds, _ = run_fakes(3)
    assert rounds.values("A", "speed") == rounds.values("B", "speed")
    assert rounds.count == 3
    assert rounds.extended(rounds).count == 6
    json.dumps(rounds.to_json())


def test_prompts_of_one_seed_continue_each_other() -> None:
    short, long = (Work(prompt_tokens=n, new_tokens=1, streams=2) for n in (5, 9))
    for a, b in zip(short.prompts(100), long.prompts(100), strict=True):
        assert b[:5] == a
    assert short.prompts(100)[0] != short.prompts(100)[1]


# --- results ---


def figure(
    median: float,
    *,
    low: float,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    return Figure(
        title="a over b",
        estimate=Estimate(median=median, low=low, high=median * 1.2, count=9),
        at_least=at_least,
        at_most=at_most,
    )


def test_what_is_asked() -> None:
    assert figure(1.6, low=1.55, at_least=1.5).met
    assert figure(1.6, low=1.55, at_least=1.5).settled
    assert not figure(1.4, low=1.3, at_least=1.5).met
    assert not figure(1.6, low=1.4, at_least=1.5).settled
    assert figure(14.0, low=1.0, at_most=15.0).met
    assert not figure(14.0, low=14.0, at_most=15.0).settled  # the high end is the bad one
    assert figure(1.0, low=1.0).met is None


def result() -> Result:
    one = Estimate(median=12.34, low=12.0, high=13.0, count=3)
    points = tuple(Point(name=name, x=x, estimate=one) for x in (128, 512) for name in ("a", "b"))
    series = Series(title="t", axis="tokens", unit="tokens/s", points=points)
    figures = (figure(1.6, low=1.55, at_least=1.5), figure(99.96, low=99.0))
    return Result(experiment="decode", title="Decode", figures=figures, series=(series,))


def test_results_survive_json() -> None:
    read = Result.from_json(json.loads(json.dumps(result().to_json())))
    assert (read.figures, read.series) == (result().figures, result().series)


def test_tables() -> None:
    text = table.markdown(result())
    assert "| a over b | 1.60 | 1.55 to 1.92 | 9 | at least 1.5 | met |" in text
    assert "| 128 | 12.3 (12.0 to 13.0) | 12.3 (12.0 to 13.0) | 1.00 |" in text
    assert table.terminal(result()).startswith("== Decode")


def test_only_its_part_of_the_document_is_rewritten() -> None:
    text = document.with_part("# Mine\n", "b", "old b")
    text = document.with_part(text, "a", r"old \1 a", first=True)
    text += "\nwords\n"
    assert text.index("old \\1 a") < text.index("old b") < text.index("words")
    changed = document.with_part(text, "b", "new b")
    assert changed == text.replace("old b", "new b")


# --- the peers' files ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(find_shape("tiny"), tmp_path_factory.mktemp("models") / "tiny")


def weights(folder: Path, name: str) -> np.ndarray:
    with Folder.open(folder) as opened:
        return widen(opened.read(name, Range(start=0, stop=opened.shape(name)[0])))


def packed(values: np.ndarray, weight_format: str, unit: int) -> QuantisedMatrix:
    """What the native module computes with."""
    outputs, inputs = values.shape
    arena = _native.Arena(_native.matrix_bytes(weight_format, outputs, inputs, unit) + 64)
    matrix = _native.Matrix(arena, weight_format, outputs, inputs, unit)
    matrix.pack(0, values)
    unpacked = unpack(
        matrix.panels, format=weight_format, outputs=outputs, inputs=inputs, unit=unit
    )
    assert isinstance(unpacked, QuantisedMatrix)
    return unpacked


@pytest.mark.parametrize("weight_format", ["q4", "q8"])
def test_gguf_has_the_bytes_that_bandweave_computes_with(
    folder: Path, tmp_path: Path, weight_format: str
) -> None:
    gguf = pytest.importorskip("gguf")
    from benchmarks.gguf_export import blocks, export, rope_order
    from benchmarks.gguf_header import tensor_name

    path = export(folder, tmp_path / "tiny.gguf", weight_format)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    with Folder.open(folder) as opened:
        spec = opened.spec
        assert set(stored) == {tensor_name(name, spec) for name in opened.names()}
    kind = {"q4": "Q4_0", "q8": "Q8_0"}[weight_format]
    units = {"layers.1.o_proj": 32, "layers.0.down_proj": 64, "layers.1.q_proj": 128,
             "layers.0.k_proj": 128, "lm_head": 128}  # fmt: skip
    for name, unit in units.items():
        values = weights(folder, name)
        if name.endswith(("q_proj", "k_proj")):
            values = values[rope_order(len(values), 32)]
        found = stored[tensor_name(name, spec)]
        assert found.tensor_type.name == kind
        expected = blocks(packed(np.ascontiguousarray(values), weight_format, unit))
        assert np.array_equal(found.data, expected), name
        theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
        assert np.array_equal(found.data, theirs), name


def test_gguf_keeps_embeddings_and_norms(folder: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from benchmarks.gguf_export import export

    path = export(folder, tmp_path / "tiny.gguf", "q4")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    embeddings = stored["token_embd.weight"]
    values = gguf.quants.dequantize(embeddings.data, embeddings.tensor_type)
    assert np.array_equal(values, weights(folder, "embed_tokens"))
    with Folder.open(folder) as opened:
        norm = widen(opened.read("norm", Range(start=0, stop=128)))
    assert np.array_equal(stored["output_norm.weight"].data, norm)


@pytest.mark.parametrize("shape", ["qwen3-30b-a3b", "deepseek-v3", "gpt-oss-20b"])
def test_gguf_has_all_experts_in_one_tensor(tmp_path: Path, shape: str) -> None:
    gguf = pytest.importorskip("gguf")
    from benchmarks.gguf_export import blocks, export
    from benchmarks.gguf_header import tensor_name

    sizes = {"layers": 2, "experts": 8, "hidden": 128, "vocab": 320, "intermediate": 128,
             "expert_intermediate": 64, "heads": 4}  # fmt: skip
    folder = tmp_path / "model"
    synthesise(find_shape(shape, **sizes), folder)
    path = export(folder, tmp_path / "mixture.gguf", "q4")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    with Folder.open(folder) as opened:
        for name in opened.names():
            if ".experts." in name or name.endswith(("k_b_proj", "v_b_proj")):
                continue
            assert tensor_name(name, opened.spec) in stored, name
        expert = widen(opened.read("layers.1.experts.5.up_proj", Range(start=0, stop=64)))
    found = stored["blk.1.ffn_up_exps.weight"]
    assert found.data.shape[0] == 8
    assert np.array_equal(found.data[5], blocks(packed(expert, "q4", expert.shape[1])))


def test_rows_turn_with_their_neighbours() -> None:
    pytest.importorskip("gguf")
    from benchmarks.gguf_export import rope_order

    assert rope_order(8, 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
