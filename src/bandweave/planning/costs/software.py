"""Software that exists, by name: what it runs on, and how it splits a model. Packaged data.

Knows rules of splits and whose factors count; knows no speeds. A rule is what the software's own
documentation or code says, never what it could do.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from bandweave.models.model_shape import ModelShape
from bandweave.planning.costs.deployment import EngineTraits
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.machines.tables import Row, rows

ANY, BANDWEAVE_NAME = "any", "bandweave"


@dataclass(frozen=True, kw_only=True)
class SplitRules:
    """Which splits of a model over nodes there are. ``tensor``: ``""`` (none), ``"any"``,
    ``"powers"`` (1, 2, 4, ... nodes, no more than KV heads), ``"heads"`` (a number that divides the
    query heads and the KV heads, or that they divide), ``"cache"`` (one that divides hidden size
    and KV heads). ``equal``: a tensor split's shares are equal. ``unlike``: nodes of different
    kinds work together; without it a tensor split's nodes are of one name. ``mixed``: tensor splits
    inside of a pipeline's stages."""

    tensor: str = "any"
    pipeline: bool = True
    mixed: bool = True
    equal: bool = False
    unlike: bool = True

    def allow(
        self,
        model: ModelShape,
        stages: Sequence[Sequence[int]],
        kinds: Sequence[str],
        names: Sequence[str] = (),
    ) -> bool:
        """Whether the model may be cut into these stages of nodes, whose kinds are given, and their
        names where those are known."""
        widest = max(len(stage) for stage in stages)
        if len(stages) > 1 and not (self.pipeline and (widest == 1 or self.mixed)):
            return False
        if not self.unlike and len({kinds[node] for stage in stages for node in stage}) > 1:
            return False
        if not self.unlike and names and any(len({names[n] for n in s}) > 1 for s in stages):
            return False
        if widest > 1 and len(stages) > 1 and self.equal and len({len(s) for s in stages}) > 1:
            return False
        return all(len(stage) == 1 or self._divides(model, len(stage)) for stage in stages)

    def _divides(self, model: ModelShape, count: int) -> bool:
        if self.tensor in ("", "any"):
            return bool(self.tensor)
        attention = [layer.attention for layer in model.layers if layer.attention.kind != "linear"]
        heads = {(a.heads, a.heads if a.kind == "latent" else a.kv_heads) for a in attention}
        if self.tensor == "powers":
            return count & (count - 1) == 0 and all(count <= kv for _, kv in heads)
        if self.tensor == "cache":
            return model.hidden % count == 0 and all(kv % count == 0 for _, kv in heads)
        assert self.tensor == "heads", self.tensor
        return all(q % count == 0 and (kv % count == 0 or count % kv == 0) for q, kv in heads)


EVERY_SPLIT = SplitRules()

#: Labels of ``on`` whose splits over cards of one machine were measured.
_OVER_CARDS = {"vllm-cards"}
#: Engines whose published tensor splits over machines were all over remote memory access.
_TENSOR_OVER_RDMA = {"mlx", "vllm"}


@dataclass(frozen=True, kw_only=True)
class Software:
    """A program that people can install. ``on``: by kind of hardware, whose factors count
    (``efficiency``); ``beside``: the same for cards and for the processor beside them, where it
    computes on both. ``rdma``: tensor splits only over links with remote memory access."""

    name: str
    title: str
    on: Mapping[str, str]
    tensor: str
    tensor_traits: tuple[str, ...]  # inside of one machine, between machines; or for both
    inside_traits: str
    between_traits: str
    rdma: bool
    unlike: bool
    mixed: bool
    whole_experts: bool
    beside_cards: tuple[str, ...]
    beside_host: str
    families: tuple[str, ...]
    source: str

    def runs(self, model: ModelShape) -> bool:
        return not self.families or model.architecture in self.families

    @property
    def tensor_over_rdma(self) -> bool:
        """Whether the splits of tensors over machines that its figures come from were over remote
        memory access, all of them."""
        return bool(self.tensor) and self.tensor_traits[-1] in _TENSOR_OVER_RDMA

    def rules(self, *, remote_memory: bool, inside: bool) -> SplitRules:
        """Over links with or without remote memory access; ``inside`` of one machine."""
        tensor = self.tensor if remote_memory or inside or not self.rdma else ""
        return SplitRules(
            tensor=tensor,
            pipeline=bool(self.inside_traits if inside else self.between_traits),
            mixed=self.mixed,
            equal=True,
            unlike=self.unlike,
        )

    def traits(self, *, inside: bool, kinds: Sequence[str] = ()) -> EngineTraits:
        """How it runs splits; ``inside`` of one machine, or between machines. ``kinds``: of the
        hardware that takes part."""
        stages = self.inside_traits if inside else self.between_traits
        tensor = self.tensor_traits[0 if inside else -1] if self.tensor_traits else ""
        labels = {self.on.get(kind, "") for kind in kinds if kind}
        if inside and tensor and len(labels) == 1 and labels <= _OVER_CARDS:
            (tensor,) = labels
        base = find_engine(tensor or stages or self.inside_traits or "llama.cpp")
        hop = find_engine(stages) if stages else base
        host = find_engine(self.beside_host) if self.beside_host else base
        return replace(
            base,
            name=self.name,
            streamed_rows=host.streamed_rows,
            carries=host.carries,
            carry_rows=host.carry_rows,
            hop_s=hop.hop_s,
            handover_bytes_per_value=hop.handover_bytes_per_value,
            overlaps_stages=hop.overlaps_stages if stages else base.overlaps_stages,
            embedding_in_memory=False,
        )

    def stands_in(self, kind: str) -> str:
        """The engine whose measurements stand in on a kind of hardware; empty where its own do."""
        label = self.on.get(kind, "")
        return "" if label.startswith(self.name) or not label or self.name == "exo" else label


def software_names() -> tuple[str, ...]:
    """All of them, bandweave left out."""
    return tuple(_table())


def find_software(name: str) -> Software:
    """The software of that name; ``ValueError`` with near names."""
    found = _table().get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), _table(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        known = ", ".join((*software_names(), BANDWEAVE_NAME, ANY))
        raise ValueError(f"no engine is called {name!r}; {hint}known: {known}")
    return found


def software_title(name: str) -> str:
    """As its makers write it."""
    return _table()[name].title if name in _table() else name


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Software]:
    return {row["name"]: _software(row) for row in rows("software")}


def _software(row: Row) -> Software:
    pairs = (pair.partition("=") for pair in row["on"].split())
    return Software(
        name=row["name"],
        title=row["title"],
        on={kind: label for kind, _, label in pairs},
        tensor=row["tensor"],
        tensor_traits=tuple(row["tensor_traits"].split()),
        inside_traits=row["inside_traits"],
        between_traits=row["between_traits"],
        rdma=row["rdma"] == "1",
        unlike=row["unlike"] == "1",
        mixed=row["mixed"] == "1",
        whole_experts=row["whole_experts"] == "1",
        beside_cards=tuple(row["beside_card"].split()),
        beside_host=row["beside_host"],
        families=tuple(row["families"].split()),
        source=row["source"],
    )
