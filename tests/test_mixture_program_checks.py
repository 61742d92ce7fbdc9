"""Rules of the operations of mixtures, latent attention and what families add: each has a program
that breaks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from bandweave.executors.executor import ExecutorOptions
from bandweave.executors.native import NativeExecutor
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.programs.lowering import lower
from bandweave.programs.program import Program
from bandweave.programs.split import make_split
from bandweave.weights.loading import load_weights
from bandweave.weights.packed import Weights
from tests.helpers.family_specs import FAMILY_SPECS
from tests.helpers.random_model import ODD_SPECS, random_source
from tests.test_program_checks import changed

OPTIONS = ExecutorOptions(num_pages=4, max_pages=4, max_rows=16, spin=False)
SPECS: Mapping[str, ModelSpec] = {**ODD_SPECS, **FAMILY_SPECS}
GROUPED, BIASED, LATENT = "grouped_experts", "biased_experts", "latent_queries"
GRANITE, GEMMA, COHERE, OLMO = "granite", "gemma2", "cohere2", "olmo2"
NAN = float("nan")


@cache
def made(name: str) -> tuple[Program, Weights]:
    spec = SPECS[name]
    program = lower(build_graph(spec), make_split(spec, (1,)), 0)
    return program, load_weights(program, random_source(spec, 3), "f32")


def refusal(name: str, program: Program) -> str:
    with pytest.raises(ValueError) as caught:
        NativeExecutor(program, made(name)[1], OPTIONS)
    return str(caught.value)


WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    (GROUPED, "route", {"experts": 0, "vector": None}, "so many experts are not believed"),
    (GROUPED, "route", {"experts": 1 << 15, "vector": None}, "so many experts are not believed"),
    (GROUPED, "route", {"top_k": 0}, "chooses more experts than there are"),
    (GROUPED, "route", {"top_k": 9}, "chooses more experts than there are"),
    (GROUPED, "route", {"scoring": 3}, "scores in a way that is unknown"),
    (GROUPED, "route", {"group_score": 2}, "scores in a way that is unknown"),
    (GROUPED, "route", {"shared": 3}, "scores in a way that is unknown"),
    (GROUPED, "route", {"normalise": 2}, "scores in a way that is unknown"),
    (GROUPED, "route", {"groups": 0}, "do not share out its experts"),
    (GROUPED, "route", {"groups": 3}, "do not share out its experts"),
    (GROUPED, "route", {"top_groups": 0}, "do not share out its experts"),
    (GROUPED, "route", {"top_groups": 5}, "do not share out its experts"),
    (GROUPED, "route", {"groups": 8, "top_groups": 8}, "groups have too few experts"),
    (GROUPED, "route", {"top_groups": 1}, "groups have too few experts"),
    (GROUPED, "route", {"a": {"width": 7}}, "logits are not one for each expert"),
    (GROUPED, "route", {"out": {"width": 6}}, "routes are not one for each chosen expert"),
    (GROUPED, "route", {"factor": NAN}, "a number is not finite"),
    (GROUPED, "route", {"vector": "norm"}, "its vector has another size"),
    (GROUPED, "expert_linear", {"top_k": 0}, "routes are not one for each chosen expert"),
    (GROUPED, "expert_linear", {"top_k": 2}, "routes are not one for each chosen expert"),
    (GROUPED, "expert_linear", {"b": {"width": 7}}, "routes are not one for each chosen expert"),
    (BIASED, "expert_linear", {"shared_width": 1}, "its shared expert has no route"),
    (GROUPED, "expert_linear", {"matrices": (None,) * 3}, "chooses more experts than there are"),
    (GROUPED, "expert_linear", {"width": 98}, "its experts do not make its width"),
    (GROUPED, "expert_linear", {"b": {"buffer": "expert_gate_up"}}, "writes over its routes"),
    (
        BIASED,
        "expert_linear",
        {"vector": "norm", "biases": 68},
        "biases are not one for each output",
    ),
    (BIASED, "expert_linear", {"vector": "norm"}, "its vector has another size"),
    (GROUPED, "expert_mul", {"width": 51}, "its experts do not make its width"),
    (GROUPED, "expert_mul", {"shared_width": 0}, "its experts do not make its width"),
    (GROUPED, "expert_mul", {"function": 99}, "the function of its gate is unknown"),
    (BIASED, "expert_mul", {"limit": 0.0}, "the bounds of its gate are out of range"),
    (BIASED, "expert_mul", {"alpha": 2.0**21}, "the bounds of its gate are out of range"),
    (GROUPED, "expert_grid", {"width": 51}, "its experts do not make its width"),
    (GROUPED, "expert_grid", {"top_k": 5}, "routes are not one for each chosen expert"),
    (
        BIASED,
        "expert_grid",
        {"vector": "norm", "biases": 68},
        "biases are not one for each output",
    ),
    (GROUPED, "expert_grid", {"out": {"buffer": "x"}}, "another kind of number"),
    (LATENT, "head_linear", {"matrices": ()}, "its heads do not make its width"),
    (LATENT, "head_linear", {"matrices": (None,) * 5}, "a matrix does not exist"),
    (LATENT, "latent_append", {"cache": 99}, "its KV cache does not exist"),
    (LATENT, "latent_attention", {"cache": 99}, "its KV cache does not exist"),
    (LATENT, "latent_attention", {"scale": NAN}, "a number is not finite"),
    (GRANITE, "scale", {"factor": 0.0}, "its factor is out of range"),
    (GRANITE, "scale", {"factor": 2.0**21}, "its factor is out of range"),
    (GRANITE, "scale", {"a": {"width": 1}}, "its views have other widths"),
    (GRANITE, "add", {"factor": 2.0**-21}, "its factor is out of range"),
    (GRANITE, "add", {"b": {"width": 1}}, "its views have other widths"),
    (GEMMA, "soft_cap", {"cap": 0.0}, "its bound is out of range"),
    (GEMMA, "soft_cap", {"cap": 2.0**21}, "its bound is out of range"),
    (GEMMA, "attention", {"cap": 2.0**21}, "the bound of its scores is out of range"),
    (COHERE, "layer_norm", {"vector": None}, "a vector does not exist"),
    (COHERE, "layer_norm", {"a": {"width": 1}}, "do not make its width"),
    (OLMO, "square_sums", {"skip": 99}, "it leaves its columns"),
    (OLMO, "square_sums", {"end": 1 << 20}, "its sums leave their buffer"),
    (OLMO, "square_sums", {"begin": 5, "end": 5}, "its sums leave their buffer"),
    (OLMO, "norm_by_sums", {"end": 1 << 20}, "its sums leave their buffer"),
    (OLMO, "norm_by_sums", {"vector": None}, "a vector does not exist"),
]


@pytest.mark.parametrize(("name", "kind", "changes", "words"), WRONG)
def test_an_operation_that_does_not_fit_is_refused(
    name: str, kind: str, changes: Mapping[str, Any], words: str
) -> None:
    program = changed(made(name)[0], kind, **changes)
    op = next(op.name for op in program.ops if op.kind == kind)
    sentence = refusal(name, program)
    assert sentence.startswith(f"operation {op} does not fit its program: "), sentence
    assert words in sentence, sentence


def test_matrices_of_another_shape_are_refused() -> None:
    """Of one expert, or of one head."""
    for name, kind, other in (
        (GROUPED, "expert_linear", "layers.1.experts.0.down_proj"),
        (GROUPED, "expert_grid", "layers.1.experts.0.gate_up"),
        (LATENT, "head_linear", "layers.0.o_proj"),
    ):
        program = made(name)[0]
        own = next(op for op in program.ops if op.kind == kind).names("matrices")
        wrong = changed(program, kind, matrices=(other, *own[1:]))
        assert "a matrix has another shape" in refusal(name, wrong)


def test_caches_of_another_kind_are_refused() -> None:
    for name, latent, words in (
        (GROUPED, True, "KV cache"),
        (LATENT, False, "its keys and values have other widths"),
    ):
        program = made(name)[0]
        first, *others = program.caches
        heads = {"kv_heads": 1} if latent else {}
        caches = (replace(first, latent=latent, **heads), *others)
        sentence = refusal(name, replace(program, caches=caches))
        assert words in sentence, sentence
