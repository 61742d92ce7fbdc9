"""Figures as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1080.0, "1080"), (378.4, "378"), (99.96, "100"), (36.62, "36.6"), (20.0, "20"),
        (8.299, "8.3"), (0.0712, "0.0712"), (0.5, "0.5"), (0.000123, "0.000123"), (0.0, "0"),
        (9.999, "10"), (1.08e15, "1080000000000000"),
    ],
)  # fmt: skip
def test_figure(value: float, text: str) -> None:
    assert figures.figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.1e-4, "410 us"), (0.0351, "35.1 ms"), (1.243, "1.24 s"), (95.0, "95 s"), (119.0, "119 s"),
     (150.0, "2.5 min"), (712.0, "12 min"), (1040.0, "17 min"), (17191.0, "287 min"),
     (57_600.0, "16 h"), (864_000.0, "10 days")],
)  # fmt: skip
def test_seconds(seconds: float, text: str) -> None:
    assert figures.seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(1_026_410_000_000, "1.03 T"), (671_030_000_000, "671 B"), (8_030_000_000, "8.03 B"),
     (134_500_000, "134 M"), (512, "512"), (999_900_000_000, "1 T")],
)  # fmt: skip
def test_parameters(count: int, text: str) -> None:
    assert figures.parameters(count) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e18))
def test_no_exponents(value: float) -> None:
    for text in (figures.figure(value), figures.seconds(value), figures.parameters(value)):
        assert "e" not in text.replace("days", ""), text
    if value > 1e-8:
        assert float(figures.figure(value)) == pytest.approx(value, rel=0.006)
    assert re.fullmatch(r"[0-9.]+", figures.gib(value))
