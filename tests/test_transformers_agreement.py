"""Logits against those of Hugging Face transformers, stored in ``transformers_reference``.

Weights and KV cache are float32, so that only the order of sums and the functions differ.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

import numpy as np
import pytest

from bandweave import _native
from bandweave.checkpoints.source import TensorSource
from bandweave.executors.executor import Step
from bandweave.models.spec import ModelSpec
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import F32, MemorySource
from tests.helpers.reference_nodes import Book, ReferenceNodes
from tests.transformers_reference import cases
from tests.transformers_reference.cases import CASES, NEW_TOKENS, PROMPT_LENGTHS, Case

TOLERANCE = 1e-4  # of the largest logit


class Engine(Protocol):
    """A model on one node."""

    def run(self, step: Step) -> F32: ...


MakeEngine = Callable[[ModelSpec, TensorSource, int], AbstractContextManager[Engine]]


def reference_engine(
    spec: ModelSpec, source: TensorSource, num_pages: int
) -> AbstractContextManager[Engine]:
    return ReferenceNodes(spec, source, weight_format="f32", kv_dtype="f32", num_pages=num_pages)


def native_engine(
    spec: ModelSpec, source: TensorSource, num_pages: int, *, isa: str
) -> AbstractContextManager[Engine]:
    return NativeNodes(
        spec, source, weight_format="f32", kv_format="f32", num_pages=num_pages, isa=isa
    )


# One variant of the kernels: the others give its very bits, as other tests see.
_FASTEST = _native.isa_variants()[0]
ENGINES: dict[str, MakeEngine] = {
    "reference": reference_engine,
    _FASTEST: partial(native_engine, isa=_FASTEST),
}


@pytest.fixture(params=ENGINES)
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    return ENGINES[request.param]


def stored(case: Case) -> tuple[F32, str]:
    with np.load(case.logits_path) as arrays:
        return arrays["logits"], str(arrays["digest"])


def own_logits(case: Case, make_engine: MakeEngine) -> F32:
    """The stored rows: all prompts in one step, then a step for each new token of all."""
    spec = case.spec()
    tokens = cases.sequences(case, spec.vocab_size)
    book = Book(num_sequences=len(tokens), pages_each=3)
    found: dict[tuple[int, int], F32] = {}
    with make_engine(spec, MemorySource(tensors=case.tensors()), book.num_pages) as engine:
        prompts = list(enumerate(sequence[:-NEW_TOKENS] for sequence in tokens))
        steps = [book.step(prompts)]
        for i in range(NEW_TOKENS):
            pairs = enumerate(zip(tokens, PROMPT_LENGTHS, strict=True))
            pieces = [(number, sequence[n + i : n + i + 1]) for number, (sequence, n) in pairs]
            steps.append(book.step(pieces))
        for step in steps:
            rows = zip(step.slots.tolist(), step.positions.tolist(), strict=True)
            found.update(zip(rows, engine.run(step), strict=True))
    return np.stack([found[row] for row in cases.stored_rows()])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_weights_are_those_that_the_logits_were_made_with(case: Case) -> None:
    assert cases.digest(case.tensors()) == stored(case)[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logits_agree_with_transformers(case: Case, make_engine: MakeEngine) -> None:
    expected, _ = stored(case)
    logits = own_logits(case, make_engine)
    assert logits.shape == expected.shape
    error = np.abs(logits - expected).max(axis=1) / np.abs(expected).max()
    worst = int(error.argmax())
    print(f"{case.name}: {error.max():.1e}")
    assert error.max() <= TOLERANCE, (cases.stored_rows()[worst], error.max())
