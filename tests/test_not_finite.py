"""An answer whose logits leave the range of numbers ends alone; its company never notices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from bandweave import _native
from bandweave.executors.executor import PAGE_SIZE
from bandweave.generation.generator import Generator
from bandweave.generation.request import Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.ngram_drafter import NgramDrafter
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.random_model import ODD_SPECS, MemorySource, random_tensors
from tests.helpers.reference_nodes import Book, ReferenceNodes

SPEC = ODD_SPECS["heads_of_80"]
LOUD = 311  # the token whose logit is so large that some answers cannot hold it
GREEDY = SamplingParams(temperature=0.0, max_tokens=6)
WARM = SamplingParams(temperature=0.8, top_p=0.9, seed=5, max_tokens=6)
PROMPTS = [
    tuple((37 * i * i + 11 * n + 5) % SPEC.vocab_size for i in range(4 + n)) for n in range(6)
]


@cache
def source(scale: float) -> MemorySource:
    tensors = random_tensors(SPEC, 7)
    tensors["lm_head"][LOUD] *= np.float32(scale)
    return MemorySource(tensors=tensors)


def answers(
    prompts: Sequence[tuple[int, ...]],
    params: SamplingParams,
    *,
    scale: float,
    shares: Sequence[int] = (1,),
    digest: bool = False,
    speculate: bool = False,
) -> list[Result]:
    nodes = NativeNodes(SPEC, source(scale), weight_format="f32", num_pages=12, shares=shares)
    with nodes:
        generator = Generator(
            nodes.nodes[0],
            lambda tokens: nodes.embeddings[tokens],
            num_pages=12,
            context=PAGE_SIZE,
            max_rows=64,
            vocab_size=SPEC.vocab_size,
            exp=lambda values: _native.exp(values).reshape(-1),
            speculation=Speculation(NgramDrafter(), adaptive=False) if speculate else None,
        )
        requests = [Request(tokens=tokens, params=params) for tokens in prompts]
        results = generator.run(requests, digest=digest)
        assert not nodes.errors
        # And the engine goes on.
        assert generator.run(requests[:1], reuse=False)[0].tokens == results[0].tokens
        return results


@cache
def loudness() -> float:
    """A factor at which some of the prompts fail and others do not."""
    for power in np.arange(36, 40, 0.1):
        reasons = [one.reason for one in answers(PROMPTS, GREEDY, scale=float(10**power))]
        if 0 < reasons.count("error") < len(reasons):
            return float(10**power)
    raise AssertionError("all prompts are as loud as each other")


def heart(result: Result) -> tuple[object, ...]:
    return result.tokens, result.reason, result.error, result.logits_digest


@pytest.mark.parametrize("shares", [(1,), (2, 1), (1, 1, 3)])
@pytest.mark.parametrize(
    ("params", "digest", "speculate"),
    [(GREEDY, False, False), (GREEDY, True, False), (WARM, True, False), (GREEDY, False, True)],
)
def test_one_ends_alone(
    shares: tuple[int, ...], params: SamplingParams, digest: bool, speculate: bool
) -> None:
    scale = loudness()
    together = answers(
        PROMPTS, params, scale=scale, shares=shares, digest=digest, speculate=speculate
    )
    for tokens, found in zip(PROMPTS, together, strict=True):
        (alone,) = answers([tokens], params, scale=scale, digest=digest)
        assert heart(found) == heart(alone)
        assert (found.reason == "error") == bool(found.error)
        if found.error:
            position = len(tokens) + len(found.tokens)
            assert found.error.startswith(f"a logit of position {position} is not finite")
    assert {one.reason for one in together} == {"error", "length"}


def test_the_reference_says_which() -> None:
    """The native engine and the reference agree on which rows have no token."""
    scale = loudness()
    book = Book(num_sequences=len(PROMPTS), pages_each=1)
    step = book.step(list(enumerate(PROMPTS)), all_logits=False)
    made = (ReferenceNodes, NativeNodes)
    best = []
    for kind in made:
        with kind(SPEC, source(scale), weight_format="f32", num_pages=book.num_pages) as nodes:
            best.append(nodes.nodes[0].best(step, nodes.embeddings[step.tokens]))
    assert best[0] == best[1] and -1 in best[0] and max(best[0]) >= 0
