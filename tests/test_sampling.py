"""The sampler against a plain reading of docs/numerics.md, section 7, and Philox's vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.executors.reference import math as reference_math
from bandweave.generation import sampling
from bandweave.generation.philox import philox4x32, uniform
from bandweave.generation.sampling import NoTokenError, SamplingParams, sample

FULL = 0xFFFFFFFF


# From kat_vectors of the Random123 library.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox(counter: tuple, key: tuple, expected: tuple) -> None:
    assert philox4x32(counter, key) == expected


def test_uniform() -> None:
    w0, w1, _, _ = philox4x32((5, 1, 7, 0), (3, 2))
    assert uniform(seed=(2 << 32) + 3, choice=7, position=(1 << 32) + 5) == (
        ((w0 >> 5) * 2**26 + (w1 >> 6)) / 2**53
    )
    values = [uniform(0, 0, position) for position in range(2000)]
    assert min(values) >= 0 and max(values) < 1
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
    for arguments in [(-1, 0, 0), (1 << 64, 0, 0), (0, -1, 0), (0, 1 << 32, 0), (0, 0, -1)]:
        with pytest.raises(ValueError, match="must be from 0"):
            uniform(*arguments)


def by_the_book(
    logits: np.ndarray,
    params: SamplingParams,
    prompt: list[int],
    answer: list[int],
    position: int,
    choice: int = 0,
) -> int:
    """Section 7, one id after the other."""
    z = [np.float32(value) for value in logits]
    f32 = np.float32
    for token in set(prompt + answer):
        repetition = f32(params.repetition_penalty)
        z[token] = z[token] / repetition if z[token] > 0 else z[token] * repetition
        count = answer.count(token)
        if count:
            z[token] = z[token] - f32(params.frequency_penalty) * f32(count)
            z[token] = z[token] - f32(params.presence_penalty)
    if params.temperature == 0:
        return max(range(len(z)), key=lambda i: (z[i], -i))
    z = [value / f32(params.temperature) for value in z]
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))
    if params.top_k:
        order = order[: params.top_k]
    m = z[order[0]]
    exps = reference_math.exp(np.array([value - m for value in z], np.float32))
    w = {i: float(exps[i]) for i in order}

    def chunk_sums(kept: list[int]) -> list[float]:
        sums = [0.0] * (len(z) // 256 + 1)
        for i in sorted(kept):
            sums[i // 256] += w[i]
        return sums

    total = 0.0
    for value in chunk_sums(order):
        total += value
    kept, running = [], 0.0
    for i in order:
        kept.append(i)
        running += w[i]
        if params.top_p < 1 and running >= params.top_p * total:
            break
    if params.min_p:
        kept = [i for i in kept if f32(w[i]) >= f32(params.min_p)]
    sums, total = chunk_sums(kept), 0.0
    for value in sums:
        total += value
    target, running = uniform(params.seed, choice, position) * total, 0.0
    for chunk, value in enumerate(sums):
        if target >= running + value:
            running += value
            continue
        for i in sorted(i for i in kept if i // 256 == chunk):
            running += w[i]
            if running > target:
                return i
        break
    return max(kept)


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.1, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 40, 1000]),
    top_p=st.sampled_from([1e-9, 0.1, 0.5, 0.9, 0.999999, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 0.01, 0.3, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.7, -0.3]),
    presence_penalty=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, (1 << 64) - 1),
)


@given(
    params=PARAMS,
    size=st.sampled_from([1, 2, 7, 255, 256, 257, 700]),
    generator_seed=st.integers(0, 1000),
    levels=st.sampled_from([0, 1, 3]),
    position=st.integers(0, 1 << 33),
    data=st.data(),
)
def test_equals_a_plain_reading(
    params: SamplingParams,
    size: int,
    generator_seed: int,
    levels: int,
    position: int,
    data: st.DataObject,
) -> None:
    generator = np.random.default_rng(generator_seed)
    logits = (generator.standard_normal(size) * 4).astype(np.float32)
    if levels:  # many ties
        logits = np.rint(logits / 4 * levels).astype(np.float32)
    tokens = st.lists(st.integers(0, size - 1), max_size=8)
    prompt, answer = data.draw(tokens), data.draw(tokens)
    choice = data.draw(st.sampled_from([0, 3]))
    before = logits.copy()
    chosen = sample(logits, params, prompt, np.array(answer, np.int32), position, choice)
    assert chosen == by_the_book(logits, params, prompt, answer, position, choice)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("first", [1, 8, 100])
def test_top_p_that_needs_a_longer_prefix(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_FIRST_PREFIX", first)
    logits = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    for position in range(30):
        params = SamplingParams(top_p=0.97, seed=4)
        assert sample(logits, params, [], [], position) == (
            by_the_book(logits, params, [], [], position)
        )


@pytest.mark.parametrize("params", [SamplingParams(temperature=0), SamplingParams(top_k=1),
                                    SamplingParams(top_p=1e-12)])  # fmt: skip
def test_ties_go_to_the_lowest_id(params: SamplingParams) -> None:
    logits = np.full(1000, -1, np.float32)
    logits[[999, 301, 300, 700]] = 2
    assert sample(logits, params, [], [], 0) == 300
    logits[:] = 0.0
    logits[:5] = -0.0  # minus zero is zero
    assert sample(logits, params, [], [], 0) == 0


def test_frequencies_follow_the_softmax() -> None:
    probabilities = np.array([0.5, 0.25, 0.15, 0.1])
    logits = np.log(probabilities).astype(np.float32)
    drawn = [sample(logits, SamplingParams(seed=1), [], [], n) for n in range(4000)]
    shares = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(shares, probabilities, atol=0.03)
    drawn = [sample(logits, SamplingParams(seed=1, top_p=0.7), [], [], n) for n in range(1000)]
    np.testing.assert_allclose(np.bincount(drawn) / 1000, [2 / 3, 1 / 3], atol=0.05)
    assert {sample(logits, SamplingParams(min_p=0.4), [], [], n) for n in range(200)} == {0, 1}


def test_answer_depends_on_seed_choice_and_position_only() -> None:
    logits = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    first = [sample(logits, SamplingParams(seed=9), [1], [2], n) for n in range(50)]
    assert first == [sample(logits, SamplingParams(seed=9), [7], [], n) for n in range(50)]
    assert first != [sample(logits, SamplingParams(seed=8), [1], [2], n) for n in range(50)]
    assert first != [sample(logits, SamplingParams(seed=9), [1], [2], n, 1) for n in range(50)]


def test_penalties_in_order() -> None:
    logits = np.array([3.0, -1.0, 2.0, 0.0], np.float32)
    params = SamplingParams(
        temperature=0, repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25
    )
    penalised = sampling.penalised(logits, params, [1, 2, 2], [0, 0])
    assert penalised.tolist() == [3.0 / 2 - 0.5 * 2 - 0.25, -2.0, 1.0, 0.0]
    assert sample(logits, params, [1, 2, 2], [0, 0], 5) == 2
    assert sampling.penalised(logits, SamplingParams(), [1], [0]) is logits


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_ruled_out_tokens_are_never_chosen(u: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "uniform", lambda seed, choice, position: u)
    logits = np.full(600, -np.inf, np.float32)
    logits[[3, 300]] = [1.0, 1.5]
    for params in (SamplingParams(), SamplingParams(top_k=50), SamplingParams(top_p=0.999)):
        assert sample(logits, params, [], [], 0) == (3 if u == 0.0 else 300)
    params = SamplingParams(repetition_penalty=1.2, frequency_penalty=1.0)
    assert sample(logits, params, [0, 1], [1, 2], 0) in (3, 300)


def test_the_last_kept_id_where_rounding_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "uniform", lambda seed, choice, position: 1.0)
    logits = np.full(600, -np.inf, np.float32)
    logits[[3, 300]] = [1.0, 1.5]
    assert sample(logits, SamplingParams(), [], [], 0) == 300
    assert sample(logits, SamplingParams(top_k=5), [], [], 0) == 300


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_fail_the_step(temperature: float) -> None:
    params = SamplingParams(temperature=temperature)
    logits = np.zeros(300, np.float32)
    logits[200] = np.nan
    with pytest.raises(NoTokenError, match="NaN"):
        sample(logits, params, [], [], 0)
    with pytest.raises(NoTokenError, match="position 17 .*rule out every token"):
        sample(np.full(300, -np.inf, np.float32), params, [], [], 17)
    logits[200] = np.inf
    if temperature:
        with pytest.raises(NoTokenError, match="not finite"):
            sample(logits, params, [], [], 0)


def test_extreme_but_finite_logits() -> None:
    logits = np.array([-3e38, 3e38, -3e38], np.float32)
    assert sample(logits, SamplingParams(temperature=10.0), [], [], 0) == 1
    assert sample(logits / 1e10, SamplingParams(temperature=1e-8), [], [], 0) == 1
    with pytest.raises(NoTokenError, match="not finite"):
        sample(logits, SamplingParams(temperature=0.1), [], [], 0)


def test_exp_is_the_one_given() -> None:
    def flat(values: np.ndarray) -> np.ndarray:
        assert values.dtype == np.float32 and values.max() == 0
        return np.ones_like(values)

    logits = np.array([0.0, 100.0], np.float32)
    drawn = {sample(logits, SamplingParams(), [], [], n, exp=flat) for n in range(50)}
    assert drawn == {0, 1}


@pytest.mark.parametrize(
    "logits",
    [np.zeros((2, 3), np.float32), np.zeros(3, np.float64), np.zeros(0, np.float32)],
)
def test_logits_of_the_wrong_kind(logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one float32 row"):
        sample(logits, SamplingParams(), [], [], 0)


def test_tokens_outside_of_the_vocabulary() -> None:
    params = SamplingParams(presence_penalty=1.0)
    for prompt, answer in (([5], []), ([], [-1])):
        with pytest.raises(ValueError, match="5 logits"):
            sample(np.zeros(5, np.float32), params, prompt, answer, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf),
        ("temperature", 1e-9), ("temperature", "1"), ("temperature", 10**400),
        ("top_k", -1), ("top_k", 1.0), ("top_k", True),
        ("top_p", 0), ("top_p", 1.01), ("top_p", None), ("min_p", -0.1), ("min_p", 1.1),
        ("repetition_penalty", 0), ("repetition_penalty", -1), ("frequency_penalty", math.nan),
        ("presence_penalty", 1e5), ("seed", -1), ("seed", 1 << 64), ("seed", 0.5),
        ("max_tokens", 0), ("max_tokens", 1 << 31), ("stop", "x"), ("stop", ("",)),
        ("stop", ["x"]),
    ],
)  # fmt: skip
def test_parameters_that_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} is "):
        SamplingParams(**{field: value})
