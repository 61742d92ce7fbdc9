"""The reference executor: the same bytes however the work is split, chunked or batched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from bandweave.executors.executor import StepError
from bandweave.executors.reference.weights import load_reference
from bandweave.formats.registry import FORMAT_NAMES
from tests.helpers.random_model import F32, ODD_SPECS, MemorySource, random_source, random_tensors
from tests.helpers.reference_nodes import Book, ReferenceNodes

SEED = 7
LENGTHS = (70, 5, 21)  # tokens of three sequences; the first goes beyond a page of 64
NEW_TOKENS = 3


@cache
def source(name: str) -> MemorySource:
    return random_source(ODD_SPECS[name], SEED)


def tokens_of(name: str, sequence: int) -> list[int]:
    count = LENGTHS[sequence] + NEW_TOKENS
    return [(37 * i + 11 * sequence + 5) % ODD_SPECS[name].vocab_size for i in range(count)]


def answer(
    name: str,
    *,
    weight_format: str = "q4",
    kv_dtype: str = "f16",
    shares: Sequence[int] = (1,),
    stages: int = 1,
) -> F32:
    """Logits of every prompt's last row, then of each decoding step of all three together."""
    book = Book(num_sequences=len(LENGTHS), pages_each=2)
    rows = []
    with ReferenceNodes(
        ODD_SPECS[name],
        source(name),
        weight_format=weight_format,
        kv_dtype=kv_dtype,
        num_pages=book.num_pages,
        shares=shares,
        stages=stages,
    ) as nodes:
        sequences = [tokens_of(name, sequence) for sequence in range(len(LENGTHS))]
        prompts = [tokens[:-NEW_TOKENS] for tokens in sequences]
        rows.append(nodes.run(book.step(list(enumerate(prompts)), all_logits=False)))
        for i in range(NEW_TOKENS):
            new = [
                tokens[len(prompt) + i :][:1]
                for tokens, prompt in zip(sequences, prompts, strict=True)
            ]
            rows.append(nodes.run(book.step(list(enumerate(new)))))
    logits = np.concatenate(rows)
    assert np.isfinite(logits).all()
    return logits


@cache
def one_node(name: str, weight_format: str, kv_dtype: str) -> F32:
    return answer(name, weight_format=weight_format, kv_dtype=kv_dtype)


def same_bytes(left: F32, right: F32) -> bool:
    return np.array_equal(left.view(np.uint32), right.view(np.uint32))


SPLITS = [
    ((1, 1), 1),
    ((1, 1, 1), 1),
    ((1, 1, 1, 1, 1), 1),
    ((1, 1, 1, 1, 1, 1, 1), 1),
    ((3, 2, 1), 1),
    ((5, 1), 1),
    ((1, 1), 2),
    ((1, 1, 1), 3),
    ((1, 1, 1, 1), 2),
    ((2, 1, 1), 2),
]


@pytest.mark.parametrize(("shares", "stages"), SPLITS)
def test_every_split_gives_the_bytes_of_one_node(shares: tuple[int, ...], stages: int) -> None:
    name = "ten_heads_of_8"
    expected = one_node(name, "q4", "f16")
    assert same_bytes(answer(name, shares=shares, stages=stages), expected)


MODELS_AND_FORMATS = [
    *((name, "q4") for name in ODD_SPECS),
    *(("biases", weight_format) for weight_format in FORMAT_NAMES if weight_format != "q4"),
    *(("qk_norm_window", weight_format) for weight_format in ("q8", "bf16")),
]


@pytest.mark.parametrize(("name", "weight_format"), MODELS_AND_FORMATS)
def test_every_model_and_format_splits(name: str, weight_format: str) -> None:
    kv_dtype = "f32" if weight_format in ("f32", "q8") else "f16"
    expected = one_node(name, weight_format, kv_dtype)
    got = answer(
        name, weight_format=weight_format, kv_dtype=kv_dtype, shares=(1, 2, 1, 1), stages=2
    )
    assert same_bytes(got, expected)


def test_a_window_crosses_pages() -> None:
    spec = ODD_SPECS["qk_norm_window"]
    tokens = [(31 * i + 3) % spec.vocab_size for i in range(150)]

    def last(pieces: Sequence[int], window: int | None) -> F32:
        book = Book(num_sequences=1, pages_each=3)
        attention = replace(spec.heads, window=window)
        layers = tuple(replace(one, attention=attention) for one in spec.layers)
        changed = replace(spec, layers=layers)
        with ReferenceNodes(changed, source("qk_norm_window"), num_pages=3) as nodes:
            start, logits = 0, np.empty((0, 0), dtype=np.float32)
            for size in pieces:
                logits = nodes.run(book.step([(0, tokens[start : start + size])]))[-1:]
                start += size
        return logits

    whole = last([150], 37)
    assert same_bytes(last([64, 64, 22], 37), whole)
    assert not same_bytes(last([150], None), whole)
    assert same_bytes(last([150], 150), last([150], None))


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_prefill_in_chunks_gives_the_bytes_of_one_piece(chunk: int) -> None:
    name = "ten_heads_of_8"
    tokens = tokens_of(name, 0)

    def run(chunk: int) -> F32:
        book = Book(num_sequences=1, pages_each=2)
        with ReferenceNodes(ODD_SPECS[name], source(name), num_pages=2) as nodes:
            pieces = [tokens[i : i + chunk] for i in range(0, len(tokens), chunk)]
            return np.concatenate([nodes.run(book.step([(0, piece)])) for piece in pieces])

    assert same_bytes(run(chunk), run(len(tokens)))


def test_a_batch_gives_the_bytes_of_each_sequence_alone() -> None:
    name = "biases"
    together = one_node(name, "q4", "f16").reshape(1 + NEW_TOKENS, len(LENGTHS), -1)
    for sequence in range(len(LENGTHS)):
        book = Book(num_sequences=1, pages_each=2)
        tokens = tokens_of(name, sequence)
        with ReferenceNodes(ODD_SPECS[name], source(name), num_pages=2) as nodes:
            logits = nodes.run(book.step([(0, tokens)]))[-1 - NEW_TOKENS :]
        assert same_bytes(logits, np.ascontiguousarray(together[:, sequence]))


def test_a_step_may_mix_prefill_and_decoding_rows_and_ask_for_no_logits() -> None:
    name = "ten_heads_of_8"
    first, second = tokens_of(name, 0), tokens_of(name, 1)
    book = Book(num_sequences=2, pages_each=2)
    with ReferenceNodes(ODD_SPECS[name], source(name), num_pages=4, shares=(2, 1)) as nodes:
        silent = replace(
            book.step([(0, first[:-1])]), wants_logits=np.zeros(len(first) - 1, dtype=np.bool_)
        )
        assert nodes.run(silent).shape == (0, ODD_SPECS[name].vocab_size)
        mixed = nodes.run(book.step([(1, second), (0, first[-1:])], all_logits=False))
    expected = one_node(name, "q4", "f16").reshape(1 + NEW_TOKENS, len(LENGTHS), -1)[-1]
    assert same_bytes(mixed, expected[[1, 0]])


def test_bf16_checkpoints_load() -> None:
    spec = ODD_SPECS["partial_rope"]
    stored = random_source(spec, SEED, bf16=True)
    step_of = lambda: Book(num_sequences=1, pages_each=1).step([(0, [1, 2, 3])])  # noqa: E731
    with ReferenceNodes(spec, stored, weight_format="bf16", num_pages=1) as nodes:
        expected = nodes.run(step_of())
    widened = MemorySource(tensors=stored.tensors)
    with ReferenceNodes(spec, widened, weight_format="f32", num_pages=1) as nodes:
        assert same_bytes(nodes.run(step_of()), expected)


@pytest.mark.parametrize("shares", [(1,), (2, 1, 1)])
@pytest.mark.parametrize(
    ("tensor", "factor", "weight_format", "message"),
    [
        ("layers.1.v_proj", 1e6, "q8", r"^layers\.1\.attention\.kv: .* float16"),
        ("layers.1.down_proj", 1e9, "f32", r"^layers\.1\.down_proj: .* 2\^51"),
        ("layers.1.post_norm", 1e38, "q4", r"^layers\.1\.(gate_up_proj|gated_mul|down_proj): .*"),
    ],
)
def test_numbers_out_of_range_fail_the_step_on_every_node(
    shares: tuple[int, ...], tensor: str, factor: float, weight_format: str, message: str
) -> None:
    spec = ODD_SPECS["ten_heads_of_8"]
    tensors = random_tensors(spec, SEED)
    tensors[tensor] = tensors[tensor] * np.float32(factor)
    assert np.isfinite(tensors[tensor]).all()
    broken = MemorySource(tensors=tensors)
    with ReferenceNodes(
        spec, broken, weight_format=weight_format, num_pages=1, shares=shares
    ) as nodes:
        step = Book(num_sequences=1, pages_each=1).step([(0, [1, 2, 3])])
        with pytest.raises(StepError, match=message):
            nodes.run(step)
    assert len(nodes.errors) == len(shares) - 1
    for error in nodes.errors:
        assert re.search(message, str(error))


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("layers.0.k_proj", np.nan, r"^layers\.0\.k_proj holds"),
        ("layers.0.k_proj", 1e30, r"^layers\.0\.k_proj: .*beyond float16"),
        ("layers.0.down_proj", np.inf, r"^layers\.0\.down_proj"),
        ("layers.0.down_proj", 1e30, r"^layers\.0\.down_proj: .*beyond float16"),
        ("norm", np.nan, r"^norm holds"),
    ],
)
def test_weights_out_of_range_are_refused_by_name(tensor: str, value: float, message: str) -> None:
    spec = ODD_SPECS["ten_heads_of_8"]
    tensors = random_tensors(spec, SEED)
    tensors[tensor] = tensors[tensor].copy()
    tensors[tensor].flat[17] = value
    with ReferenceNodes(spec, random_source(spec, SEED), num_pages=1) as nodes:
        program = nodes.nodes[0].program
    with pytest.raises(ValueError, match=message):
        load_reference(program, MemorySource(tensors=tensors), "q4")
