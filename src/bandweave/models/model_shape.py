"""ModelShape: what the cost model asks of a model, as counts. Knows no nodes, rates or files.

Counts are of parameters (weights), by role; bytes come from ``weight_bytes``. A layer says what a
token reads and computes in it. Built by ``config_shape`` from a config.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

#: What a weight is for: formats may store roles differently, and splits cut them differently.
ROLES = (
    "attention", "dense", "expert", "shared", "router", "norm", "embedding", "head",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """One layer's attention.

    ``kind`` is ``"heads"`` (multi-head, grouped- or multi-query), ``"latent"`` (MLA, DeepSeek-V2,
    arXiv:2405.04434) or ``"linear"`` (a recurrent state instead of a KV cache).
    """

    kind: str
    heads: int
    kv_heads: int  # what a split can cut the cache by; 1 for latent
    parameters: int  # projections, biases, norms of queries and keys, sinks
    kv_elements: int  # that one token leaves in the cache
    flops_per_pair: int  # of one query row with one cached position, all heads
    expanded_flops_per_pair: int  # the same with a latent cache expanded (prefill); else equal
    window: int | None = None  # a row sees at most this many positions
    state_elements: int = 0  # of a recurrent state, read and written once a row

    def visible(self, position: float) -> float:
        """How many cached positions a row at ``position`` (from 0) reads, itself included."""
        seen = position + 1
        return seen if self.window is None else min(seen, float(self.window))

    def pairs(self, start: int, rows: int) -> float:
        """Query-key pairs of ``rows`` consecutive rows, the first at position ``start``."""
        stop = start + rows
        if self.window is None or stop <= self.window:
            return rows * start + rows * (rows + 1) / 2
        if start >= self.window:
            return float(rows * self.window)
        inside = self.window - start
        return inside * start + inside * (inside + 1) / 2 + (rows - inside) * self.window


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One decoder layer. ``expert_parameters`` is that of one routed expert."""

    attention: AttentionShape
    dense_parameters: int = 0
    dense_width: int = 0  # columns that a split cuts
    shared_parameters: int = 0
    router_parameters: int = 0
    expert_parameters: int = 0
    expert_width: int = 0
    experts: int = 0
    top_k: int = 0
    norm_parameters: int = 0

    def total_by_role(self) -> dict[str, int]:
        return {
            "attention": self.attention.parameters,
            "dense": self.dense_parameters,
            "expert": self.expert_parameters * self.experts,
            "shared": self.shared_parameters,
            "router": self.router_parameters,
            "norm": self.norm_parameters,
        }

    @property
    def active_parameters(self) -> int:
        """What one token reads and multiplies with."""
        totals = self.total_by_role()
        totals["expert"] = self.expert_parameters * self.top_k
        return sum(totals.values())


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A model. ``embedding_parameters`` and ``head_parameters`` both count a tied table."""

    name: str
    architecture: str  # as config.json has it, or GGUF's name
    runs_on_bandweave: bool
    hidden: int
    vocab: int
    context_length: int
    layers: tuple[LayerShape, ...]
    embedding_parameters: int
    head_parameters: int
    tied: bool
    final_norm_parameters: int = 0
    unused_parameters: int = 0  # stored but not read while decoding: drafts' layers, vision
    stored_format: str = "bf16"  # a name of weight_bytes
    stored_bytes_by_role: Mapping[str, int] = field(default_factory=dict)  # of a file, exact
    run_length: int | None = None  # tokens up to which bandweave runs it, None for all

    def why_not_run(self, context: int) -> str:
        """Why bandweave does not run it at ``context`` tokens; empty where it does."""
        if not self.runs_on_bandweave:
            return f"does not run {self.architecture} yet"
        if self.run_length is not None and context > self.run_length:
            return (
                f"runs {self.architecture} up to {self.run_length} tokens (--context), beyond "
                "which its attention is another one"
            )
        return ""

    @property
    def total_parameters(self) -> int:
        """All stored parameters, a tied table once, without ``unused_parameters``."""
        layers = sum(sum(layer.total_by_role().values()) for layer in self.layers)
        head = 0 if self.tied else self.head_parameters
        return layers + self.embedding_parameters + head + self.final_norm_parameters

    @property
    def read_parameters(self) -> int:
        """What one token of one stream reads: the head, but of the embedding only one row."""
        layers = sum(layer.active_parameters for layer in self.layers)
        return layers + self.head_parameters + self.final_norm_parameters

    @property
    def active_parameters(self) -> int:
        """As makers publish it: ``read_parameters`` and the embedding table, a tied one once."""
        return self.read_parameters + (0 if self.tied else self.embedding_parameters)

    @property
    def has_experts(self) -> bool:
        return any(layer.experts for layer in self.layers)

    def parameters_by_role(self) -> dict[str, int]:
        """All stored parameters by role; a tied table counts as head, not as embedding."""
        result: Counter[str] = Counter(dict.fromkeys(ROLES, 0))
        for layer in self.layers:
            result.update(layer.total_by_role())
        result["head"] += self.head_parameters
        result["embedding"] += 0 if self.tied else self.embedding_parameters
        result["norm"] += self.final_norm_parameters
        return dict(result)

    @cached_property
    def _distinct(self) -> tuple[LayerShape, ...]:
        return tuple(dict.fromkeys(self.layers))

    @cached_property
    def _kinds(self) -> tuple[int, ...]:
        number = {layer: index for index, layer in enumerate(self._distinct)}
        return tuple(number[layer] for layer in self.layers)

    def distinct_layers(self, start: int, stop: int) -> list[tuple[LayerShape, int]]:
        """The different layers among ``[start, stop)``, each with how many there are."""
        counts = Counter(self._kinds[start:stop])
        return [(self._distinct[kind], count) for kind, count in counts.items()]

    def kv_elements(self, context: int) -> int:
        """Elements of the cache of one stream at ``context`` tokens, windows respected."""
        total = 0
        for layer in self.layers:
            seen = min(context, layer.attention.window or context)
            total += layer.attention.kv_elements * seen + layer.attention.state_elements
        return total


def distinct_experts(experts: int, top_k: int, rows: float, *, routing: float = 1.0) -> float:
    """Expected distinct experts that ``rows`` tokens hit: ``E (1 - (1 - k/E)^(rows^routing))``.

    ``routing`` 1 is uniform and independent routing: the most that can be expected. Real routing
    is skewed and rows of one text resemble each other; 0.75 fits one published batch series
    (prediction.md, Cost), so predictions use the range.
    """
    if experts == 0 or rows <= 0:
        return 0.0
    return experts * (1.0 - (1.0 - top_k / experts) ** (max(rows, 1.0) ** routing))
