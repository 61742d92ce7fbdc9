"""Recurrent states: how rows come together in steps, what was drafted, and which slots were read
and kept never show; and the slots that prompts have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from types import TracebackType
from typing import Protocol

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandweave.engine.memory import node_memory, state_slots
from bandweave.executors.backend import NATIVE
from bandweave.executors.executor import PAGE_SIZE, ExecutorOptions, Step, StepError
from bandweave.executors.reference import math as reference_math
from bandweave.executors.reference.delta import l2_norm, softplus
from bandweave.executors.reference.states import own_states
from bandweave.generation.generator import Generator
from bandweave.generation.pages import PagePool
from bandweave.generation.request import CallOptions, Request, Result
from bandweave.generation.sampling import SamplingParams
from bandweave.generation.speculation.controller import Speculation
from bandweave.generation.speculation.model_drafter import ModelDrafter
from bandweave.models.registry import build_graph
from bandweave.programs.lowering import lower
from bandweave.programs.split import make_split
from tests.helpers.native_nodes import NativeNodes
from tests.helpers.prefix_executor import PrefixExecutor
from tests.helpers.random_model import F32, ODD_SPECS, random_source
from tests.helpers.reference_nodes import ReferenceNodes

SPEC = ODD_SPECS["states"]
SOURCE = random_source(SPEC, 5)
SLOTS, PAGES_EACH = 5, 2
LENGTHS = (100, 60, 90)  # the third goes on from the first's page
DRAFTED = 6
GREEDY = SamplingParams(temperature=0.0)


class Engine(Protocol):
    def run(self, step: Step) -> F32: ...
    def __enter__(self) -> Engine: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def native(**more: object) -> Engine:
    return NativeNodes(
        SPEC, SOURCE, weight_format="q8", num_pages=8, num_states=SLOTS, max_drafted=DRAFTED,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


ENGINES: dict[str, Callable[[], Engine]] = {
    "reference": partial(
        ReferenceNodes, SPEC, SOURCE, weight_format="q8", num_pages=8, shares=(3, 1)
    ),
    "native": native,
    "threads": partial(native, threads=3, shares=(1, 2)),
    "stages": partial(native, shares=(1, 1, 1), stages=3, isa="portable"),
}


def tokens_of(sequence: int) -> list[int]:
    tokens = np.random.default_rng(sequence).integers(0, SPEC.vocab_size, LENGTHS[sequence])
    if sequence == 2:
        return [*tokens_of(0)[:PAGE_SIZE], *tokens.tolist()[PAGE_SIZE:]]
    return tokens.tolist()


def step(pieces: Sequence[tuple[int, int, Sequence[int], Sequence[int]]]) -> Step:
    """Rows of sequences: each with its number, first position, tokens, and row of states."""
    tables = np.array([[0, 1], [2, 3], [0, 4]], np.int32)
    slots = [slot for slot, (_, _, tokens, _) in enumerate(pieces) for _ in tokens]
    positions = [p + i for _, p, tokens, _ in pieces for i in range(len(tokens))]
    return Step(
        tokens=np.array([token for _, _, tokens, _ in pieces for token in tokens], np.int32),
        slots=np.array(slots, np.int32),
        positions=np.array(positions, np.int32),
        wants_logits=np.ones(len(slots), np.bool_),
        page_tables=tables[[number for number, *_ in pieces]],
        states=np.array([states for *_, states in pieces], np.int32),
    )


@cache
def expected() -> list[F32]:
    """The logits of every position, of one node that reads each sequence in one piece."""
    found = []
    with native() as engine:
        for number in range(3):
            tokens, states = tokens_of(number), (0, 0, 0, -1, 0)
            found.append(engine.run(step([(number, 0, tokens, states)])))
    return found


class Reader:
    """A sequence that is read in pieces of any size, some of whose rows are drafted, partly
    wrong."""

    def __init__(self, number: int, slot: int, draw: np.random.Generator) -> None:
        self.number, self.slot, self.draw = number, slot, draw
        self.tokens, self.known, self.source = tokens_of(number), 0, slot
        self.counted = 0  # rows of the last piece

    def piece(self, most: int) -> tuple[int, int, list[int], tuple[int, int, int, int, int]]:
        left = len(self.tokens) - self.known
        count = int(self.draw.integers(1, min(left, most) + 1))
        drafted = int(self.draw.integers(0, min(count, DRAFTED + 1)))
        crosses = self.number == 0 and self.known < PAGE_SIZE <= self.known + count
        if crosses and self.known + count - drafted < PAGE_SIZE:
            drafted = 0  # what is kept is sure
        right = int(self.draw.integers(0, drafted + 1))
        own = self.tokens[self.known : self.known + count]
        wrong = count - drafted + right  # the first row of which nothing counts
        own[wrong:] = [(token + 1) % SPEC.vocab_size for token in own[wrong:]]
        keep, kept = (3, PAGE_SIZE - self.known) if crosses else (-1, 0)
        made = (self.number, self.known, own, (self.source, self.slot, drafted, keep, kept))
        self.known, self.source = self.known + wrong, self.slot
        self.counted = wrong
        return made


@pytest.mark.parametrize(
    ("name", "seed"),
    [("reference", 0), *((name, seed) for name in list(ENGINES)[1:] for seed in range(3))],
)
def test_no_way_to_read_a_sequence_shows(name: str, seed: int) -> None:
    """Two sequences side by side, and a third that goes on from what the first left at a page's
    end."""
    draw = np.random.default_rng(seed)
    first, fork = Reader(0, 0, draw), Reader(2, 2, draw)
    fork.known, fork.source = PAGE_SIZE, 3
    readers = [first, Reader(1, 4, draw)]
    with ENGINES[name]() as engine:
        while readers:
            going = [one for one in readers if draw.random() < 0.8] or readers
            before = [one.known for one in going]
            pieces = [one.piece(int(draw.choice([1, 7, 40]))) for one in going]
            logits = engine.run(step(pieces))
            at = 0
            for one, start, (_, _, own, _) in zip(going, before, pieces, strict=True):
                rows = expected()[one.number][start : start + one.counted]
                assert logits[at : at + one.counted].tobytes() == rows.tobytes(), one.number
                at += len(own)
            if first in going and before[going.index(first)] < PAGE_SIZE <= first.known:
                readers.append(fork)
            readers = [one for one in readers if one.known < len(one.tokens)]
    assert fork.known == LENGTHS[2]


WRONG = {
    "elsewhere": ((0, 50, [1], (0, 0, 0, -1, 0)), "goes on elsewhere than its state stands"),
    "never": ((0, 5, [1], (1, 1, 0, -1, 0)), "goes on elsewhere than its state stands"),
    "drafted": ((0, 7, [1, 2], (0, 0, 2, -1, 0)), "more drafted rows than its state keeps"),
    "beyond": ((0, 7, [1], (0, 99, 0, -1, 0)), "a state does not exist"),
    "below": ((0, 7, [1], (-1, 0, 0, -1, 0)), "goes on elsewhere|does not exist"),
    "kept": ((0, 7, [1], (0, 0, 0, 3, 2)), "a state is kept that is none"),
    "twice": ((0, 7, [1], (0, 1, 0, 1, 1)), "two sequences write one state|kept that is none"),
    "over": ((0, 7, [1], (0, 1, 0, 0, 1)), "reads a state that another one writes"),
}


@pytest.mark.parametrize("name", ["reference", "native"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_step_that_the_states_do_not_allow_is_refused(name: str, wrong: str) -> None:
    piece, words = WRONG[wrong]
    with ENGINES[name]() as engine:
        engine.run(step([(0, 0, tokens_of(0)[:7], (0, 0, 0, -1, 0))]))
        with pytest.raises(ValueError, match=words):
            engine.run(step([piece]))
        # Nothing has changed.
        logits = engine.run(step([(0, 7, tokens_of(0)[7:8], (0, 0, 0, -1, 0))]))
        assert logits.tobytes() == expected()[0][7:8].tobytes()


def test_a_step_without_states_has_a_slot_for_each_sequence() -> None:
    pieces = [(0, 0, tokens_of(0)[:9], (0,) * 5), (1, 0, tokens_of(1)[:5], (0,) * 5)]
    made = step(pieces)
    found = []
    for states in (None, own_states(2)):
        with native() as engine:
            found.append(engine.run(Step(**{**vars(made), "states": states})))
    assert found[0].tobytes() == found[1].tobytes()


# --- arithmetic ---


def test_softplus_and_norms_are_those_of_float64() -> None:
    x = np.linspace(-20, 30, 4001, dtype=np.float32)
    exact = np.logaddexp(0, x.astype(np.float64))
    assert (np.abs(softplus(x) - exact) <= 3e-7 * np.maximum(exact, 2**-20)).all()
    vectors = np.random.default_rng(0).normal(size=(50, 77)).astype(np.float32)
    exact = vectors / np.sqrt((vectors.astype(np.float64) ** 2).sum(1, keepdims=True) + 1e-6)
    assert np.abs(l2_norm(vectors, 1e-6, 1.0) - exact).max() < 1e-6


# --- slots ---


def generator(num_states: int = 6, *, drafts: bool = False, num_pages: int = 12) -> Generator:
    made = [PrefixExecutor(num_pages=num_pages, vocab_size=7, num_states=num_states)
            for _ in range(2)]  # fmt: skip
    drafter = ModelDrafter(
        made[1], made[1].embed, num_pages=num_pages, num_states=num_states, context=300,
        max_rows=40, exp=reference_math.exp,
    )  # fmt: skip
    return Generator(
        made[0], made[0].embed, num_pages=num_pages, context=300, max_rows=40, vocab_size=7,
        num_states=num_states, exp=reference_math.exp,
        speculation=Speculation(drafter, adaptive=False) if drafts else None,
    )  # fmt: skip


def ask(tokens: Sequence[int], count: int = 5) -> Request:
    return Request(tokens=tuple(tokens), params=SamplingParams(temperature=0.0, max_tokens=count))


def run(made: Generator, *requests: Request) -> list[Result]:
    return made.run(requests, digest=True)


def reused(made: Generator, request: Request) -> int:
    """How many of a request's tokens need no reading; its answer is that of a request alone."""
    sequence = made._scheduler.submit(0, request, CallOptions(digest=True))
    finished: list[Result] = []
    while made.busy:
        finished += [result for _, result in made.step().finished]
    (alone,) = run(generator(), request)
    assert (finished[0].tokens, finished[0].digests) == (alone.tokens, alone.digests)
    return sequence.reused


def words(kind: int, count: int) -> list[int]:
    return [(i * i + kind) % 7 for i in range(count)]


def test_the_next_turn_goes_on_where_the_last_one_ended() -> None:
    made = generator()
    first = words(1, 90)
    (answer,) = run(made, ask(first))
    said = [*first, *answer.tokens]
    # The last token was never read.
    assert reused(made, ask([*said, 3, 4])) == len(said) - 1
    # An answer that is rendered anew: from the last page of the prompt on.
    assert reused(made, ask([*first, 6, 6, 6])) == PAGE_SIZE


def test_prompts_that_part_in_the_midst_leave_a_state_there() -> None:
    made = generator()
    system = words(2, 2 * PAGE_SIZE + 20)
    found = [reused(made, ask([*system, kind, *words(kind, 70)])) for kind in range(4)]
    # The second finds pages and no state behind them; it leaves one for those that come after.
    assert found == [0, 0, 2 * PAGE_SIZE, 2 * PAGE_SIZE]


def test_slots_that_keep_something_make_room() -> None:
    for num_states in (1, 2, 3):
        made = generator(num_states)
        for kind in range(5):
            assert reused(made, ask(words(kind, 100))) == 0
        states = made._scheduler.pool._states
        assert states is not None and states.available == num_states


def test_forgotten_pages_take_their_states_along() -> None:
    pool = PagePool(2, 4)
    for kind in range(4):
        cached = pool.claim(words(kind, 100))
        assert not cached.tokens
        pool.grow(cached, 100)
        pool.keep_state(cached, 100)
        cached.tokens += words(kind, 100)
        pool.settle(cached)
        pool.release(cached)
        assert pool._states is not None and pool._states.available == 4
        assert len(pool._states._kept) == 2  # at the page's end, and where it ended


def test_a_model_with_a_state_drafts() -> None:
    requests = [ask(words(kind, 30 + kind), 40) for kind in range(3)]
    expected_results = run(generator(), *requests)
    for num_states in (4, 12):
        drafting = generator(num_states, drafts=True)
        results: list[Result] = []
        for _ in range(2):
            results = run(drafting, *requests)
            for one, other in zip(results, expected_results, strict=True):
                assert (one.tokens, one.digests) == (other.tokens, other.digests)
        accepted = sum(result.timing.accepted_tokens for result in results)
        assert accepted > (60 if num_states == 12 else 0)


def test_a_step_that_failed_is_read_again() -> None:
    made = generator()
    request = ask(words(3, 100))
    executor = made._executor
    assert isinstance(executor, PrefixExecutor)
    executor.failing = {1, 4}
    results, failures = [], 0
    made.submit(7, request, CallOptions(digest=True))
    while made.busy:
        try:
            results += [result for _, result in made.step().finished]
        except StepError:
            failures += 1
    assert failures == 2
    (alone,) = run(generator(), request)
    assert (results[0].tokens, results[0].digests) == (alone.tokens, alone.digests)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200), st.booleans()), min_size=1,
             max_size=12),
    st.integers(1, 6),
)  # fmt: skip
def test_answers_are_those_without_states(
    asked: list[tuple[int, int, bool]], num_states: int
) -> None:
    """Requests one after the other and two at a time, with and without what others computed."""
    made = generator(num_states)
    for kind, length, both in asked:
        requests = [ask(words(kind, length)), ask(words(kind + 1, length))][: 1 + both]
        for one, result in zip(requests, run(made, *requests), strict=True):
            assert result.tokens == run(generator(), one)[0].tokens


# --- memory ---


def test_a_nodes_memory_counts_its_states() -> None:
    split = make_split(SPEC, (2, 1))
    options = ExecutorOptions(num_pages=0, max_pages=1, num_states=3, max_drafted=4)
    for node, keys in ((0, 2), (1, 1)):
        program = lower(build_graph(SPEC), split, node)
        matrices = 2 * keys * 20 * 80  # 70 columns are padded
        inputs, changes = keys * (2 * 20 + 2 * 70), 2 * keys * (20 + 70 + 2)
        wide = [-(-width // 16) * 16 for width in (inputs, changes)]
        layers = sum(1 for shape in program.states if shape.heads)
        each = 4 * layers * (matrices + (3 + 4) * wide[0] + 4 * wide[1])
        assert layers == 2 and NATIVE.state_bytes(program, 4) == each
        assert node_memory(program, "q8", options).kv_bytes == 3 * each
    assert state_slots(SPEC, 2) == 6 and state_slots(ODD_SPECS["biases"], 2) == 0
