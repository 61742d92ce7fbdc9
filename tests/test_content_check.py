"""Copies of one model on several machines: what differs is named before the first step."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.content.manifest import MANIFEST
from bandweave.engine.content_check import Agreement, ContentCheck
from bandweave.engine.content_report import check_own
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.messages import BlockSums, ContentReport
from bandweave.models.registry import build_graph
from bandweave.nodes.worker import Worker
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from bandweave.run_options import RunOptions
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape
from bandweave.weights.loading import load_weights
from bandweave.weights.panel_cache import PanelCache
from tests.helpers.command import bandweave

SECRET = b"s" * 32
SHARES = (1, 1)
NAMES = ("node 0 (a:1)", "node 1 (b:1)")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = synthesise(find_shape("tiny"), tmp_path_factory.mktemp("models") / "tiny")
    time.sleep(0.1)  # a file that was written just now is not believed to be known
    return path


def damage(path: Path, tensor: str, *, quarter: bool = False) -> None:
    """Flips one bit in the midst of a tensor, or zeroes a quarter of it."""
    with Folder.open(path) as folder:
        file, entry = folder._tensors[tensor].matrix.stored[0]
    size = entry.stop - entry.start
    with open(path / file.path.name, "r+b") as opened:
        start = entry.start + (0 if quarter else size // 2)
        opened.seek(start)
        data = opened.read(size // 4 if quarter else 1)
        opened.seek(start)
        opened.write(bytes(len(data)) if quarter else bytes([data[0] ^ 1]))
    time.sleep(0.1)


# --- reports, compared ---


def report_of(path: Path, node: int, own: frozenset[str] = frozenset()) -> Any:
    with Folder.open(path) as folder:
        program = lower(build_graph(folder.spec), make_split(folder.spec, SHARES), node)
        content = load_weights(program, folder, "q4").content
        return check_own(folder, content, own)


def compare(
    controller: Path, copies: list[Path], cache: PanelCache | None = None, *, weights: bool = True
) -> Agreement:
    with Folder.open(controller, weights=weights) as folder:
        check = ContentCheck(folder, make_split(folder.spec, SHARES), NAMES, cache)
        try:
            same = 0
            for node, copy in enumerate(copies):
                with Folder.open(copy) as theirs:
                    mine = copy == controller
                    check.found(node, str(copy), same_files=mine)
                    own = report_of(copy, node, theirs.file_keys if mine else frozenset())
                for message in own.messages():
                    check.report(node, message)
                same += own.same_file_bytes
            return check.finish(same)
        finally:
            check.close()


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    path = shutil.copytree(model, tmp_path / "copy" / "tiny")
    time.sleep(0.1)
    return path


def test_files_of_the_controller_need_no_comparison(model: Path, copy: Path) -> None:
    found = compare(model, [model, model])
    assert found.same_file_bytes > 0 and not found.compared_bytes and not found.uncompared_bytes
    other = compare(model, [model, copy])
    assert other.same_file_bytes and other.compared_bytes and not other.uncompared_bytes
    # Norms and KV heads are on both nodes.
    assert other.same_file_bytes + other.compared_bytes == found.same_file_bytes


TENSORS = (
    "embed_tokens", "lm_head", "norm", "layers.0.input_norm", "layers.1.post_norm",
    "layers.0.q_proj", "layers.1.k_proj", "layers.0.v_proj", "layers.1.o_proj",
    "layers.0.gate_proj", "layers.1.up_proj", "layers.0.down_proj",
)  # fmt: skip


@pytest.mark.parametrize("tensor", TENSORS)
def test_one_flipped_bit_is_named(model: Path, copy: Path, tensor: str) -> None:
    damage(copy, tensor)
    wrong = []
    for copies in ([copy, model], [model, copy]):
        try:
            compare(model, copies)
        except CheckpointError as error:
            wrong.append(str(error))
    # The bit is in the share of one of the nodes, or in that of both.
    assert wrong
    with Folder.open(model) as folder:
        name = folder.stored_name(tensor)
    for sentence in wrong:
        assert f"{copy}/model.safetensors differs from this machine's copy in {name}:" in sentence
        assert sentence.startswith("node ")


def test_without_a_copy_of_its_own_nodes_are_compared_with_each_other(
    model: Path, copy: Path, tmp_path: Path
) -> None:
    light = tmp_path / "light"
    light.mkdir()
    shutil.copy(model / "config.json", light)
    found = compare(light, [model, copy], weights=False)
    assert found.compared_bytes and found.uncompared_bytes and not found.same_file_bytes
    damage(copy, "layers.0.input_norm")  # which both nodes have
    with pytest.raises(CheckpointError, match="differs from the copies of others") as raised:
        compare(light, [model, copy], weights=False)
    assert "layers.0.input_layernorm" in str(raised.value) and "and so do" in str(raised.value)


def test_a_head_that_only_the_nodes_know_of(model: Path, copy: Path, tmp_path: Path) -> None:
    """Its config ties it to the embedding; the files have one of its own."""
    light = tmp_path / "light"
    light.mkdir()
    for path in (copy, light):
        config = json.loads((model / "config.json").read_text())
        assert not config["tie_word_embeddings"]
        (path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    other = shutil.copytree(copy, tmp_path / "other")
    time.sleep(0.1)
    found = compare(light, [copy, other], weights=False)
    assert found.compared_bytes and found.uncompared_bytes
    damage(other, "layers.0.input_norm")
    with pytest.raises(CheckpointError, match="model.layers.0.input_layernorm.weight"):
        compare(light, [copy, other], weights=False)


def test_what_the_controller_has_read_once_it_remembers(
    model: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PanelCache(tmp_path / "cache")
    first = compare(model, [copy, copy], cache)
    monkeypatch.setattr("bandweave.engine.content_check.sum_rows", None)  # nothing is read again
    assert compare(model, [copy, copy], cache) == first
    damage(copy, "layers.0.up_proj", quarter=True)
    with pytest.raises(CheckpointError, match="up_proj"):
        compare(model, [copy, copy], cache)


@pytest.mark.parametrize(
    "change",
    [
        {"tensor": "layers.9.q_proj"}, {"tensor": "\x1b[2J"}, {"size": 3}, {"size": 0},
        {"first": 1 << 40}, {"sums": "zz"}, {"sums": "0"}, {"item_bits": 0}, {"columns": True},
    ],
)  # fmt: skip
def test_reports_that_make_no_sense_are_refused(model: Path, change: dict[str, Any]) -> None:
    sound = BlockSums(
        tensor="layers.0.q_proj", file="model.safetensors", columns=False, size=16, item_bits=16,
        first=0, sums="0" * 16,
    )  # fmt: skip
    with Folder.open(model) as folder:
        check = ContentCheck(folder, make_split(folder.spec, SHARES), NAMES, None)
        wrong = BlockSums(**{**vars(sound), **change})
        with pytest.raises(ValueError):
            check.report(0, ContentReport(blocks=(sound, wrong)))
            check.finish(0)


# --- real workers ---


@pytest.fixture
def two_machines(model: Path, copy: Path) -> Iterator[tuple[list[str], Path]]:
    """Workers of which the second has a copy of its own, under another name."""
    with ExitStack() as stack:
        addresses = []
        elsewhere = copy.rename(copy.parent / "downloaded")
        for roots in ([model.parent], [elsewhere.parent]):
            worker = stack.enter_context(Worker("127.0.0.1:0", SECRET, roots, threads=1))
            addresses.append(f"127.0.0.1:{worker.address[1]}")
            thread = threading.Thread(target=_serve, args=(worker,), daemon=True)
            thread.start()
        yield addresses, elsewhere


def _serve(worker: Worker) -> None:
    while True:
        try:
            worker.serve_one()
        except (OSError, ValueError):
            return


def start(model: Path, hosts: list[str]) -> Engine:
    options = EngineOptions(
        shares=(Fraction(1),) * 2,
        hosts=tuple(hosts),
        secret=SECRET,
        run=RunOptions(context=128),
    )
    with Folder.open(model) as folder:
        folder.path = Path("/on/the/controller") / model.name  # which no worker has
        return Engine.start(folder, options)


def test_workers_copies_are_compared(model: Path, two_machines: tuple[list[str], Path]) -> None:
    hosts, other = two_machines
    with start(model, hosts) as engine:
        found = engine.lineup.agreement
    assert found.same_file_bytes and found.compared_bytes and not found.uncompared_bytes
    for tensor in ("layers.1.down_proj", "layers.0.gate_proj"):
        damage(other, tensor, quarter=True)
    with pytest.raises(ValueError) as raised:
        start(model, hosts)
    assert str(raised.value).startswith("node 1 (127.0.0.1:")
    assert f"{other}/model.safetensors differs from this machine's copy" in str(raised.value)


def test_doctor_verifies_and_writes_a_manifest(model: Path, copy: Path, tmp_path: Path) -> None:
    run = ("run", copy, "--raw", "--prompt", "a", "--max-tokens", "2", "--json")
    before = bandweave(*run).json
    assert (
        before["plan"]["content"]["same_file_bytes"] > 0
        and not before["plan"]["content"]["manifest_bytes"]
    )
    done = bandweave("doctor", "--verify", copy, "--no-bandwidth", "--json").json
    assert done["model"]["manifest"] == str(copy / MANIFEST) and not done["model"]["damaged"]
    with_manifest = bandweave(*run).json
    assert with_manifest["logits_digest"] == before["logits_digest"]
    assert (
        with_manifest["plan"]["content"]["manifest_bytes"]
        == before["plan"]["content"]["same_file_bytes"]
    )
    damage(copy, "layers.0.down_proj")
    failed = bandweave(*run)
    assert (
        failed.status == 2 and "is damaged: its tensor model.layers.0.mlp.down_proj" in failed.err
    )
    again = bandweave("doctor", "--verify", copy, "--no-bandwidth")
    assert again.status == 1 and "down_proj" in again.out
    assert bandweave("run", model, *run[2:]).json["logits_digest"] == before["logits_digest"]
