"""Deployment: nodes, the links between them, and who gets which part of a model. Pure data.

Knows how a split rounds to whole units; knows no times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from bandweave.models.cut import COLUMN_UNIT, VOCABULARY_UNIT
from bandweave.models.model_shape import LayerShape, ModelShape
from bandweave.planning.costs.weight_bytes import WeightBytes
from bandweave.planning.machines.rates import NO_LINK, LinkRates, NodeRates
from bandweave.programs.split import apportion, ranges, units
from bandweave.ranges import Range

#: Weights in host memory cross to the card for the rows of a prompt: where that is ``quicker`` than
#: the processor; ``always``, from ``carry_rows`` rows of a chunk on (llama.cpp, KTransformers);
#: where it is quicker and each expert sees ``carry_rows`` ``rows`` or more (ik_llama.cpp);
#: ``never``.
CARRYING = ("quicker", "always", "rows", "never")


@dataclass(frozen=True, kw_only=True)
class EngineTraits:
    """How an engine runs a split, as far as time goes.

    ``hop_s``: what a pipeline handover costs the engine beside the link; ``exchange_s``: what an
    exchange costs it for every doubling of the nodes. ``sharded_overhead``: the part of a layer's
    fixed time that a tensor split divides. ``chunks_in_flight``: how many chunks of a prompt go
    through the stages before the engine waits for the last of them. ``mixes_prompts``: a step takes
    decoding rows and a chunk of prompts together. ``carries``: when a prompt's weights in host
    memory cross to the card, one of ``CARRYING``.
    """

    name: str
    wire_bytes_per_value: float = 4.0
    handover_bytes_per_value: float = 4.0
    latent_expanded_in_prefill: bool = False
    overlaps_stages: bool = False  # several groups of streams, or prefill chunks, in flight
    two_step_exchange: bool = True  # large messages reduce-scatter and all-gather
    hop_bytes: float = 0.0  # that two steps must save; 0: the quicker of one and two counts
    overlap_rows: int = 0  # of a chunk of a sum that crosses while its product goes on; 0: none
    chunk_rows: int = 512  # of prefill
    chunks_in_flight: int = 4
    overlap: float = 1.0  # of a prompt's chunks, the part that stages really work on at once
    mixes_prompts: bool = False
    hop_s: float = 0.0
    exchange_s: float = 0.0
    embedding_in_memory: bool = True
    sharded_overhead: float = 0.0
    streamed_rows: int = 4096  # of a chunk whose weights cross a bus to the card
    carries: str = "quicker"
    carry_rows: int = 32
    tensor_untried: bool = False  # nobody has published its tensor splits over such a link


#: bandweave as it is: int32 grid values on the wire, small sums in one hop and large ones in two,
#: of many rows in chunks that cross while the product goes on (native/executor/reduction.h),
#: absorbed latent attention, a step of up to 256 rows in each stage at a time, embedding rows from
#: the file. A prompt's steps follow each other through the stages, since only its last asks for
#: logits; nothing waits for one of them to end.
BANDWEAVE = EngineTraits(
    name="bandweave",
    overlaps_stages=True,
    chunks_in_flight=1 << 20,
    hop_bytes=64 << 10,
    overlap_rows=64,
    chunk_rows=256,
    mixes_prompts=True,
    embedding_in_memory=False,
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """The link of every pair of nodes: ``default``, but for the pairs that ``links`` names.

    ``shared_port``: a node's links share its one port (a switch); else each pair has its cable.
    ``most_joined``: how many nodes can each have a cable to all others; None for any number.
    """

    default: LinkRates = NO_LINK
    links: Mapping[tuple[int, int], LinkRates] = field(default_factory=dict)
    shared_port: bool = True
    most_joined: int | None = None

    def link(self, a: int, b: int) -> LinkRates:
        return self.links.get((a, b)) or self.links.get((b, a)) or self.default


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A pipeline stage: nodes (indexes) that split its layers between them by ``shares``."""

    nodes: tuple[int, ...]
    shares: tuple[Fraction, ...]
    layers: Range

    def __post_init__(self) -> None:
        if not self.nodes or len(self.nodes) != len(self.shares):
            raise ValueError(f"{len(self.nodes)} nodes with {len(self.shares)} shares")
        if any(share <= 0 for share in self.shares):
            raise ValueError(f"shares {[str(share) for share in self.shares]} must be above zero")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked: ``streams`` at once, each with ``context`` tokens in its cache."""

    context: int = 0
    streams: int = 1
    prompt: int = 512  # tokens of a prefill


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What of a stage's layers lies on a node's cards, 0 to 1; the rest lies in its host's memory.

    ``layers``: of attention, cache, router, shared experts and dense FFNs; ``experts``: of the
    routed experts. Experts are never on a card without their layer."""

    layers: float
    experts: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.experts <= self.layers <= 1.0:
            raise ValueError(f"{self.layers} of the layers and {self.experts} of the experts")


ON_THE_CARD = Placement(layers=1.0, experts=1.0)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model placed on nodes. Stages cover its layers in order. ``placements``: of nodes that have
    cards beside host memory; a stage of such a node has no other node."""

    model: ModelShape
    weights: WeightBytes
    nodes: tuple[NodeRates, ...]
    stages: tuple[Stage, ...]
    network: Network = field(default_factory=Network)
    engine: EngineTraits = BANDWEAVE
    kv_bytes_per_element: float = 2.0
    whole_experts: bool = False  # experts are given out whole instead of being sliced
    placements: Mapping[int, Placement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = 0
        for stage in self.stages:
            if stage.layers.start != expected or not len(stage.layers):
                raise ValueError(f"stage with layers {stage.layers} must start at {expected}")
            expected = stage.layers.stop
        if expected != len(self.model.layers):
            raise ValueError(f"stages cover {expected} of {len(self.model.layers)} layers")
        used = [node for stage in self.stages for node in stage.nodes]
        if sorted(used) != list(range(len(self.nodes))):
            raise ValueError(f"stages use nodes {used}; there are {len(self.nodes)}")

    def placement(self, node: int) -> Placement:
        return self.placements.get(node, ON_THE_CARD)


@dataclass(frozen=True, kw_only=True)
class Fractions:
    """The parts of a stage's tensors that one of its nodes reads, 0 to 1, in whole units."""

    attention: float  # query heads
    kv: float  # of the cache, replicas included
    dense: float  # columns of a dense FFN
    expert: float  # columns of every expert, or of the experts
    experts: int  # how many experts it owns, where they are whole
    vocabulary: float  # rows of the head; 0 outside the last stage


def fractions(deployment: Deployment, stage: Stage, layer: LayerShape) -> tuple[Fractions, ...]:
    """What each node of a stage has of one of its layers."""
    model = deployment.model
    if len(stage.nodes) == 1:
        last = stage is deployment.stages[-1]
        return (
            Fractions(attention=1.0, kv=1.0, dense=1.0, expert=1.0, experts=layer.experts,
                      vocabulary=float(last)),
        )  # fmt: skip
    attention = layer.attention
    heads = _counts(attention.heads, stage.shares)
    columns = _parts(layer.dense_width, COLUMN_UNIT, stage.shares)
    whole = _counts(layer.experts, stage.shares) if layer.experts else (0,) * len(heads)
    if deployment.whole_experts and layer.experts:
        expert = [count / layer.experts for count in whole]
    else:
        expert = _parts(layer.expert_width, COLUMN_UNIT, stage.shares)
    vocabulary = _parts(model.vocab, VOCABULARY_UNIT, stage.shares)
    last = stage is deployment.stages[-1]
    result = []
    for rank, owned in enumerate(ranges(heads)):
        result.append(
            Fractions(
                attention=heads[rank] / attention.heads,
                kv=_kv_part(attention.heads, attention.kv_heads, owned),
                dense=columns[rank],
                expert=expert[rank],
                experts=whole[rank],
                vocabulary=vocabulary[rank] if last else 0.0,
            )
        )
    return tuple(result)


def tensor_split(model: ModelShape, shares: Sequence[Fraction | int]) -> tuple[Stage, ...]:
    """One stage of all nodes."""
    nodes = tuple(range(len(shares)))
    layers = Range(start=0, stop=len(model.layers))
    return (Stage(nodes=nodes, shares=tuple(Fraction(s) for s in shares), layers=layers),)


def pipeline_split(model: ModelShape, shares: Sequence[Fraction | int]) -> tuple[Stage, ...]:
    """One stage a node, layers in proportion to the shares, at least one each."""
    counts = apportion(len(model.layers), [Fraction(s) for s in shares], minimum=1)
    return tuple(
        Stage(nodes=(node,), shares=(Fraction(1),), layers=layers)
        for node, layers in enumerate(ranges(counts))
    )


@lru_cache(maxsize=4096)
def _counts(total: int, shares: tuple[Fraction, ...]) -> tuple[int, ...]:
    return tuple(apportion(total, shares))  # exact fractions are slow, and layers are alike


def _parts(size: int, unit: int, shares: Sequence[Fraction]) -> list[float]:
    if not size:
        return [0.0] * len(shares)
    counts = _counts(units(size, unit), tuple(shares))
    return [len(part) / size for part in ranges(counts, unit=unit, size=size)]


def _kv_part(heads: int, kv_heads: int, owned: Range) -> float:
    if not len(owned):
        return 0.0
    group = max(heads // kv_heads, 1)
    return ((owned.stop - 1) // group + 1 - owned.start // group) / kv_heads
