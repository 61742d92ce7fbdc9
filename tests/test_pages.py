"""KV pages: none is ever given twice, and what is reused holds what it is said to hold."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from bandweave.executors.executor import PAGE_SIZE
from bandweave.generation.pages import Cached, PagePool

NUM_PAGES = 7


def fill(pool: PagePool, tokens: list[int]) -> Cached:
    """A sequence that has computed all of its tokens, what it shares with others aside."""
    cached = pool.claim(tokens)
    pool.grow(cached, len(tokens))
    cached.tokens += tokens[len(cached.tokens) :]
    pool.publish(cached)
    return cached


def idle_pages(pool: PagePool) -> set[int]:
    return set(pool._idle)


def prompt(first: int, length: int) -> list[int]:
    return list(range(first, first + length))


class Pages(RuleBasedStateMachine):
    """Sequences come, grow and go; ``cells`` is the memory that the pages stand for."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(NUM_PAGES)
        self.cells: dict[tuple[int, int], int] = {}
        self.live: list[Cached] = []

    running = Bundle("running")

    @rule(target=running, kind=st.integers(0, 2), length=st.integers(1, 200))
    def begin(self, kind: int, length: int) -> Cached:
        # Prompts of one kind begin alike and part ways at some point.
        tokens = [kind] * (length // 2) + [kind + length] * (length - length // 2)
        cached = self.pool.claim(tokens)
        assert cached.tokens == tokens[: len(cached.tokens)]
        assert len(cached.tokens) < len(tokens)
        assert len(cached.pages) == -(-len(cached.tokens) // PAGE_SIZE)
        for position, token in enumerate(cached.tokens):
            assert self.cells[cached.pages[position // PAGE_SIZE], position % PAGE_SIZE] == token
        self.live.append(cached)
        self._compute(cached, tokens[len(cached.tokens) :])
        return cached

    @rule(cached=running, count=st.integers(1, 70), token=st.integers(0, 5))
    def go_on(self, cached: Cached, count: int, token: int) -> None:
        self._compute(cached, [token] * count)

    @rule(cached=consumes(running))
    def end(self, cached: Cached) -> None:
        self.live.remove(cached)
        self.pool.release(cached)

    def _compute(self, cached: Cached, tokens: list[int]) -> None:
        length = len(cached.tokens) + len(tokens)
        others = {page for one in self.live if one is not cached for page in one.pages}
        more = max(0, -(-length // PAGE_SIZE) - len(cached.pages))
        assert self.pool.needs(cached, length) == more
        assert self.pool.available == NUM_PAGES - len(others | set(cached.pages))
        if more > self.pool.available:
            with pytest.raises(MemoryError, match=f"^all {NUM_PAGES} KV pages of 64 tokens are"):
                self.pool.grow(cached, length)
            return
        self.pool.grow(cached, length)
        for position, token in enumerate(tokens, len(cached.tokens)):
            self.cells[cached.pages[position // PAGE_SIZE], position % PAGE_SIZE] = token
        cached.tokens += tokens
        self.pool.publish(cached)

    @invariant()
    def pages_are_shared_only_where_they_are_full_and_alike(self) -> None:
        holders: dict[int, list[tuple[Cached, int]]] = {}
        for one in self.live:
            for number, page in enumerate(one.pages):
                holders.setdefault(page, []).append((one, number))
        assert holders.keys() <= set(range(NUM_PAGES))
        for sharing in holders.values():
            if len(sharing) > 1:
                assert all(len(one.tokens) >= (n + 1) * PAGE_SIZE for one, n in sharing)
        for one in self.live:
            for position, token in enumerate(one.tokens):
                assert self.cells[one.pages[position // PAGE_SIZE], position % PAGE_SIZE] == token

    @invariant()
    def no_page_is_lost(self) -> None:
        held = {page for one in self.live for page in one.pages}
        free, idle = self.pool._free, idle_pages(self.pool)
        assert len(free) == len(set(free)) and not held & idle and not (held | idle) & set(free)
        assert len(held) + len(idle) + len(free) == NUM_PAGES
        assert idle <= set(self.pool._index._keys) <= held | idle

    @invariant()
    def what_is_known_of_a_page_is_what_it_holds(self) -> None:
        for page, (_, tokens) in self.pool._index._keys.items():
            assert [self.cells[page, place] for place in range(len(tokens))] == list(tokens)


Pages.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestPages = Pages.TestCase


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 129])
def test_a_sequence_has_the_pages_that_its_tokens_need(length: int) -> None:
    pool = PagePool(NUM_PAGES)
    cached = Cached()
    pool.grow(cached, length)
    assert len(cached.pages) == -(-length // 64)
    before = list(cached.pages)
    pool.grow(cached, length)
    pool.grow(cached, 1)
    assert cached.pages == before


def test_all_pages_can_be_given_and_no_more() -> None:
    pool = PagePool(NUM_PAGES)
    cached = Cached()
    pool.grow(cached, NUM_PAGES * PAGE_SIZE)
    assert sorted(cached.pages) == list(range(NUM_PAGES))
    with pytest.raises(MemoryError, match="^all 7 KV pages of 64 tokens are in use$"):
        pool.grow(Cached(), 1)
    pool.release(cached)
    other = Cached()
    pool.grow(other, NUM_PAGES * PAGE_SIZE)
    assert sorted(other.pages) == list(range(NUM_PAGES))


def test_a_follow_up_goes_on_where_a_sequence_ended() -> None:
    pool = PagePool(NUM_PAGES)
    short, long = fill(pool, prompt(0, 70)), fill(pool, prompt(0, 100))
    pool.release(short)
    pool.release(long)
    found = pool.claim(prompt(0, 200))
    assert found.tokens == prompt(0, 100) and found.pages == long.pages
    again = pool.claim(prompt(0, 80))
    assert again.tokens == prompt(0, 70) and again.pages == short.pages


def test_two_that_part_ways_share_the_pages_before() -> None:
    """Turn by turn, each reads only what is new to it."""
    pool = PagePool(8)
    system = prompt(0, 2 * PAGE_SIZE)
    histories = [[*system, *prompt(1000 * i, 30)] for i in (1, 2)]
    read = []
    for turn in range(4):
        for i, history in enumerate(histories):
            history += prompt(10_000 * (turn + 1) + 1000 * i, 20)
            cached = pool.claim(history)
            read.append(len(history) - len(cached.tokens))
            pool.grow(cached, len(history))
            cached.tokens += history[len(cached.tokens) :]
            pool.release(cached)
    assert read[0] == 178 and read[1] == 50 and set(read[2:]) == {20}
    assert len(idle_pages(pool)) == 2 + 2 * 2


def test_a_prompt_that_is_asked_again_reads_its_last_page() -> None:
    pool = PagePool(NUM_PAGES)
    pool.release(fill(pool, prompt(0, 3 * PAGE_SIZE + 5)))
    assert pool.claim(prompt(0, 2 * PAGE_SIZE + 9)).tokens == prompt(0, 2 * PAGE_SIZE)
    assert pool.claim(prompt(0, 2 * PAGE_SIZE)).tokens == prompt(0, PAGE_SIZE)


def test_what_two_share_is_free_when_neither_uses_it() -> None:
    pool = PagePool(3)
    first = fill(pool, prompt(0, 2 * PAGE_SIZE))
    pool.release(first)
    second = pool.claim([*prompt(0, PAGE_SIZE), 500, 501])
    assert second.pages == first.pages[:1]
    pool.grow(second, PAGE_SIZE + 2)
    pool.grow(Cached(), PAGE_SIZE)  # the first's own page
    with pytest.raises(MemoryError):
        pool.grow(Cached(), 1)
    pool.release(second)
    pool.grow(Cached(), 2 * PAGE_SIZE)


def test_the_full_pages_of_a_running_sequence_are_shared_and_its_last_is_not() -> None:
    pool = PagePool(NUM_PAGES)
    running = fill(pool, prompt(0, 100))
    other = pool.claim([*prompt(0, 100), 7])
    assert (other.tokens, other.pages) == (prompt(0, 64), running.pages[:1])
    pool.release(running)
    assert pool.claim([*prompt(0, 100), 7]).pages == running.pages


def test_equal_prompts_that_were_read_side_by_side_end_on_one_copy() -> None:
    pool = PagePool(NUM_PAGES)
    sequences = [Cached(), Cached()]
    for one in sequences:
        pool.grow(one, 3 * PAGE_SIZE)
    for one in sequences:
        one.tokens += prompt(0, 3 * PAGE_SIZE)
        pool.publish(one)
    for one in sequences:
        pool.release(one)
    assert idle_pages(pool) == set(sequences[0].pages)
    assert pool.available == NUM_PAGES


def test_where_too_few_pages_are_left_a_sequence_gets_none() -> None:
    pool = PagePool(3)
    pool.grow(Cached(), PAGE_SIZE)
    cached = Cached()
    with pytest.raises(MemoryError):
        pool.grow(cached, 3 * PAGE_SIZE)
    assert cached.pages == [] and pool.available == 2


@pytest.mark.parametrize("tokens", [[5], [5, 6]])
def test_one_shared_token_or_none_to_spare_is_a_new_sequence(tokens: list[int]) -> None:
    pool = PagePool(NUM_PAGES)
    pool.release(fill(pool, [5, 7, 8]))
    assert pool.claim(tokens).tokens == []


def test_a_histories_end_is_forgotten_before_its_beginning() -> None:
    pool = PagePool(4)
    history = prompt(0, 4 * PAGE_SIZE)
    pool.release(fill(pool, history))
    pool.grow(Cached(), 2 * PAGE_SIZE)
    assert pool.claim([*history, 7]).tokens == history[: 2 * PAGE_SIZE]


def test_the_sequence_that_ended_first_is_forgotten_first() -> None:
    pool = PagePool(3)
    prompts = [prompt(100 * i, 40) for i in range(3)]
    sequences = [fill(pool, tokens) for tokens in prompts]
    for i in (1, 0, 2):
        pool.release(sequences[i])
    pool.grow(Cached(), 1)
    follow_ups = [[*one, 7, 7] for one in prompts]
    assert pool.claim(follow_ups[1]).tokens == []
    assert pool.claim(follow_ups[0]).tokens == prompts[0]
    assert pool.claim(follow_ups[2]).tokens == prompts[2]


def test_a_sequence_without_pages_leaves_nothing() -> None:
    pool = PagePool(NUM_PAGES)
    pool.release(Cached())
    assert pool.claim([1, 2, 3]).tokens == []


@pytest.mark.parametrize("length", [PAGE_SIZE + 50, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 5])
def test_what_parts_ways_late_in_a_page_goes_on_in_it(length: int) -> None:
    """As where a client changes the end of an answer."""
    pool = PagePool(NUM_PAGES)
    first = fill(pool, prompt(0, length))
    pages = list(first.pages)
    pool.release(first)
    parting = PAGE_SIZE + 40
    second = pool.claim([*prompt(0, parting), *prompt(1000, 30)])
    assert second.tokens == prompt(0, parting) and second.pages == pages[:2]
    pool.release(second)
    # What was written over is found by nobody.
    third = pool.claim([*prompt(0, length), 5])
    assert third.tokens == prompt(0, parting)


@pytest.mark.parametrize(
    ("length", "parting"),
    [
        (PAGE_SIZE + 50, PAGE_SIZE + 20),  # 30 tokens of the page would be lost for 20
        (3 * PAGE_SIZE, PAGE_SIZE + 40),  # 24, and 64 of the page behind
        (4 * PAGE_SIZE + 50, PAGE_SIZE + 60),
    ],
)
def test_what_parts_ways_early_leaves_a_page_to_those_that_go_on(length: int, parting: int) -> None:
    pool = PagePool(NUM_PAGES)
    pool.release(fill(pool, prompt(0, length)))
    second = pool.claim([*prompt(0, parting), *prompt(1000, 30)])
    assert second.tokens == prompt(0, PAGE_SIZE)
    third = pool.claim([*prompt(0, length), 5])
    assert third.tokens == prompt(0, length)


def test_a_page_that_is_in_use_is_not_written_on() -> None:
    pool = PagePool(NUM_PAGES)
    pool.release(fill(pool, prompt(0, 2 * PAGE_SIZE)))
    user = pool.claim(prompt(0, 2 * PAGE_SIZE + 1))
    assert len(user.tokens) == 2 * PAGE_SIZE
    other = pool.claim([*prompt(0, 2 * PAGE_SIZE - 4), *prompt(1000, 30)])
    assert other.tokens == prompt(0, PAGE_SIZE) and len(other.pages) == 1
