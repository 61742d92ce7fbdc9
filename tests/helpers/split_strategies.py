"""Hypothesis strategies: models of any small size, and any way to split them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from bandweave.models.mlp_spec import MixtureSpec, RouterSpec
from bandweave.models.rope import RopeSpec
from bandweave.models.spec import ModelSpec
from tests.helpers.random_model import hybrid, mixed, tiny_spec

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
    """A model of sizes that are multiples of nothing; some have mixtures of experts behind some
    dense layers, some latent attention, some both, some layers with recurrent states."""
    kv_heads = draw(st.integers(1, 6))
    flags = ("tied_embeddings", "qkv_bias", "output_bias", "mlp_bias")
    spec = tiny_spec(
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
    mlp = draw(mixtures()) if draw(st.booleans()) else spec.layers[0].mlp
    latent = draw(latents()) if draw(st.integers(0, 3)) == 0 else {}
    spec = mixed(spec, dense=draw(st.integers(0, 2)), mlp=mlp, **latent)
    if latent or draw(st.integers(0, 3)):
        return spec
    return hybrid(spec, every=draw(st.integers(1, 4)), **draw(states()))


@st.composite
def states(draw: st.DrawFn) -> dict[str, int]:
    """Fields of gated delta nets."""
    key_heads = draw(st.integers(1, 12))
    return {
        "key_heads": key_heads,
        "value_heads": key_heads * draw(st.integers(1, 3)),
        "key_dim": draw(st.integers(1, 20)),
        "value_dim": draw(st.integers(1, 20)),
        "conv_kernel": draw(st.integers(1, 5)),
    }


@st.composite
def mixtures(draw: st.DrawFn) -> MixtureSpec:
    """Experts in groups of one to three."""
    each, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    top_groups = draw(st.integers(1, groups))
    return MixtureSpec(
        num_experts=each * groups,
        top_k=draw(st.integers(1, each * top_groups)),
        intermediate_size=draw(st.integers(1, 200)),
        shared_size=draw(st.sampled_from([0, 1, 70, 300])),
        shared_gate=draw(st.booleans()),
        bias=draw(st.booleans()),
        router=RouterSpec(
            groups=groups,
            top_groups=top_groups,
            logit_bias=draw(st.booleans()),
            correction=draw(st.booleans()),
            normalise=draw(st.booleans()),
        ),
    )


@st.composite
def latents(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of latent attention."""
    rope_dim = 2 * draw(st.integers(1, 6))
    fields = ("num_heads", "kv_rank", "nope_dim", "v_dim")
    return {
        **{field: draw(st.integers(1, 20)) for field in fields},
        "q_rank": draw(st.one_of(st.none(), st.integers(1, 20))),
        "rope_dim": rope_dim,
        "rope": RopeSpec(rotary_dim=rope_dim, interleaved=draw(st.booleans())),
    }
