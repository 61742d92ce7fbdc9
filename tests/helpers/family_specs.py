"""Specs of families' tiny models, and of what no dense family has, for tests of one answer."""

from __future__ import annotations

from collections.abc import Mapping

from bandweave.models.spec import ModelSpec
from tests.helpers.random_model import tiny_spec
from tests.transformers_reference.cases import CASES
from tests.transformers_reference.family_cases import FAMILIES
from tests.transformers_reference.newer_cases import NEWER

FAMILY_SPECS: Mapping[str, ModelSpec] = {
    **{case.name: case.spec() for case in CASES if case.name in {**FAMILIES, **NEWER}},
    "sinks": tiny_spec(
        hidden_size=68, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=24,
        intermediate_size=150, vocab_size=301, sinks=True, score_cap=3.0, window=37, scale=0.3,
    ),
}  # fmt: skip
