"""Every family gives one answer however it is split, and the reference's bytes.

Two cases a family of what ``tests.exhaustive`` has many of; there ``family_cases`` draws more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pytest

from bandweave import _native
from tests.exhaustive.cases import Case, family_cases
from tests.exhaustive.runner import Runner
from tests.helpers.family_specs import FAMILY_SPECS
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import MemorySource, random_source
from tests.helpers.reference_nodes import Book, ReferenceNodes

CASES = family_cases(2)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, vars(case).values())))
def test_a_family_gives_the_answer_of_one_node(runner: Runner, case: Case) -> None:
    answer = runner.answer(case)
    assert answer == runner.baseline(case)
    assert [len(tokens) for tokens in answer.tokens] == [6, 6]


@pytest.mark.parametrize("isa", _native.isa_variants())
@pytest.mark.parametrize("name", FAMILY_SPECS)
def test_a_family_gives_the_reference_bytes(name: str, isa: str) -> None:
    """The reference in three unequal nodes and one row at a time in the end, the native executor in
    two with two threads."""
    native = NativeNodes(
        FAMILY_SPECS[name], source(name), weight_format="q8", shares=(2, 1), threads=2, isa=isa
    )
    assert logits(name, native) == reference(name)


def source(name: str) -> MemorySource:
    return random_source(FAMILY_SPECS[name], 3)


@lru_cache
def reference(name: str) -> bytes:
    nodes = ReferenceNodes(FAMILY_SPECS[name], source(name), weight_format="q8", shares=(3, 2, 1))
    return logits(name, nodes)


def logits(name: str, nodes: NativeNodes | ReferenceNodes) -> bytes:
    vocabulary = FAMILY_SPECS[name].vocab_size
    tokens = np.random.default_rng(5).integers(0, vocabulary, size=80).tolist()
    book = Book(num_sequences=1, pages_each=2)
    with nodes as engine:
        steps = [book.step([(0, tokens[:77])]), book.step([(0, tokens[77:78])])]
        return b"".join(engine.run(step).tobytes() for step in steps)
