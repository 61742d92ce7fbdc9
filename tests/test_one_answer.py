"""One answer: N nodes, any shares, stages, threads and variants give one node's bytes."""

from __future__ import annotations

import numpy as np
import pytest

from bandweave import _native
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import ODD_SPECS, random_source
from tests.helpers.reference_nodes import Book

SPLITS = {
    "2": ((1, 1), 1),
    "3": ((1, 1, 1), 1),
    "5": ((1,) * 5, 1),
    "7": ((1,) * 7, 1),
    "3,2,1": ((3, 2, 1), 1),
    "5,1": ((5, 1), 1),
    "stages 2": ((1, 1), 2),
    "stages 3": ((1, 1, 1), 3),
    "stages 2x2": ((1, 1, 1, 1), 2),
}
_SINGLE: dict[tuple[str, str], np.ndarray] = {}


def answer(engine: NativeNodes, vocab: int, chunk: int) -> np.ndarray:
    tokens = np.random.default_rng(3).integers(0, vocab, size=90).tolist()
    book = Book(num_sequences=1, pages_each=2)
    logits = [
        engine.run(book.step([(0, tokens[at : min(at + chunk, 80)])])) for at in range(0, 80, chunk)
    ]
    logits += [engine.run(book.step([(0, [token])])) for token in tokens[80:]]
    return np.concatenate(logits)


def single(name: str, weight_format: str) -> np.ndarray:
    if (name, weight_format) not in _SINGLE:
        spec = ODD_SPECS[name]
        source = random_source(spec, 5)
        with NativeNodes(spec, source, weight_format=weight_format, num_pages=2) as engine:
            _SINGLE[name, weight_format] = answer(engine, spec.vocab_size, 80)
    return _SINGLE[name, weight_format]


@pytest.mark.parametrize("weight_format", ["q4", "q8", "bf16", "f32"])
@pytest.mark.parametrize("name", ODD_SPECS)
@pytest.mark.parametrize("split", SPLITS)
def test_split(split: str, name: str, weight_format: str) -> None:
    shares, stages = SPLITS[split]
    spec = ODD_SPECS[name]
    if stages > spec.num_layers:
        pytest.skip("more stages than layers")
    index = list(SPLITS).index(split) + list(ODD_SPECS).index(name)
    variants = _native.isa_variants()
    with NativeNodes(
        spec,
        random_source(spec, 5),
        weight_format=weight_format,
        num_pages=2,
        shares=shares,
        stages=stages,
        threads=1 + index % 2,
        isa=variants[index % len(variants)],
    ) as engine:
        got = answer(engine, spec.vocab_size, (1, 7, 64, 80)[index % 4])
    assert got.tobytes() == single(name, weight_format).tobytes()
