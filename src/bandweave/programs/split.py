"""Who owns what: pure functions from sizes and shares to ranges of units.

Every layer, head, column and vocabulary row is owned by exactly one node of its stage; KV heads
are held by every node whose query heads read them. Does no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bandweave.models.graph import COLUMN_UNIT, VOCABULARY_UNIT
from bandweave.models.spec import ModelSpec
from bandweave.ranges import Range


def apportion(
    total: int,
    shares: Sequence[Fraction],
    *,
    minimum: int = 0,
    burdens: Sequence[int] | None = None,
) -> list[int]:
    """``total`` units as whole counts in proportion to ``shares``, by largest remainder.

    Ties go to the lower burden (what one already holds of something else), then to the lower
    index. With ``minimum`` each gets at least that many; there must be enough units for that. The
    counts add up to ``total``.
    """
    if total < minimum * len(shares):
        raise ValueError(f"{total} units cannot give {len(shares)} nodes {minimum} each")
    whole = sum(shares)
    if not shares or whole <= 0 or any(share < 0 for share in shares):
        raise ValueError(f"shares {[str(share) for share in shares]} are not all positive")
    weight = burdens or [0] * len(shares)
    exact = [Fraction(total) * share / whole for share in shares]
    counts = [max(minimum, int(value)) for value in exact]
    while sum(counts) < total:
        index = max(range(len(counts)), key=lambda i: (exact[i] - counts[i], -weight[i], -i))
        counts[index] += 1
    while sum(counts) > total:  # only after raising some to the minimum
        above = [i for i in range(len(counts)) if counts[i] > minimum]
        index = min(above, key=lambda i: (exact[i] - counts[i], -i))
        counts[index] -= 1
    return counts


def ranges(counts: Sequence[int], *, unit: int = 1, size: int | None = None) -> list[Range]:
    """Consecutive ranges of ``counts`` units of ``unit`` elements; ``size`` cuts the last unit."""
    result, start = [], 0
    for count in counts:
        stop = start + count * unit
        if size is not None:
            stop = min(stop, size)
        result.append(Range(start=start, stop=stop))
        start = stop
    return result


@dataclass(frozen=True, kw_only=True)
class NodeShare:
    """What one node owns, as ranges of elements; ``kv_heads`` may overlap with a neighbour's."""

    node: int
    stage: int
    rank: int  # place within the stage
    layers: Range
    heads: Range
    kv_heads: Range
    columns: Range
    vocabulary: Range  # empty outside the last stage


@dataclass(frozen=True, kw_only=True)
class Split:
    """The shares of all nodes, in node order, and the nodes of each stage."""

    shares: tuple[NodeShare, ...]
    stages: tuple[tuple[int, ...], ...]

    @property
    def num_nodes(self) -> int:
        return len(self.shares)


def units(size: int, unit: int) -> int:
    """How many units cover ``size`` elements."""
    return -(-size // unit)


def make_split(spec: ModelSpec, shares: Sequence[Fraction | int], *, stages: int = 1) -> Split:
    """Splits a model over ``len(shares)`` nodes in ``stages`` pipeline stages.

    Nodes fill the stages in order, as evenly as they go; a stage gets layers in proportion to the
    sum of its nodes' shares, at least one; inside a stage heads, columns and vocabulary go by the
    nodes' shares. ``ValueError`` where the request cannot be met or leaves a node with nothing.
    """
    fractions = [Fraction(share) for share in shares]
    num_nodes = len(fractions)
    for node, share in enumerate(fractions):
        if share <= 0:
            raise ValueError(f"node {node} has share {share}; every share must be above zero")
    if not 1 <= stages <= num_nodes:
        raise ValueError(f"{stages} stages need at least as many nodes, but there are {num_nodes}")
    if stages > spec.num_layers:
        raise ValueError(f"{stages} stages, but the model has only {spec.num_layers} layers")
    sizes = apportion(num_nodes, [Fraction(1)] * stages, minimum=1)
    members = [range(r.start, r.stop) for r in ranges(sizes)]
    totals = [sum((fractions[node] for node in nodes), Fraction(0)) for nodes in members]
    layers = ranges(apportion(spec.num_layers, totals, minimum=1))
    result: list[NodeShare] = []
    for stage, nodes in enumerate(members):
        result += _stage_shares(
            spec,
            stage=stage,
            nodes=nodes,
            shares=[fractions[node] for node in nodes],
            layers=layers[stage],
            last=stage == stages - 1,
        )
    return Split(shares=tuple(result), stages=tuple(tuple(nodes) for nodes in members))


def _stage_shares(
    spec: ModelSpec,
    *,
    stage: int,
    nodes: range,
    shares: list[Fraction],
    layers: Range,
    last: bool,
) -> list[NodeShare]:
    # Burdens: with fewer units than nodes, one who got no heads gets columns first.
    head_counts = apportion(spec.num_heads, shares)
    heads = ranges(head_counts)
    column_units = units(spec.intermediate_size, COLUMN_UNIT)
    column_counts = apportion(column_units, shares, burdens=head_counts)
    columns = ranges(column_counts, unit=COLUMN_UNIT, size=spec.intermediate_size)
    vocabulary_units = units(spec.vocab_size, VOCABULARY_UNIT)
    burdens = [h + c for h, c in zip(head_counts, column_counts, strict=True)]
    vocabulary = ranges(
        apportion(vocabulary_units, shares, burdens=burdens),
        unit=VOCABULARY_UNIT,
        size=spec.vocab_size,
    )
    result = []
    for rank, node in enumerate(nodes):
        share = NodeShare(
            node=node,
            stage=stage,
            rank=rank,
            layers=layers,
            heads=heads[rank],
            kv_heads=_kv_heads(spec, heads[rank]),
            columns=columns[rank],
            vocabulary=vocabulary[rank] if last else Range(start=0, stop=0),
        )
        if not (len(share.heads) or len(share.columns) or len(share.vocabulary)):
            rows = f" and {vocabulary_units} vocabulary units" if last else ""
            raise ValueError(
                f"share {shares[rank]} leaves node {node} with nothing: {spec.num_heads} heads, "
                f"{column_units} column units{rows} are split over {len(nodes)} nodes; give it a "
                "larger share or leave it out"
            )
        result.append(share)
    return result


def _kv_heads(spec: ModelSpec, heads: Range) -> Range:
    if not len(heads):
        return Range(start=0, stop=0)
    group = spec.heads_per_kv_head
    return Range(start=heads.start // group, stop=(heads.stop - 1) // group + 1)
