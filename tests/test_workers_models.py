"""What workers find under --models, what they share of a host, and what a command needs itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.engine.model_search import find_model
from bandweave.host.machine import usable_cpus
from tests.helpers.command import Command, bandweave, start_command

ASK = ("--prompt", "What is 17 + 25?", "--max-tokens", "8", "--json")


def poison(root: Path) -> list[str]:
    """Folders beside a model that are no models, each in a way of its own."""
    config = json.loads((demo_folder() / "config.json").read_text())

    def put(name: str, text: str) -> None:
        (root / name).mkdir()
        (root / name / "config.json").write_text(text)

    put("layers", json.dumps({**config, "num_hidden_layers": 2_000_000_000}))
    put("theta", json.dumps(config).replace("10000", "1" + "0" * 400))
    put("nothing", "")
    put("list", "[1, 2]")
    put("deep", "[" * 100_000)
    put("binary", "\0\1\2")
    put("other", json.dumps({"architectures": ["T5ForConditionalGeneration"]}))
    put("types", json.dumps({**config, "num_attention_heads": [1], "rope_scaling": 3}))
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / "config.json")
    (root / "loop").symlink_to(root / "loop")
    (root / "file").write_text("no folder")
    shutil.copytree(demo_folder(), root / "cut")
    with open(root / "cut" / "model.safetensors", "r+b") as file:
        file.truncate(5000)
    return [path.name for path in root.iterdir()]


def test_one_bad_folder_does_not_stop_a_search(tmp_path: Path) -> None:
    poison(tmp_path)
    said: list[str] = []
    with Folder.open(demo_folder()) as folder:
        fingerprint = folder.fingerprint()
    with pytest.raises(CheckpointError, match="has no copy of /elsewhere/demo"):
        find_model("/elsewhere/demo", fingerprint, [tmp_path], said.append)
    assert any("cut" in sentence for sentence in said)  # its config is the model's
    shutil.copytree(demo_folder(), tmp_path / "zzz")  # the last that is looked at
    with find_model("/elsewhere/demo", fingerprint, [tmp_path], said.append) as found:
        assert found.path.name == "zzz"
    with pytest.raises(CheckpointError, match="is cut short"):
        find_model("/elsewhere/cut", fingerprint, [tmp_path / "cut"], said.append)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """``--hosts`` and ``--token-file`` of two workers of this machine, which have the demo model
    among other folders under their --models."""
    token, models = tmp_path / "token", tmp_path / "models"
    assert bandweave("worker", "--make-token", token).status == 0
    models.mkdir()
    poison(models)
    shutil.copytree(demo_folder(), models / "a copy")
    listen = ("worker", "--listen", "127.0.0.1:0", "--token-file", token, "--models", models)
    with ExitStack() as stack:
        hosts = [
            listening(stack.enter_context(start_command(*listen))) for _ in range(2)
        ]  # fmt: skip
        yield ("--hosts", ",".join(hosts), "--token-file", str(token))


def listening(worker: Command) -> str:
    stream: Any = worker.process.stderr
    line = b""
    while b"listening on" not in line or not line.endswith(b"\n"):
        byte = stream.read(1)
        assert byte, line
        line += byte
    return line.decode().rpartition("listening on ")[2].strip()


def test_a_command_needs_no_weights_of_its_own(workers: tuple[str, ...], tmp_path: Path) -> None:
    light = tmp_path / "light"
    shutil.copytree(demo_folder(), light)
    (light / "model.safetensors").unlink()
    found = bandweave("run", light, *ASK, *workers).json
    alone = bandweave("run", "demo", *ASK).json
    assert found["logits_digest"] == alone["logits_digest"]
    # Nobody but the workers has the weights: what both read was compared, the rest could not be.
    content = found["plan"]["content"]
    assert content["compared_bytes"] > 0 and content["uncompared_bytes"] > 0
    shown = bandweave("run", light, *ASK[:-1], "--verbose", *workers)
    assert "with nothing, since nobody else has them" in shown.err
    without = bandweave("run", light, *ASK)
    assert without.status == 2 and "has neither model.safetensors nor" in without.err


def test_workers_of_one_host_share_out_its_processors(workers: tuple[str, ...]) -> None:
    found = bandweave("run", "demo", *ASK, *workers).json
    each = max(1, len(usable_cpus()) // 2)
    assert [node["threads"] for node in found["plan"]["nodes"]] == [each, each]
    chosen = bandweave("run", "demo", *ASK, *workers, "--threads", "1").json
    assert [node["threads"] for node in chosen["plan"]["nodes"]] == [1, 1]
