"""How sums cross, in one hop or two, in chunks, exact or rounded: native = reference, always."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.executors.reference.wire import round_grid, round_rows
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import ODD_SPECS, random_source
from tests.helpers.reference_nodes import Book, ReferenceNodes

NAME = "ten_heads_of_8"  # 80 wide: a block of 64 and one of 16 a row
SPEC = ODD_SPECS[NAME]
SOURCE = random_source(SPEC, 3, bf16=True)
SPLITS = {
    "2": ((1, 1), 1),
    "3": ((1, 1, 1), 1),
    "5,1,2,2": ((5, 1, 2, 2), 1),
    "2x2": ((1,) * 4, 2),
    "7": ((1,) * 7, 1),
}
WAYS = {
    "usual": {},
    "scattered": {"hop_bytes": 0, "overlap_rows": 1000},
    "chunked": {"hop_bytes": 0, "overlap_rows": 5},
    "one hop in chunks": {"hop_bytes": 5000, "overlap_rows": 3},
}

Nodes = NativeNodes | ReferenceNodes


def conversation(engine: Nodes) -> bytes:
    """Logits of steps of 40, 2 and 17 rows."""
    tokens = np.random.default_rng(7).integers(0, SPEC.vocab_size, size=80).tolist()
    book = Book(num_sequences=2, pages_each=2)
    steps = [
        book.step([(0, tokens[:33]), (1, tokens[33:40])]),
        book.step([(0, tokens[40:41]), (1, tokens[41:42])]),
        book.step([(1, tokens[42:58]), (0, tokens[58:59])], all_logits=False),
    ]
    return b"".join(engine.run(step).tobytes() for step in steps)


_EXPECTED: dict[tuple[str, str], bytes] = {}


def expected(split: str, wire: str) -> bytes:
    if (split, wire) not in _EXPECTED:
        shares, stages = SPLITS[split] if split != "1" else ((1,), 1)
        with ReferenceNodes(
            SPEC, SOURCE, num_pages=4, shares=shares, stages=stages, wire=wire
        ) as nodes:
            _EXPECTED[split, wire] = conversation(nodes)
    return _EXPECTED[split, wire]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", ["exact", "bf16", "q8"])
@pytest.mark.parametrize("split", SPLITS)
def test_native_gives_the_reference_bytes(split: str, wire: str, way: str, threads: int) -> None:
    shares, stages = SPLITS[split]
    with NativeNodes(
        SPEC, SOURCE, num_pages=4, shares=shares, stages=stages, threads=threads,
        wire=wire, **WAYS[way],
    ) as nodes:  # fmt: skip
        got = conversation(nodes)
    assert got == expected("1" if wire == "exact" else split, wire)


@pytest.mark.parametrize(
    ("way", "split", "each"),
    [
        ("usual", "3", 1),  # exchanges a sum
        ("scattered", "2", 1),  # two nodes would send as much, in two hops
        ("scattered", "3", 2),
        ("one hop in chunks", "3", 4),
        ("chunked", "3", 8),
        ("chunked", "2", 4),
    ],
)
def test_sums_cross_the_way_they_should(way: str, split: str, each: int) -> None:
    shares, _ = SPLITS[split]
    with NativeNodes(SPEC, SOURCE, num_pages=4, shares=shares, **WAYS[way]) as nodes:
        book = Book(num_sequences=1, pages_each=2)
        nodes.run(book.step([(0, list(range(40)))]))
        bill = nodes.nodes[0].bill(decode=True)
    # The step's header, the embedding rows, the logits; and two sums a layer.
    assert bill["exchanges"] == 3 + each * 2 * SPEC.num_layers


@pytest.mark.parametrize(("nodes", "factor"), [(2, 1.0), (3, 0.75), (7, 0.45)])
def test_scattering_saves_what_the_formula_says(nodes: int, factor: float) -> None:
    sent = []
    for way in ("usual", "scattered"):
        with NativeNodes(
            SPEC, SOURCE, num_pages=4, shares=(1,) * nodes, **WAYS[way]
        ) as engine:  # fmt: skip
            book = Book(num_sequences=1, pages_each=2)
            engine.run(book.step([(0, list(range(40)))], all_logits=False))
        # Only once node 1 has ended its step, too, is the step on its bill.
        sent.append(engine.nodes[1].bill(decode=False)["activation_bytes"])
    # 2 / N, but for headers and tags, which weigh much at this size.
    assert sent[1] <= factor * sent[0]
    assert sent[1] >= 2 / nodes * sent[0] * 0.99


def test_rounding_shows_and_depends_on_the_split() -> None:
    answers = [expected(split, wire) for split in ("2", "3") for wire in ("exact", "bf16", "q8")]
    assert len(set(answers)) == 5  # exact ones are the same
    assert expected("1", "q8") == expected("1", "exact")


@given(st.lists(st.integers(-(2**62) + 1, 2**62 - 1), min_size=1, max_size=70), st.integers(0, 61))
def test_rounded_sums_are_close(values: list[int], shift: int) -> None:
    grid = np.array([values], np.int64) >> shift
    exact = grid.astype(np.float64)
    assert (round_grid(grid, "exact") == grid).all()
    bf16 = round_grid(grid, "bf16").astype(np.float64)
    assert (np.abs(bf16 - exact) <= np.abs(exact) * 2.0**-8 * 1.01).all()
    q8 = round_grid(grid, "q8").astype(np.float64)
    for start in range(0, grid.shape[1], 32):
        group = slice(start, start + 32)
        amax = np.abs(exact[:, group]).max()
        assert (np.abs(q8 - exact)[:, group] <= amax / 254 * 1.01 + 0.5).all()


@pytest.mark.parametrize("wire", ["bf16", "q8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_do_not_cross(wire: str, value: float) -> None:
    x = np.ones((2, 40), np.float32)
    x[1, 35] = value
    with pytest.raises(ValueError, match="not finite"):
        round_rows(x, wire)
