"""What users get wrong, and models that are damaged: one sentence, and exit status 2."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bandweave.checkpoints.resolve import demo_folder
from tests.helpers.command import bandweave, sentence

SHORT = ("--prompt", "What is 17 + 25?", "--max-tokens", "60")

MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "no such model": (("run", "./none", *SHORT), "does not exist"),
    "a hub's name": (("run", "some-org/some-model", *SHORT), "HF_HUB_OFFLINE"),
    "no such command": (("rum",), "rum"),
    "no such option": (("run", "demo", "--nodess", "2"), "--nodess"),
    "no model": (("run",), "MODEL"),
    "two prompts": (("run", "demo", "--prompt", "a", "--prompt-file", "b"), "choose one"),
    "an empty prompt": (("run", "demo", "--prompt", " "), "empty"),
    "no such prompt file": (("run", "demo", "--prompt-file", "none.txt"), "none.txt"),
    "system without chat": (("run", "demo", *SHORT, "--raw", "--system", "s"), "--raw"),
    "shares of letters": (("run", "demo", *SHORT, "--shares", "x"), "'x' is not a number"),
    "shares of nothing": (("run", "demo", *SHORT, "--shares", "1,,2"), "'' is not a number"),
    "a share beyond measure": (("run", "demo", *SHORT, "--shares", "1e99999999,1"), "number"),
    "a share of zero": (("run", "demo", *SHORT, "--shares", "1,0"), "above zero"),
    "a share too small": (("run", "demo", *SHORT, "--shares", "100,1"), "node 1 with nothing"),
    "shares and nodes": (("run", "demo", *SHORT, "--shares", "1,2", "--nodes", "3"), "says 3"),
    "no nodes": (("run", "demo", *SHORT, "--nodes", "0"), "--nodes"),
    "too many stages": (("run", "demo", *SHORT, "--nodes", "2", "--stages", "3"), "3 stages"),
    "no such format": (("run", "demo", *SHORT, "--format", "q3"), "q3"),
    "no such wire format": (("run", "demo", *SHORT, "--wire", "q4"), "q4"),
    "no such link": (("run", "demo", *SHORT, "--nodes", "2", "--emulate-link", "thunderbold-4-tcp"),
                     "did you mean thunderbolt-4-tcp"),
    "a link of one node": (("run", "demo", *SHORT, "--emulate-link", "wifi"), "--nodes 2"),
    "a link of no bandwidth": (("run", "demo", *SHORT, "--nodes", "2", "--emulate-link",
                                "latency=1ms,bandwidth=0B/s"), "it must be above 0"),
    "no such KV format": (("run", "demo", *SHORT, "--kv", "q4"), "q4"),
    "no such kernels": (("run", "demo", *SHORT, "--isa", "mmx"), "mmx"),
    "hosts without a token": (("run", "demo", *SHORT, "--hosts", "a:1"), "--token-file"),
    "a context too long": (("run", "demo", *SHORT, "--context", "5000"), "1024"),
    "a prompt too long": (("run", "demo", *SHORT, "--context", "8"), "--context"),
    "a negative temperature": (("run", "demo", *SHORT, "--temperature", "-1"), "--temperature is"),
    "an empty stop": (("run", "demo", *SHORT, "--stop", ""), "--stop is empty"),
    "no tokens": (("run", "demo", "--prompt", "a", "--max-tokens", "0"), "--max-tokens is 0"),
    "no such shape": (("synth", "tinyy", "/tmp/none"), "did you mean tiny"),
    "a shape that cannot be": (("synth", "tiny", "/tmp/none", "--kv-heads", "3"), "3 KV heads"),
    "a bench too long": (("bench", "demo", "--prompt-tokens", "2000"), "1024"),
    "a worker without a token": (("worker", "--listen", "127.0.0.1:0"), "--make-token"),
    "an empty question": (("demo", "--question", ""), "--question"),
}  # fmt: skip


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the demo model, to be damaged."""
    return Path(shutil.copytree(demo_folder(), tmp_path / "model"))


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_a_sentence(name: str) -> None:
    arguments, words = MISTAKES[name]
    assert words in sentence(bandweave(*arguments))


def test_text_that_is_not_utf8() -> None:
    assert "not UTF-8" in sentence(bandweave("run", "demo", text=b"\xff\xfe"))


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)


def put_nan(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = {  # bf16 is nothing that numpy knows: any dtype that can be read will do
        name: np.zeros(_shape(value), np.float32) for name, value in _header(weights).items()
    }
    tensors["model.layers.1.mlp.up_proj.weight"][700, 3] = np.nan
    save_file(tensors, weights)
    assert load_file(weights)


def _header(weights: Path) -> dict[str, Any]:
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: value for name, value in header.items() if name != "__metadata__"}


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    return tuple(entry["shape"])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "safetensors"),
    "cut weights": (truncate, "model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "another config": (lambda f: change_config(f, intermediate_size=1024), "has shape"),
    "another family": (lambda f: change_config(f, architectures=["GPT2LMHeadModel"]), "GPT2LM"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
    "NaN": (put_nan, "model.layers.1.mlp.up_proj.weight|layers.1.up_proj"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_models_end_in_a_sentence(copied: Path, name: str) -> None:
    damage, words = DAMAGES[name]
    damage(copied)
    done = bandweave("run", copied, *SHORT, "--nodes", "2")
    assert re.search(words, sentence(done))


def test_too_little_memory_is_said_before_anything_is_loaded(copied: Path) -> None:
    change_config(copied, max_position_embeddings=10**9)
    done = bandweave("run", copied, *SHORT, "--context", str(10**9), "--nodes", "2")
    assert "--context" in sentence(done) and "GB" in done.err


def test_debug_shows_the_traceback() -> None:
    done = bandweave("run", "./none", *SHORT, BANDWEAVE_DEBUG="1")
    assert done.status == 2 and "Traceback" in done.err
