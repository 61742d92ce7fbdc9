"""Who owns what: pure functions from sizes and shares to ranges of units.

Every layer, head, column and vocabulary row is owned by exactly one node of its stage; KV heads
are held by every node whose query heads read them. Layers may differ in how many heads and columns
they have: each such number is cut on its own. Does no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bandweave.models.attention_spec import Attention, HeadsSpec, LatentSpec, query_heads
from bandweave.models.cut import VOCABULARY_UNIT, Axis, Cut
from bandweave.models.mlp_spec import MixtureSpec, Mlp
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
    """What one node owns: ``layers``, and in each of them the range of the heads, and of the
    columns, that goes with how many there are; ``vocabulary`` is empty outside the last stage;
    ``further``: as ``columns``, of what a further layer alone has."""

    node: int
    stage: int
    rank: int  # place within the stage
    layers: Range
    heads: tuple[tuple[int, Range], ...]  # by how many query heads there are
    columns: tuple[tuple[int, Range], ...]  # by how many columns there are
    vocabulary: Range
    further: tuple[tuple[int, Range], ...] = ()

    def range(self, cut: Cut) -> Range:
        """What the node owns of a cut, in its things; KV heads may be a neighbour's too."""
        if cut.axis is Axis.VOCABULARY:
            return self.vocabulary
        if cut.axis is Axis.KV_HEADS:
            return _kv_heads(_find(self.heads, cut.total * cut.sharing), cut.sharing)
        own = self.heads if cut.axis is Axis.HEADS else (*self.columns, *self.further)
        return _find(own, cut.total)

    def heads_of(self, attention: Attention) -> tuple[Range, Range]:
        """The query heads of a layer's attention that the node owns, and the KV heads that these
        read: a latent attention has one for all, a linear one one each."""
        own = _find(self.heads, query_heads(attention))
        if isinstance(attention, HeadsSpec):
            return own, _kv_heads(own, attention.heads_per_kv_head)
        latent = isinstance(attention, LatentSpec)
        return own, Range(start=0, stop=min(1, len(own))) if latent else own

    def elements(self, cut: Cut) -> Range:
        """The same in elements."""
        own = self.range(cut)
        if cut.width == 1:
            return own
        return Range(start=own.start * cut.width, stop=own.stop * cut.width)


def _find(table: tuple[tuple[int, Range], ...], total: int) -> Range:
    for count, own in table:  # twice as fast as `next`; a large model asks 100,000 times
        if count == total:
            return own
    raise KeyError(total)


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
    # Burdens: with fewer units than nodes, one who got little of the one gets the other first.
    burdens = [0] * len(shares)
    heads: list[list[tuple[int, Range]]] = [[] for _ in shares]
    columns: list[list[tuple[int, Range]]] = [[] for _ in shares]
    for count, step in _head_counts(spec).items():
        burdens = _cut(count, step, shares, burdens, heads)
    for width in _column_counts(spec):
        burdens = _cut(width, spec.column_unit, shares, burdens, columns)
    vocabulary_units = units(spec.vocab_size, VOCABULARY_UNIT)
    vocabulary = ranges(
        apportion(vocabulary_units, shares, burdens=burdens),
        unit=VOCABULARY_UNIT,
        size=spec.vocab_size,
    )
    # Last, so that a further layer changes nothing of what the model's own are cut into.
    further: list[list[tuple[int, Range]]] = [[] for _ in shares]
    for width in _further_counts(spec):
        burdens = _cut(width, spec.column_unit, shares, burdens, further)
    result = []
    for rank, node in enumerate(nodes):
        share = NodeShare(
            node=node,
            stage=stage,
            rank=rank,
            layers=layers,
            heads=tuple(heads[rank]),
            columns=tuple(columns[rank]),
            further=tuple(further[rank]),
            vocabulary=vocabulary[rank] if last else Range(start=0, stop=0),
        )
        owned = [own for _, own in (*share.heads, *share.columns)]
        if not any(map(len, (*owned, share.vocabulary))):
            rows = f" and {vocabulary_units} vocabulary units" if last else ""
            heads_of = max(units(count, step) for count, step in _head_counts(spec).items())
            columns_of = units(max(_column_counts(spec)), spec.column_unit)
            raise ValueError(
                f"share {shares[rank]} leaves node {node} with nothing: {heads_of} heads, "
                f"{columns_of} column units{rows} are split over {len(nodes)} nodes; give it a "
                "larger share or leave it out"
            )
        result.append(share)
    return result


def _cut(
    total: int,
    step: int,
    shares: list[Fraction],
    burdens: list[int],
    owned: list[list[tuple[int, Range]]],
) -> list[int]:
    """Adds what each node gets of so many heads or columns, in units of ``step``; the burdens with
    them."""
    counts = apportion(units(total, step), shares, burdens=burdens)
    for rank, own in enumerate(ranges(counts, unit=step, size=total)):
        owned[rank].append((total, own))
    return [burden + own for burden, own in zip(burdens, counts, strict=True)]


def _kv_heads(heads: Range, sharing: int) -> Range:
    if not len(heads):
        return Range(start=0, stop=0)
    return Range(start=heads.start // sharing, stop=(heads.stop - 1) // sharing + 1)


def _head_counts(spec: ModelSpec) -> dict[int, int]:
    """The numbers of query heads that layers have, in order of first use, and how many of them no
    split divides."""
    result: dict[int, int] = {}
    for layer in {id(layer): layer for layer in spec.layers}.values():
        count = query_heads(layer.attention)
        result[count] = math.lcm(result.get(count, 1), spec.head_unit(layer.attention))
    return result


def _column_counts(spec: ModelSpec) -> list[int]:
    """The widths of the layers' MLPs, in order of first use."""
    layers = {id(layer): layer for layer in spec.layers}.values()
    return list(dict.fromkeys(width for layer in layers for width in _widths(layer.mlp)))


def _further_counts(spec: ModelSpec) -> list[int]:
    """What else a further layer is cut by: what it joins, and its own MLP's widths."""
    if spec.further is None:
        return []
    known = _column_counts(spec)
    widths = dict.fromkeys((2 * spec.hidden_size, *_widths(spec.further.mlp)))
    return [width for width in widths if width not in known]


def _widths(mlp: Mlp) -> list[int]:
    widths = [mlp.intermediate_size]
    if isinstance(mlp, MixtureSpec) and mlp.shared_size:
        widths.append(mlp.shared_size)
    return widths
