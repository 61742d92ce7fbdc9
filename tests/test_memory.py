"""Memory: a node holds its share and little more, and what cannot fit is refused beforehand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.engine.engine import Engine
from bandweave.engine.memory import NodeMemory, check_memory, gigabytes, node_memory
from bandweave.engine.options import EngineOptions
from bandweave.executors.executor import ExecutorOptions
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.models.registry import build_graph
from bandweave.nodes.local_launcher import LocalLauncher
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape
from bandweave.weights.packed import packed_bytes

CONTEXT = 2048
BESIDE_BYTES = 200_000_000  # what a node may take beside its weights and KV cache
LONGEST = 1 << 28


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """185 million parameters: 370 MB of bf16, so that a node that kept the files would show."""
    path = tmp_path_factory.mktemp("models") / "middling"
    shape = find_shape(
        "tinyllama-1.1b", layers=10, hidden=1024, heads=16, kv_heads=4, intermediate=4096,
        vocab=16000, context=LONGEST,
    )  # fmt: skip
    yield synthesise(shape, path)
    shutil.rmtree(path)


def predicted(folder: Folder, shares: tuple[int, ...], weight_format: str) -> list[NodeMemory]:
    split = make_split(folder.spec, shares)
    options = ExecutorOptions(num_pages=CONTEXT // 64, max_pages=CONTEXT // 64)
    graph = build_graph(folder.spec)
    return [
        node_memory(lower(graph, split, node), weight_format, options)
        for node in range(len(shares))
    ]


@pytest.mark.parametrize(
    ("shares", "weight_format", "threads"),
    [((1,), "q4", 1), ((1,), "q4", 2), ((1, 1), "q4", 1), ((3, 1), "q4", 1), ((1, 1), "q8", 1)],
)
def test_a_node_keeps_its_share_and_200_mb_at_most(
    checkpoint: Path, shares: tuple[int, ...], weight_format: str, threads: int
) -> None:
    options = EngineOptions(
        shares=tuple(Fraction(share) for share in shares),
        threads=threads,
        run=RunOptions(weight_format=weight_format, context=CONTEXT),
    )
    prompt = tuple(range(5, 600))
    request = Request(tokens=prompt, params=SamplingParams(temperature=0.0, max_tokens=3))
    with Folder.open(checkpoint) as folder, Engine.start(folder, options) as engine:
        engine.generate([request])
        nodes, statistics = engine.nodes, engine.statistics()
        expected = predicted(folder, shares, weight_format)
    for node, counted, need in zip(nodes, statistics, expected, strict=True):
        peak = counted.peak_rss_bytes
        print(f"{node.name}: {peak / 1e6:.0f} MB, weights {node.weight_bytes / 1e6:.0f} MB")
        assert peak <= node.weight_bytes + node.kv_bytes + BESIDE_BYTES
        assert peak <= need.total_bytes
        # What was promised before loading is what was taken.
        vectors = 4 * (folder.spec.hidden_size * (2 * folder.spec.num_layers + 1))
        assert node.weight_bytes == need.weight_bytes + vectors
        assert node.kv_bytes == need.kv_bytes
        assert node.work_bytes <= need.work_bytes
    total = sum(node.weight_bytes for node in nodes)
    for node, share in zip(nodes, shares, strict=True):
        assert node.weight_bytes / total == pytest.approx(share / sum(shares), rel=0.1)


def test_an_impossible_context_is_refused_before_anything_starts(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: LocalLauncher, num_nodes: int) -> None:
        raise AssertionError("nodes were started")

    monkeypatch.setattr(LocalLauncher, "start", start)
    options = EngineOptions(shares=(Fraction(1), Fraction(1)), run=RunOptions(context=LONGEST))
    message = (
        r"^middling on all 2 nodes together needs [\d.]+ GB of memory \(0\.\d\d GB weights, "
        r"27\d\d\.\d\d GB KV cache\) but only [\d.]+ GB are available; use more machines, a "
        r"smaller --format or a smaller --context$"
    )
    with Folder.open(checkpoint) as folder, pytest.raises(MemoryError, match=message):
        Engine.start(folder, options)


@pytest.mark.parametrize("context", [0, -1, LONGEST + 1])
def test_a_context_that_the_model_does_not_have_is_refused(checkpoint: Path, context: int) -> None:
    with Folder.open(checkpoint) as folder, pytest.raises(ValueError, match="^a context of "):
        Engine.start(folder, EngineOptions(run=RunOptions(context=context)))


def test_the_check_refuses_from_the_first_byte_too_many() -> None:
    need = NodeMemory(
        weight_bytes=3_000_000_000, kv_bytes=200_000_000, work_bytes=50_000_000, base_bytes=7
    )
    assert need.total_bytes == 3_250_000_007
    check_memory("node 3", need, need.total_bytes)
    check_memory("node 3", need, None)
    with pytest.raises(MemoryError, match=r"^node 3 needs 3\.25 GB of memory \(3\.00 GB weights"):
        check_memory("node 3", need, need.total_bytes - 1)
    assert gigabytes(need.total_bytes) == "3.25 GB"


@pytest.mark.parametrize("weight_format", ["q4", "q8", "mxfp4", "bf16", "f32"])
def test_all_nodes_together_hold_what_one_would_and_copies_of_kv_projections(
    checkpoint: Path, weight_format: str
) -> None:
    with Folder.open(checkpoint) as folder:
        graph = build_graph(folder.spec)

        def packed(count: int) -> int:
            split = make_split(folder.spec, [1] * count)
            return sum(
                packed_bytes(lower(graph, split, node), weight_format) for node in range(count)
            )

        one = packed(1)
        bits = {"q4": 4.5, "q8": 8.5, "mxfp4": 4.25, "bf16": 16, "f32": 32}[weight_format]
        assert one == pytest.approx(folder.stored_bytes / 2 * bits / 8, rel=0.1)
        assert packed(2) == pytest.approx(one, rel=0.001)
        assert one < packed(7) < 1.05 * one
