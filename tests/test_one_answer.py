"""One answer: nodes, shares, stages, threads, chunks, company, drafts and variants never show, nor
whether a machine keeps subnormals.

A pairwise covering array of the dimensions in ``tests.exhaustive.cases``, on nodes that are threads
of this process; then a few set-ups of real processes linked by TCP. The full product is
``make exhaustive``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.resolve import DEMO, resolve_model
from bandweave.engine.engine import Engine
from bandweave.engine.options import EngineOptions
from bandweave.run_options import RunOptions
from tests.exhaustive.cases import (
    ALONE,
    DRAFTS,
    PLAIN,
    SPLITS,
    Case,
    Pair,
    Value,
    all_cases,
    all_pairs,
    clashes,
    covering_array,
    dimensions,
    paired_dimensions,
    pairs_of,
    pairwise_cases,
)
from tests.exhaustive.runner import CONTEXT, MAX_ROWS, Answer, Runner, requests_for
from tests.helpers.connections import SECRET
from tests.helpers.workers import WorkerProcess

CASES = pairwise_cases()


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def expected(runner: Runner) -> Mapping[tuple[str, ...], Answer]:
    """One node's answer by group of cases."""
    return {case.group: runner.baseline(case) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, vars(case).values())))
def test_every_pair_of_settings_gives_the_answer_of_one_node(
    runner: Runner, expected: Mapping[tuple[str, ...], Answer], case: Case
) -> None:
    answer = runner.answer(case)
    assert answer == expected[case.group]
    assert [len(tokens) for tokens in answer.tokens] == [6, 6]


def test_answers_depend_on_what_they_may_depend_on(
    expected: Mapping[tuple[str, ...], Answer],
) -> None:
    # The demo's checkpoint is bf16: wider weights are the same numbers.
    different = [answer for group, answer in expected.items() if group[:2] != (DEMO, "f32")]
    digests = [digest for answer in different for digest in answer.digests]
    assert len(set(digests)) == len(digests)


def test_the_cases_hold_every_pair_that_can_be() -> None:
    found = {pair for case in CASES for pair in pairs_of(vars(case))}
    assert found == set(all_pairs(paired_dimensions())) - clashes()
    assert len(CASES) < 100
    assert len(set(CASES)) == len(CASES)


def test_the_product_holds_every_pair_and_repeats_nothing() -> None:
    cases = all_cases()
    assert {pair for case in cases for pair in pairs_of(vars(case))} == (
        set(all_pairs(dimensions())) - clashes()
    )
    assert len(set(cases)) == len(cases)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("model", [DEMO, "llama3_rope"])
def test_greedy_tokens_are_the_same_where_no_logits_are_asked_for(
    runner: Runner, model: str, split: str
) -> None:
    case = Case(
        model=model, weights="q4", kv="f16", split=split, isa=str(dimensions()["isa"][-1]),
        threads=1, company=ALONE, chunk=0, speculation=PLAIN,
    )  # fmt: skip
    greedy = runner.baseline(case).tokens[0]
    assert runner.best_tokens(case) == greedy
    assert runner.best_tokens(replace(case, speculation=DRAFTS)) == greedy


@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=6),
    forbidden=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=4),
)
def test_covering_arrays_cover(sizes: Sequence[int], forbidden: list[tuple[int, int]]) -> None:
    # Value 0 goes with everything, so that a row can always be completed.
    choices: dict[str, Sequence[Value]] = {f"d{i}": range(size) for i, size in enumerate(sizes)}
    impossible: set[Pair] = {("d0", a, "d1", b) for a, b in forbidden}
    rows = covering_array(choices, impossible)
    assert {p for row in rows for p in pairs_of(row)} == set(all_pairs(choices)) - impossible
    assert rows == covering_array(choices, impossible)
    largest, second = sorted(sizes)[-1], sorted(sizes)[-2]
    assert len(rows) <= 3 * largest * second


@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.parametrize("encryption", ["always", "never"])
def test_workers_linked_by_encrypted_tcp_give_the_answer_of_one_node(
    runner: Runner, encryption: str
) -> None:
    """Control, files and links, as between machines; what encryption takes is in the accounts."""
    case = Case(
        model=DEMO, weights="q4", kv="f16", split="1", isa=str(dimensions()["isa"][0]), threads=1,
        company=ALONE, chunk=0, speculation=PLAIN,
    )  # fmt: skip
    with ExitStack() as stack:
        workers = [
            stack.enter_context(WorkerProcess(serve="tests.helpers.apart:serve")) for _ in range(3)
        ]
        options = EngineOptions(
            shares=(Fraction(1),) * 3,
            hosts=tuple(worker.address for worker in workers),
            secret=SECRET,
            encryption=encryption,
            threads=1,
            run=RunOptions(context=CONTEXT, streams=4, max_rows=MAX_ROWS),
        )
        folder = stack.enter_context(Folder.open(resolve_model(DEMO)))
        engine = stack.enter_context(Engine.start(folder, options))
        requests = requests_for(folder.spec.vocab_size)
        results = engine.generate(requests, chunk=7, digest=True)[:2]
        accounts = engine.statistics()
    answer = Answer(
        tokens=tuple(result.tokens for result in results),
        digests=tuple(result.logits_digest for result in results),
    )
    assert answer == runner.baseline(case)
    assert all((one.decode["sealing"] > 0) == (encryption == "always") for one in accounts)


@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("split", "threads"), [("3", 1), ("3,2,1", 1), ("2x2", 2)])
def test_processes_linked_by_tcp_give_the_answer_of_one_node(
    runner: Runner, split: str, threads: int
) -> None:
    shares, stages = SPLITS[split]
    isa = str(dimensions()["isa"][0])
    case = Case(
        model=DEMO, weights="q4", kv="f16", split="1", isa=isa, threads=1, company=ALONE, chunk=0,
        speculation=PLAIN,
    )  # fmt: skip
    options = EngineOptions(
        shares=tuple(Fraction(share) for share in shares),
        stages=stages,
        threads=threads,
        run=RunOptions(context=CONTEXT, streams=4, max_rows=MAX_ROWS),
    )
    with Folder.open(resolve_model(DEMO)) as folder, Engine.start(folder, options) as engine:
        requests = requests_for(folder.spec.vocab_size)
        together = engine.generate(requests, chunk=7, digest=True)
        one_by_one = [engine.generate([one], digest=True, reuse=False)[0] for one in requests[:2]]
    for results in (together[:2], one_by_one):
        answer = Answer(
            tokens=tuple(result.tokens for result in results),
            digests=tuple(result.logits_digest for result in results),
        )
        assert answer == runner.baseline(case)
