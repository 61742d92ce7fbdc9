"""Hypothesis strategies: models of any small size, and any way to split them."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from bandweave.models.spec import ModelSpec
from tests.helpers.random_model import tiny_spec

any_share = st.one_of(
    st.integers(1, 100).map(Fraction),
    st.fractions(min_value=Fraction(1, 50), max_value=50, max_denominator=60),
)


def share_vectors() -> st.SearchStrategy[list[Fraction]]:
    """1 to 16 shares, half of the vectors of equal ones."""
    equal = st.integers(1, 16).map(lambda count: [Fraction(1)] * count)
    return st.one_of(equal, st.lists(any_share, min_size=1, max_size=16))


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Fraction], int]:
    """Shares and a number of stages, now and then more than there are nodes."""
    shares = draw(share_vectors())
    return shares, draw(st.integers(1, len(shares) + 1))


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """A model of sizes that are multiples of nothing."""
    kv_heads = draw(st.integers(1, 6))
    flags = ("tied_embeddings", "qkv_bias", "output_bias", "mlp_bias")
    return tiny_spec(
        hidden_size=draw(st.integers(1, 70)),
        num_layers=draw(st.integers(1, 9)),
        num_heads=kv_heads * draw(st.integers(1, 4)),
        num_kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 10)),
        intermediate_size=draw(st.integers(1, 700)),
        vocab_size=draw(st.integers(1, 1500)),
        qk_norm=draw(st.sampled_from(["", "head"])),
        **{flag: draw(st.booleans()) for flag in flags},
    )
