"""Splits: everything is owned once, in order, in proportion, for every number of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bandweave.models.cut import COLUMN_UNIT, VOCABULARY_UNIT
from bandweave.models.spec import ModelSpec
from bandweave.programs.split import NodeShare, Split, apportion, make_split, ranges, units
from bandweave.ranges import Range
from tests.helpers.random_model import ODD_SPECS, tiny_spec
from tests.helpers.shares import (
    column_counts,
    column_ranges,
    head_counts,
    head_ranges,
    kv_head_ranges,
)
from tests.helpers.split_strategies import any_share, requests, share_vectors, specs


def split_or_none(spec: ModelSpec, shares: Sequence[Fraction | int], stages: int) -> Split | None:
    """The split, or None where it is refused, with a sentence that has the reason's numbers."""
    try:
        return make_split(spec, shares, stages=stages)
    except ValueError as error:
        text = str(error)
        assert any(character.isdigit() for character in text), text
        assert "\n" not in text and len(text) < 300, text
        if stages <= min(len(shares), spec.num_layers):
            assert " leaves node " in text, text
        return None


def consecutive(found: Sequence[Range], size: int) -> None:
    """The ranges follow each other and cover ``0:size``."""
    assert found[0].start == 0 and found[-1].stop == size
    for left, right in zip(found, found[1:], strict=False):
        assert left.start <= left.stop == right.start <= right.stop


def members(split: Split, stage: int) -> list[NodeShare]:
    return [split.shares[node] for node in split.stages[stage]]


@settings(max_examples=150, deadline=None)
@given(spec=specs(), request=requests())
def test_every_part_of_a_model_has_one_owner_a_stage(
    spec: ModelSpec, request: tuple[list[Fraction], int]
) -> None:
    shares, stages = request
    split = split_or_none(spec, shares, stages)
    assume(split is not None)
    assert split is not None and split.num_nodes == len(shares)
    assert [node for nodes in split.stages for node in nodes] == list(range(len(shares)))
    assert max(map(len, split.stages)) - min(map(len, split.stages)) <= 1
    consecutive([members(split, stage)[0].layers for stage in range(stages)], spec.num_layers)
    for stage in range(stages):
        nodes = members(split, stage)
        assert [(n.stage, n.rank) for n in nodes] == [(stage, rank) for rank in range(len(nodes))]
        assert len({node.layers for node in nodes}) == 1 and len(nodes[0].layers) >= 1
        for count in head_counts(spec):
            consecutive([head_ranges(spec, node)[count] for node in nodes], count)
        for width in column_counts(spec):
            consecutive([column_ranges(spec, node)[width] for node in nodes], width)
        if stage == stages - 1:
            consecutive([node.vocabulary for node in nodes], spec.vocab_size)
        for node in nodes:
            heads, columns = head_ranges(spec, node), column_ranges(spec, node)
            assert any(map(len, (*heads.values(), *columns.values(), node.vocabulary)))
            assert stage == stages - 1 or not len(node.vocabulary)
            assert all(not len(own) or own.start % COLUMN_UNIT == 0 for own in columns.values())
            assert not node.vocabulary or node.vocabulary.start % VOCABULARY_UNIT == 0


@settings(max_examples=100, deadline=None)
@given(spec=specs(), request=requests())
def test_kv_heads_are_those_that_the_query_heads_read(
    spec: ModelSpec, request: tuple[list[Fraction], int]
) -> None:
    split = split_or_none(spec, *request)
    assume(split is not None)
    assert split is not None
    for node in split.shares:
        for attention, here in kv_head_ranges(spec, node).items():
            own = head_ranges(spec, node)[attention.num_heads]
            heads = range(own.start, own.stop)
            read = sorted({head // attention.heads_per_kv_head for head in heads})
            assert list(range(here.start, here.stop)) == read


@settings(max_examples=100, deadline=None)
@given(spec=specs(), request=requests())
def test_shares_are_met_within_a_unit_and_larger_ones_get_no_less(
    spec: ModelSpec, request: tuple[list[Fraction], int]
) -> None:
    shares, stages = request
    split = split_or_none(spec, shares, stages)
    assume(split is not None)
    assert split is not None
    for stage in range(stages):
        nodes = members(split, stage)
        own = [Fraction(shares[node.node]) for node in nodes]
        for count in head_counts(spec):
            in_proportion([len(head_ranges(spec, node)[count]) for node in nodes], own)
        for width in column_counts(spec):
            columns = [len(column_ranges(spec, node)[width]) for node in nodes]
            in_proportion([units(one, COLUMN_UNIT) for one in columns], own)
        if stage == stages - 1:
            in_proportion([units(len(n.vocabulary), VOCABULARY_UNIT) for n in nodes], own)
    totals = [sum(shares[node] for node in nodes) for nodes in split.stages]
    monotone([len(members(split, stage)[0].layers) for stage in range(stages)], totals)


def in_proportion(counts: Sequence[int], shares: Sequence[Fraction]) -> None:
    total, whole = sum(counts), sum(shares)
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - total * share / whole) < 1
    monotone(counts, shares)


def monotone(counts: Sequence[int], shares: Sequence[Fraction | int]) -> None:
    for count, share in zip(counts, shares, strict=True):
        for other, other_share in zip(counts, shares, strict=True):
            assert share <= other_share or count >= other


@settings(deadline=None)
@given(spec=specs(), num_nodes=st.integers(1, 16), stages=st.integers(1, 16))
def test_equal_shares_are_refused_only_where_there_are_too_few_units(
    spec: ModelSpec, num_nodes: int, stages: int
) -> None:
    assume(stages <= min(num_nodes, spec.num_layers))
    split = split_or_none(spec, [1] * num_nodes, stages)
    inside = units_inside(spec)
    last = inside + units(spec.vocab_size, VOCABULARY_UNIT)
    sizes = apportion(num_nodes, [Fraction(1)] * stages, minimum=1)
    enough = all(size <= inside for size in sizes[:-1]) and sizes[-1] <= last
    assert (split is not None) == enough


def units_inside(spec: ModelSpec) -> int:
    """What there is to give, beside the vocabulary."""
    return sum(head_counts(spec)) + sum(units(one, COLUMN_UNIT) for one in column_counts(spec))


@given(spec=specs(), request=requests(), factor=any_share)
def test_only_the_ratio_of_shares_counts(
    spec: ModelSpec, request: tuple[list[Fraction], int], factor: Fraction
) -> None:
    shares, stages = request
    scaled = [share * factor for share in shares]
    assert split_or_none(spec, shares, stages) == split_or_none(spec, scaled, stages)


@pytest.mark.parametrize("num_nodes", range(1, 17))
@pytest.mark.parametrize("name", ODD_SPECS)
def test_every_odd_model_goes_on_up_to_its_units(name: str, num_nodes: int) -> None:
    spec = ODD_SPECS[name]
    split = split_or_none(spec, [1] * num_nodes, 1)
    total = units_inside(spec) + units(spec.vocab_size, VOCABULARY_UNIT)
    assert (split is not None) == (num_nodes <= total)


@given(total=st.integers(0, 500), shares=share_vectors(), minimum=st.integers(0, 3), data=st.data())
@example(total=3, shares=[Fraction(1000), Fraction(1), Fraction(1)], minimum=1, data=None)
def test_apportion(
    total: int, shares: list[Fraction], minimum: int, data: st.DataObject | None
) -> None:
    burdens = None
    if data is not None:
        size = len(shares)
        burdens = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    if total < minimum * len(shares):
        with pytest.raises(ValueError, match=f"^{total} units cannot give {len(shares)} nodes"):
            apportion(total, shares, minimum=minimum, burdens=burdens)
        return
    counts = apportion(total, shares, minimum=minimum, burdens=burdens)
    assert sum(counts) == total and min(counts) >= minimum
    monotone(counts, shares)
    if minimum == 0:
        in_proportion(counts, shares)


def test_ties_go_to_the_lower_burden_then_to_the_lower_index() -> None:
    halves = [Fraction(1)] * 4
    assert apportion(2, halves) == [1, 1, 0, 0]
    assert apportion(2, halves, burdens=[1, 0, 1, 0]) == [0, 1, 0, 1]
    assert apportion(5, halves, burdens=[3, 3, 3, 0]) == [1, 1, 1, 2]


def test_ranges_are_cut_at_the_size() -> None:
    found = ranges([2, 0, 1], unit=64, size=150)
    assert [str(one) for one in found] == ["0:128", "128:128", "128:150"]
    assert [len(one) for one in found] == [128, 0, 22]


@pytest.mark.parametrize(
    ("shares", "stages", "message"),
    [
        ([1, 0], 1, r"^node 1 has share 0; every share must be above zero$"),
        ([1, Fraction(-1, 2)], 1, r"^node 1 has share -1/2; "),
        ([1], 2, r"^2 stages need at least as many nodes, but there are 1$"),
        ([1], 0, r"^0 stages "),
        ([], 1, r"there are 0$"),
        ([1] * 3, 3, r"^3 stages, but the model has only 2 layers$"),
        ([1000, 1], 1, r"^share 1 leaves node 1 with nothing: 4 heads, 2 column units "),
    ],
)
def test_requests_that_cannot_be_met_say_why(
    shares: list[Fraction | int], stages: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_split(tiny_spec(), shares, stages=stages)
