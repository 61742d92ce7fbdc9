"""Shrunken models of every kind of family: they open, their sizes fit, one answer on two nodes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bandweave.checkpoints.folder import Folder
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.generation.request import Request
from bandweave.generation.sampling import SamplingParams
from bandweave.models.graph_op import WeightSpec
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.models.registry import build_graph
from bandweave.nodes.thread_launcher import ThreadLauncher
from bandweave.run_options import RunOptions
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape, shape_names
from bandweave.synth.spread import spread_of, weighing
from tests.helpers.command import bandweave

SMALL: dict[str, Any] = {
    "layers": 2, "hidden": 64, "heads": 4, "intermediate": 64, "vocab": 320, "context": 256,
}  # fmt: skip
EXPERTS: dict[str, Any] = {**SMALL, "experts": 8, "experts_per_token": 2, "expert_intermediate": 32}
HEADS: dict[str, Any] = {"kv_heads": 2, "head_dim": 16}

#: One of each kind, by name.
CASES: dict[str, dict[str, Any]] = {
    "gemma-3-1b": SMALL | {"layers": 6, "kv_heads": 1, "head_dim": 16},
    "phi-4": SMALL | HEADS,
    "olmo-2-7b": SMALL | {"kv_heads": 2},
    "qwen1.5-moe-a2.7b": EXPERTS | HEADS,
    "minimax-m2": EXPERTS | {"kv_heads": 2, "head_dim": 128},  # of which 64 are rotated
    "gpt-oss-20b": EXPERTS | HEADS,
    "glm-4.6": EXPERTS | HEADS,
    "deepseek-v2": EXPERTS,
    "deepseek-v3": EXPERTS,
    "qwen3-next-80b-a3b": EXPERTS | HEADS | {"layers": 4},
    "qwen3.5-27b": SMALL | HEADS | {"layers": 4},
}


@pytest.mark.parametrize("name", CASES)
def test_two_nodes_give_the_tokens_of_one(name: str, tmp_path: Path) -> None:
    shape = find_shape(name, **CASES[name])
    path = synthesise(shape, tmp_path / "m", 1)
    tokens = tuple(7 * index * index % 300 for index in range(40))
    request = Request(tokens=tokens, params=SamplingParams(temperature=0.0, max_tokens=4))
    found = []
    with Folder.open(path) as folder:
        # The files decide whether there is a layer that predicts further.
        assert folder.spec == replace(shape.spec(), further=folder.spec.further)
        for shares in ((1,), (2, 1)):
            options = EngineOptions(shares=shares, threads=1, run=RunOptions(context=64))  # type: ignore[arg-type]
            with Engine.start(folder, options, ThreadLauncher()) as engine:
                found.append(engine.generate([request], digest=True)[0])
    assert found[0].tokens == found[1].tokens and len(found[0].tokens) == 4
    assert found[0].digests == found[1].digests


def changed(name: str, **sizes: int) -> dict[str, Any]:
    shape = find_shape(name, **sizes)
    assert all(note.split(" ")[0] in shape.fields for note in shape.notes)
    return dict(shape.fields)


def test_layers_keep_a_mixture() -> None:
    assert changed("deepseek-v3", layers=4, experts=64)["first_k_dense_replace"] == 3
    for layers in (1, 2, 3):
        shape = find_shape("deepseek-v3", layers=layers)
        assert isinstance(shape.spec().layers[-1].mlp, MixtureSpec)
        assert shape.notes == (f"first_k_dense_replace is {layers - 1} instead of 3",)
    kinds = changed("gpt-oss-20b", layers=30)["layer_types"]
    assert kinds == ["sliding_attention", "full_attention"] * 15
    assert changed("gpt-oss-20b", layers=3)["layer_types"] == kinds[:3]


def test_groups_follow_experts() -> None:
    groups = {
        experts: tuple(changed("deepseek-v3", experts=experts)[name]
                       for name in ("n_group", "topk_group"))
        for experts in (128, 64, 12, 8)
    }  # fmt: skip
    assert groups == {128: (8, 4), 64: (8, 4), 12: (3, 2), 8: (1, 1)}
    assert find_shape("deepseek-v3", experts=64).notes == ()
    assert find_shape("deepseek-v3", experts=12).notes == (
        "n_group is 3 instead of 8", "topk_group is 2 instead of 4",
    )  # fmt: skip


def test_heads_and_widths_follow() -> None:
    assert changed("llama-3-8b", heads=4, hidden=64)["num_key_value_heads"] == 1
    assert changed("llama-3-8b", heads=16, hidden=64)["num_key_value_heads"] == 8
    assert changed("gemma-3-27b", heads=12)["num_key_value_heads"] == 6
    fields = changed("qwen3.5-27b", heads=6)
    assert (fields["linear_num_key_heads"], fields["linear_num_value_heads"]) == (4, 12)
    fields = changed("qwen1.5-moe-a2.7b", expert_intermediate=352)
    assert fields["shared_expert_intermediate_size"] == 4 * 352
    assert changed("mixtral-8x7b", expert_intermediate=96)["intermediate_size"] == 96


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("deepseek-v3", {"experts": 4}, "num_experts_per_tok is 8, but n_routed_experts is 4"),
        ("llama-3-8b", {"experts": 4}, "has no experts"),
        ("deepseek-v3", {"head_dim": 64}, "has latent attention"),
        ("deepseek-v3", {"kv_heads": 8}, "has latent attention"),
    ],
)
def test_sizes_that_a_model_does_not_have(name: str, sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        find_shape(name, **sizes)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{name} with ")


def test_every_shape_shrinks() -> None:
    for name in shape_names():
        for layers in (1, 2, 5):
            assert find_shape(name, layers=layers).spec().num_layers == layers
        experts = find_shape(name).size("experts")
        if experts is not None:
            mixtures = [one.mlp for one in find_shape(name, experts=experts // 2).spec().layers]
            assert isinstance(mixtures[-1], MixtureSpec)
            assert mixtures[-1].num_experts == experts // 2


def test_nothing_of_a_release_that_was_not_written_is_said() -> None:
    config = find_shape("deepseek-v3", **EXPERTS).config()
    assert "quantization_config" not in config and "num_nextn_predict_layers" not in config


def test_the_command_says_what_followed(tmp_path: Path) -> None:
    sizes = ("--layers", "2", "--hidden", "64", "--heads", "2", "--intermediate", "64", "--experts",
             "12", "--expert-intermediate", "16", "--vocab", "320")  # fmt: skip
    done = bandweave("synth", "deepseek-v3", tmp_path / "m", *sizes, "--json")
    assert done.json["notes"] == [
        "first_k_dense_replace is 1 instead of 3",
        "n_group is 3 instead of 8",
        "topk_group is 2 instead of 4",
    ]
    assert done.json["config"]["n_routed_experts"] == 12
    done = bandweave("synth", "deepseek-v3", tmp_path / "n", *sizes)
    assert "the sizes fit together, n_group is 3 instead of 8" in done.err
    done = bandweave("synth", "tiny", tmp_path / "o", "--experts", "4")
    assert done.status == 2 and len(done.err.splitlines()) == 1
    assert "experts cannot be changed; the model has no experts" in done.err


def spread(name: str, part: str) -> tuple[float, float]:
    spec = find_shape(name, **CASES[name]).spec()
    weight = next(one for one in weights(name) if one.name.endswith(part))
    return spread_of(spec, weight)


def weights(name: str) -> list[WeightSpec]:
    return build_graph(find_shape(name, **CASES[name]).spec()).weights()


def test_spreads() -> None:
    assert spread("gemma-3-1b", "post_norm") == (0.0, 0.02)  # which 1 is added to
    assert spread("phi-4", "post_norm") == (1.0, 0.02)
    assert spread("gpt-oss-20b", "sinks") == (0.0, 1.0)
    assert spread("gpt-oss-20b", "down_proj.bias") == (0.0, 0.02)
    assert spread("deepseek-v3", "router.correction") == (0.0, 0.02)
    assert spread("deepseek-v3", "router") == (0.0, 1 / math.sqrt(64))


@pytest.mark.parametrize("name", ["deepseek-v2", "deepseek-v3", "gpt-oss-20b", "minimax-m2"])
def test_what_experts_add_is_as_large_as_a_dense_block_s(name: str) -> None:
    spec = find_shape(name, **CASES[name]).spec()
    mixture = spec.layers[-1].mlp
    assert isinstance(mixture, MixtureSpec)
    _, routed = spread(name, "1.experts.0.down_proj")
    added = (routed * weighing(mixture)) ** 2 * mixture.intermediate_size
    if mixture.shared_size:
        _, shared = spread(name, "1.shared_expert.down_proj")
        added += shared**2 * mixture.shared_size
    assert added == pytest.approx(1 / (2 * spec.num_layers))
