"""Weight formats: values, bounds, refusals and the packed layout.

Suffixes: N outputs, K inputs.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.formats import bf16, packing
from bandweave.formats.groups import GROUP, Groups
from bandweave.formats.integers import zero_of
from bandweave.formats.matrix import Matrix, PlainMatrix, QuantisedMatrix
from bandweave.formats.names import QUANTISED_FORMATS
from bandweave.formats.q8 import round_half_away
from bandweave.formats.registry import FORMAT_NAMES, get_format
from tests.helpers.random_model import F32, bell

SHAPES = st.tuples(st.integers(1, 35), st.integers(1, 150), st.integers(1, 160))
SEEDS = st.integers(0, 2**32)
SCALES = st.sampled_from([1e-28, 1e-12, 1e-5, 0.02, 1.0, 3e4])


def weights(seed: int, shape: tuple[int, int], scale: float) -> F32:
    return bell(seed, "w", shape) * np.float32(scale)


@given(st.integers(1, 400), st.integers(1, 200))
def test_groups_cover_every_input_once(inputs: int, unit: int) -> None:
    groups = Groups(inputs=inputs, unit=unit)
    assert [k for group in groups.groups for k in group] == list(range(inputs))
    assert groups.count == len(groups.groups)
    for numbers, elements in zip(groups.groups_of_units, groups.units, strict=True):
        assert [k for g in numbers for k in groups.groups[g]] == list(elements)
    for group in groups.groups:
        assert len(group) <= GROUP
        assert group.start // unit == (group.stop - 1) // unit, "a group straddles two units"


@given(st.integers(1, 400), st.integers(1, 200))
def test_padding_and_unpadding(inputs: int, unit: int) -> None:
    groups = Groups(inputs=inputs, unit=unit)
    values = np.arange(1, 2 * inputs + 1, dtype=np.int32).reshape(2, inputs)
    padded = groups.pad(values, 0)
    assert padded.shape == (2, groups.count, GROUP)
    assert np.count_nonzero(padded) == values.size
    for g, group in enumerate(groups.groups):
        assert padded[1, g, : len(group)].tolist() == [inputs + k + 1 for k in group]
    assert np.array_equal(groups.unpad(padded), values)


@settings(deadline=None)
@given(SEEDS, SHAPES, SCALES)
def test_quantised_values_lie_near_the_weights(
    seed: int, shape: tuple[int, int, int], scale: float
) -> None:
    *size, unit = shape
    w_NK = weights(seed, (size[0], size[1]), scale)
    for name, steps, half in (
        ("q8", 127, 0.5), ("q4", 8, 1.0), ("mxfp4", 4, 1.0), ("nf4", 63, 10.0), ("ulaw4", 63, 17.0)
    ):  # fmt: skip
        matrix = get_format(name).quantise(w_NK, unit)
        assert isinstance(matrix, QuantisedMatrix)
        near_NK = get_format(name).dequantise(matrix)
        for g, group in enumerate(matrix.groups.groups):
            part = w_NK[:, group.start : group.stop].astype(np.float64)
            got = near_NK[:, group.start : group.stop].astype(np.float64)
            amax = np.abs(part).max(axis=1, keepdims=True)
            # Half a step, or a whole one where a book ends early; then the rounding of the scale,
            # which is relative for normal f16 and half of 2^-24 a step for subnormal ones. A scale
            # that cuts the largest weight off does so by an eighth at most, or by a quarter of
            # mxfp4's.
            step = amax / steps
            bound = step * half + steps * np.maximum(step * 2.0**-11, 2.0**-25)
            assert (np.abs(part - got) <= bound * 1.0001).all(), (name, g)


def test_q8_and_q4_by_hand() -> None:
    w_NK = np.array([[1.0, -2.0, 0.5, 2.0, 0.0]], dtype=np.float32)
    q8 = get_format("q8").quantise(w_NK, 5)
    assert isinstance(q8, QuantisedMatrix)
    assert q8.q_NK.tolist() == [[64, -127, 32, 127, 0]]  # 63.5 rounds away from zero
    assert q8.d_NG.tolist() == [[float(np.float16(np.float32(2) / np.float32(127)))]]
    q4 = get_format("q4").quantise(w_NK, 5)
    assert isinstance(q4, QuantisedMatrix)
    assert q4.d_NG.tolist() == [[0.25]]  # the first of the two largest is -2
    assert q4.q_NK.tolist() == [[12, 0, 10, 15, 8]]
    assert get_format("q4").dequantise(q4).tolist() == [[1.0, -2.0, 0.5, 1.75, 0.0]]


def test_q4_scale_is_negative_where_the_largest_weight_is_positive() -> None:
    matrix = get_format("q4").quantise(np.array([[2.0, -2.0]], dtype=np.float32), 2)
    assert isinstance(matrix, QuantisedMatrix)
    assert matrix.d_NG.tolist() == [[-0.25]] and matrix.q_NK.tolist() == [[0, 15]]


@pytest.mark.parametrize("name", QUANTISED_FORMATS)
def test_tiny_groups_are_zeros(name: str) -> None:
    below = np.nextafter(np.float32(2.0**-40), np.float32(0))
    w_NK = np.full((2, 70), below, dtype=np.float32)
    w_NK[1, 0] = 1.0
    matrix = get_format(name).quantise(w_NK, 40)
    assert isinstance(matrix, QuantisedMatrix)
    assert (matrix.d_NG.view(np.uint8) != 0).sum() in (1, 2)  # bytes of one scale
    assert (matrix.q_NK[0] == zero_of(name)).all()
    smallest = get_format(name).quantise(np.full((1, 3), 2.0**-40, dtype=np.float32), 3)
    assert isinstance(smallest, QuantisedMatrix)
    if name == "mxfp4":  # a byte of exponent reaches further than an f16
        assert (get_format(name).dequantise(smallest) == 2.0**-40).all()
        return
    assert (smallest.d_NG == 0).all()
    assert ((smallest.q_NK == zero_of(name)) == (name in ("nf4", "ulaw4"))).all()


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(name: str, bad: float) -> None:
    w_NK = np.ones((3, 40), dtype=np.float32)
    w_NK[2, 33] = bad
    with pytest.raises(ValueError, match=r"weight \[2, 33\]"):
        get_format(name).quantise(w_NK, 32)


def test_scales_beyond_float16_are_refused() -> None:
    w_NK = np.ones((2, 40), dtype=np.float32)
    for name, largest in (
        ("q8", 65520.0 * 127), ("q4", 65520.0 * 8), ("nf4", 65520.0 * 63), ("ulaw4", 65520.0 * 63)
    ):  # fmt: skip
        w_NK[1, 39] = largest
        with pytest.raises(ValueError, match="row 1, group 1"):
            get_format(name).quantise(w_NK, 40)
        w_NK[1, 39] = largest * 0.999
        get_format(name).quantise(w_NK, 40)
    w_NK[1, 39] = np.finfo(np.float32).max
    with pytest.raises(ValueError, match="is inf"):
        get_format("bf16").quantise(w_NK, 40)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_bf16_rounds_to_nearest_even(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    array = array[np.abs(array) < 3.38e38]
    rounded = bf16.from_bits(bf16.to_bits(array))
    for exact, got in zip(array.tolist(), rounded.tolist(), strict=True):
        bits = int(np.float32(exact).view(np.uint32)) & 0xFFFF0000
        down = float(np.uint32(bits).view(np.float32))
        up = float(np.uint32(bits + 0x10000).view(np.float32))
        low, high = abs(Fraction(exact) - Fraction(down)), abs(Fraction(up) - Fraction(exact))
        even_down = not bits & 0x10000
        assert got == (down if low < high or (low == high and even_down) else up)


def test_half_away_from_zero_is_exact_near_a_half() -> None:
    values = [0.5, -0.5, 0.49999997, -0.49999997, 1.5, 2.5, -2.5, 126.49999, 8388609.0, 0.0]
    expected = [1, -1, 0, 0, 2, 3, -3, 126, 8388609, 0]
    assert round_half_away(np.array(values, dtype=np.float32)).tolist() == expected


def test_bytes_per_weight() -> None:
    costs = {name: get_format(name).bytes_per_weight for name in FORMAT_NAMES}
    assert costs == {
        "q4": Fraction(9, 16), "q8": Fraction(17, 16), "mxfp4": Fraction(17, 32),
        "nf4": Fraction(9, 16), "ulaw4": Fraction(9, 16), "bf16": 2, "f32": 4,
    }  # fmt: skip
    with pytest.raises(ValueError, match="known are q4, q8, mxfp4, nf4, ulaw4, bf16, f32"):
        get_format("q5")


@settings(deadline=None, max_examples=40)
@given(SEEDS, SHAPES, st.sampled_from(FORMAT_NAMES))
def test_packing_and_unpacking(seed: int, shape: tuple[int, int, int], name: str) -> None:
    outputs, inputs, unit = shape
    matrix = get_format(name).quantise(weights(seed, (outputs, inputs), 0.1), unit)
    data = packing.pack(matrix)
    again = packing.unpack(data, format=name, outputs=outputs, inputs=inputs, unit=unit)
    if isinstance(matrix, PlainMatrix):
        assert isinstance(again, PlainMatrix)
        assert np.array_equal(matrix.w_NK, again.w_NK)
    else:
        assert isinstance(matrix, QuantisedMatrix) and isinstance(again, QuantisedMatrix)
        assert np.array_equal(matrix.q_NK, again.q_NK)
        assert matrix.d_NG.dtype == again.d_NG.dtype
        assert matrix.d_NG.tobytes() == np.ascontiguousarray(again.d_NG).tobytes()
    assert np.array_equal(packing.pack(again), data)


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize(("outputs", "inputs", "unit"), [(5, 7, 7), (33, 100, 80), (16, 64, 64)])
def test_packed_bytes_are_where_the_layout_says(
    name: str, outputs: int, inputs: int, unit: int
) -> None:
    matrix = get_format(name).quantise(weights(3, (outputs, inputs), 0.1), unit)
    expected = bytearray()
    for first in range(0, outputs, 16):
        if isinstance(matrix, PlainMatrix):
            for k in range(inputs):
                for n in range(first, first + 16):
                    value = matrix.w_NK[n, k] if n < outputs else np.float32(0)
                    stored = value.tobytes()
                    expected += stored if name == "f32" else stored[2:]
        else:
            assert isinstance(matrix, QuantisedMatrix)
            for g in range(matrix.groups.count):
                expected += quantised_block(matrix, first, g)
    assert packing.pack(matrix).tobytes() == bytes(expected)


def quantised_block(matrix: QuantisedMatrix, first: int, g: int) -> bytes:
    """One group of one panel, byte by byte."""
    zero, outputs = zero_of(matrix.format), len(matrix.q_NK)
    group = matrix.groups.groups[g]

    def element(n: int, i: int) -> int:
        return int(matrix.q_NK[n, group[i]]) if n < outputs and i < len(group) else zero

    block = bytearray()
    for n in range(first, first + 16):
        if matrix.format == "mxfp4":
            scale = float(matrix.d_NG[n, g]) if n < outputs else 0.0
            block.append(0 if scale == 0 else int(np.log2(scale)) + 127)
        else:
            block += matrix.d_NG[n, g].tobytes() if n < outputs else b"\0\0"
    for j in range(8 if matrix.format == "q8" else 4):
        for n in range(first, first + 16):
            for b in range(4):
                if matrix.format != "q8":
                    block.append(element(n, 4 * j + b) | element(n, 16 + 4 * j + b) << 4)
                else:
                    block.append(element(n, 4 * j + b) + 128)
    assert len(block) == {"q8": 544, "mxfp4": 272}.get(matrix.format, 288)
    return bytes(block)


def test_a_split_at_units_gives_the_same_integers() -> None:
    w_NK = weights(4, (9, 200), 0.3)
    for name in QUANTISED_FORMATS:
        whole: Matrix = get_format(name).quantise(w_NK, 24)
        part: Matrix = get_format(name).quantise(w_NK[:, 72:168].copy(), 24)
        assert isinstance(whole, QuantisedMatrix) and isinstance(part, QuantisedMatrix)
        assert np.array_equal(whole.q_NK[:, 72:168], part.q_NK)
        assert np.array_equal(whole.d_NG[:, 3:7], part.d_NG)
