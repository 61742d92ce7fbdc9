"""No subnormal is ever reached: threads that flush them to zero give the reference's bytes, from
models full of tiny numbers too (docs/numerics.md, section 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave import _native
from bandweave.executors.executor import Step, StepError
from bandweave.models.mlp_spec import SIGMOID, SOFTMAX_OF_CHOSEN, MixtureSpec, RouterSpec
from bandweave.models.registry import build_graph
from bandweave.models.rope import RopeSpec
from bandweave.models.spec import ModelSpec
from tests.exhaustive.cases import covering_array
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import ODD_SPECS, MemorySource, mixed, random_tensors, tiny_spec
from tests.helpers.reference_nodes import Book, ReferenceNodes
from tests.helpers.tiny_numbers import KINDS, tiny_source

FORMATS = ("f32", "bf16", "q8", "q4", "mxfp4")
# Every pair of a model, a format and a variant.
CASES = [
    *covering_array(
        {"name": list(ODD_SPECS), "weight_format": FORMATS[:4], "isa": _native.isa_variants()},
        set(),
    ),
    *(
        {"name": name, "weight_format": weight_format, "isa": isa}
        for isa in _native.isa_variants()
        for name, weight_format in (
            ("biases", "mxfp4"), ("latent_gated_expert", "nf4"), ("grouped_experts", "ulaw4"),
        )
    ),
]  # fmt: skip
SPLITS = {"1": ((1,), 1), "2,1": ((2, 1), 1), "2 stages": ((1, 1), 2)}

Nodes = NativeNodes | ReferenceNodes


def conversation(engine: Nodes, vocab: int) -> bytes:
    """A prompt that passes a page of keys, then decoding, then some rows together."""
    tokens = np.random.default_rng(7).integers(0, vocab, size=160).tolist()
    book = Book(num_sequences=2, pages_each=2)
    steps = [
        book.step([(0, tokens[:66]), (1, tokens[66:71])]),
        book.step([(0, tokens[71:72])]),
        book.step([(1, tokens[72:75]), (0, tokens[75:80])]),
    ]
    return answer(engine, steps)


def few_rows(engine: Nodes, vocab: int) -> bytes:
    book = Book(num_sequences=1, pages_each=1)
    return answer(engine, [book.step([(0, [token % vocab for token in range(5, 90, 17)])])])


def answer(engine: Nodes, steps: list[Step]) -> bytes:
    """The logits, or the operation that failed."""
    try:
        with np.errstate(all="ignore"):
            logits = np.concatenate([engine.run(step) for step in steps])
    except StepError as error:
        return f"failed in {str(error).split(':')[0]}".encode()
    return np.where(np.isnan(logits), np.float32(np.nan), logits).tobytes()


@pytest.mark.parametrize("isa", _native.isa_variants())
def test_the_golden_digests_do_not_depend_on_subnormals(isa: str) -> None:
    assert _native.golden(isa, flush_to_zero=True) == _native.golden(isa)


def test_flushing_shows_where_a_subnormal_is_reached() -> None:
    """The switch works: the kernels' exponential, whose subnormals the host's sampler may use."""
    x = np.array([-88.0], dtype=np.float32)
    assert _native.exp(x, "portable")[0, 0] > 0
    for isa in _native.isa_variants():
        assert _native.exp(x, isa, flush_to_zero=True)[0, 0] == 0


@pytest.mark.parametrize(("name", "weight_format", "isa"), [tuple(case.values()) for case in CASES])
def test_a_flushing_machine_gives_the_reference_bytes(
    name: str, weight_format: str, isa: str
) -> None:
    spec = ODD_SPECS[name]
    kv = "f32" if weight_format in ("f32", "q4") else "f16"
    source = tiny_source(random_tensors(spec, 3), {}, 3)
    with ReferenceNodes(
        spec, source, weight_format=weight_format, kv_dtype=kv, num_pages=4
    ) as oracle:
        expected = conversation(oracle, spec.vocab_size)
    with NativeNodes(
        spec, source, weight_format=weight_format, kv_format=kv, num_pages=4, isa=isa, threads=2,
        flush_to_zero=True,
    ) as engine:  # fmt: skip
        assert conversation(engine, spec.vocab_size) == expected


@pytest.mark.parametrize("eps", [1e-5, 1e-41, 1e-60])  # normal, subnormal and zero as float32
@pytest.mark.parametrize("weight_format", ["f32", "q8"])
def test_embedding_rows_of_any_size(weight_format: str, eps: float) -> None:
    """A norm makes large what was tiny, and an epsilon that is none hides nothing of it."""
    spec = tiny_spec(hidden_size=48, num_layers=1, vocab_size=40, norm_eps=eps)
    usual = random_tensors(spec, 5)
    answers = set()
    for exponent in range(-150, -20, 4):
        embedding = np.ldexp(usual["embed_tokens"], exponent)
        source = MemorySource(tensors={**usual, "embed_tokens": embedding})
        with ReferenceNodes(spec, source, weight_format=weight_format, num_pages=2) as oracle:
            expected = few_rows(oracle, spec.vocab_size)
        with NativeNodes(
            spec, source, weight_format=weight_format, num_pages=2, flush_to_zero=True
        ) as engine:
            assert few_rows(engine, spec.vocab_size) == expected, exponent
        answers.add(expected)
    assert len(answers) > 3


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A model by what hypothesis chose; ``kinds`` by tensor."""

    spec: ModelSpec
    kinds: dict[str, str]
    seed: int


MIXTURES = (
    MixtureSpec(
        num_experts=4, top_k=2, intermediate_size=70, shared_size=30, shared_gate=True, bias=True
    ),
    MixtureSpec(
        num_experts=4, top_k=2, intermediate_size=40, shared_size=30,
        router=RouterSpec(
            scoring=SIGMOID, correction=True, groups=2, top_groups=1, normalise=True, factor=2.5
        ),
    ),
    MixtureSpec(
        num_experts=3, top_k=2, intermediate_size=40, bias=True,
        router=RouterSpec(scoring=SOFTMAX_OF_CHOSEN, logit_bias=True),
    ),
)  # fmt: skip
LATENT = {
    "num_heads": 3, "q_rank": 20, "kv_rank": 24, "nope_dim": 10, "rope_dim": 4, "v_dim": 9,
    "norm_eps": 1e-30, "rope": RopeSpec(rotary_dim=4),
}  # fmt: skip


@st.composite
def tiny_models(draw: Callable) -> TinyModel:
    spec = tiny_spec(
        family=draw(st.sampled_from(["llama", "qwen3"])),
        hidden_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=draw(st.sampled_from([1, 2])),
        head_dim=12,
        intermediate_size=100,
        vocab_size=40,
        norm_eps=draw(st.sampled_from([1e-5, 1e-12, 1e-30, 1e-41])),
        qkv_bias=draw(st.booleans()),
        output_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        window=draw(st.sampled_from([None, 30])),
        # The last ones make sines that are subnormal and beyond.
        rope=RopeSpec(rotary_dim=12, theta=draw(st.sampled_from([1e4, 1e20, 1e60, 1e280]))),
    )
    mlp = draw(st.sampled_from([spec.layers[0].mlp, *MIXTURES]))
    spec = mixed(spec, mlp=mlp, **draw(st.sampled_from([{}, {}, LATENT])))
    names = [weight.name for weight in build_graph(spec).weights()]
    kinds = {name: draw(st.sampled_from(KINDS)) for name in names}
    return TinyModel(spec=spec, kinds=kinds, seed=draw(st.integers(0, 2**32)))


@pytest.mark.parametrize("weight_format", FORMATS)
@settings(max_examples=6)
@given(
    model=tiny_models(),
    kv=st.sampled_from(["f16", "f32"]),
    split=st.sampled_from(list(SPLITS)),
    wire=st.sampled_from(["exact", "bf16", "q8"]),
    bf16=st.booleans(),
)
def test_models_of_tiny_numbers_give_one_answer_on_a_flushing_machine(
    weight_format: str, model: TinyModel, kv: str, split: str, wire: str, bf16: bool
) -> None:
    spec = model.spec
    source = tiny_source(random_tensors(spec, model.seed), model.kinds, model.seed, bf16=bf16)
    shares, stages = SPLITS[split]
    with ReferenceNodes(
        spec, source, weight_format=weight_format, kv_dtype=kv, num_pages=4, shares=shares,
        stages=stages, wire=wire,
    ) as oracle:  # fmt: skip
        expected = conversation(oracle, spec.vocab_size)
    for isa in _native.isa_variants():
        with NativeNodes(
            spec, source, weight_format=weight_format, kv_format=kv, num_pages=4, shares=shares,
            stages=stages, wire=wire, isa=isa, flush_to_zero=True,
        ) as engine:  # fmt: skip
            assert conversation(engine, spec.vocab_size) == expected
