"""What a layer's attention may be: heads, latents, or a state instead of a cache. Plain data.

Knows no nodes, no formats and no arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bandweave.models.limits import (
    MOST_HEAD_DIM,
    MOST_HEADS,
    MOST_KERNEL,
    MOST_POSITIONS,
    MOST_SIZE,
    MOST_STATE_DIM,
    check_sizes,
)
from bandweave.models.rope import RopeSpec


@dataclass(frozen=True, kw_only=True)
class HeadsSpec:
    """Multi-head attention, grouped- or multi-query where there are fewer KV heads.

    ``rope``: None where heads are not turned, or only counts are wanted; ``window``: positions that
    a row sees at most, None for all; ``scale``: of the scores, None for one over the square root of
    ``head_dim``; ``score_cap``: scores are bounded by its tanh, 0 for no bound; ``qk_norm``:
    queries and keys are normed, ``"head"`` by head, ``"all"`` over all heads; ``sinks``: a logit a
    head that no position has; ``output_gate``: the query projection also gives a gate of the
    output; ``run_length``: positions that can be run, beyond which queries have another scale, None
    for all.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: RopeSpec | None = None
    window: int | None = None
    scale: float | None = None
    score_cap: float = 0.0
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: str = ""
    sinks: bool = False
    output_gate: bool = False
    run_length: int | None = None

    def __post_init__(self) -> None:
        check_sizes(self, num_heads=MOST_SIZE, num_kv_heads=MOST_SIZE, head_dim=MOST_HEAD_DIM)
        assert self.qk_norm in ("", "head", "all"), self.qk_norm
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} KV heads evenly"
            )
        rotary = None if self.rope is None else self.rope.rotary_dim
        if rotary is not None and (rotary % 2 or not 0 < rotary <= self.head_dim):
            raise ValueError(f"rotary dim {rotary} does not fit a head of {self.head_dim}")

    @property
    def heads_per_kv_head(self) -> int:
        return self.num_heads // self.num_kv_heads


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """The indexer of DeepSeek V3.2 (arXiv:2512.02556), which scores all cached positions and lets
    the attention read the best ``top_k`` of them. It is counted and not run: up to a context of
    that length it chooses all."""

    num_heads: int
    head_dim: int
    top_k: int

    def __post_init__(self) -> None:
        check_sizes(self, num_heads=MOST_SIZE, head_dim=MOST_HEAD_DIM, top_k=MOST_POSITIONS)


@dataclass(frozen=True, kw_only=True)
class LatentSpec:
    """Latent attention (MLA, DeepSeek-V2, arXiv:2405.04434): the cache holds a latent of
    ``kv_rank`` and one rotated key of ``rope_dim`` for all heads. ``q_rank`` None: queries are
    projected at once. ``norm_eps``: of the norms of latents. ``rope`` is None where only counts are
    wanted; ``index`` where all positions are read."""

    num_heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    norm_eps: float = 1e-6
    rope: RopeSpec | None = None
    index: IndexSpec | None = None

    def __post_init__(self) -> None:
        check_sizes(self, num_heads=MOST_SIZE, kv_rank=MOST_HEAD_DIM, nope_dim=MOST_HEAD_DIM)
        check_sizes(self, rope_dim=MOST_HEAD_DIM, v_dim=MOST_HEAD_DIM)
        if self.q_rank is not None:
            check_sizes(self, q_rank=MOST_SIZE)
        if self.kv_rank + self.rope_dim > MOST_HEAD_DIM:
            raise ValueError(f"a latent key of {self.kv_rank + self.rope_dim} is not believed")
        if self.rope is not None and self.rope.rotary_dim != self.rope_dim:
            raise ValueError(
                f"a rope of {self.rope.rotary_dim} elements does not fit a key of {self.rope_dim}"
            )

    @property
    def query_dim(self) -> int:
        """Elements of a head's query before its keys' matrix is multiplied in."""
        return self.nope_dim + self.rope_dim

    @property
    def scale(self) -> float:
        """Of scores: one over the square root of a query, and what YaRN adds."""
        factor = 1.0 if self.rope is None else self.rope.softmax_factor
        return factor / math.sqrt(self.query_dim)


@dataclass(frozen=True, kw_only=True)
class LinearSpec:
    """Gated delta net (Yang et al. 2024, arXiv:2412.06464) as Qwen3-Next has it: a state instead of
    a cache.

    Each of ``key_heads`` heads of queries and keys serves as many of the ``value_heads``, in order;
    a value head's state is a matrix of ``key_dim`` by ``value_dim``. Queries, keys and values first
    go through a causal convolution over ``conv_kernel`` rows, channel by channel.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int

    def __post_init__(self) -> None:
        check_sizes(self, key_heads=MOST_HEADS, value_heads=MOST_HEADS, key_dim=MOST_STATE_DIM)
        check_sizes(self, value_dim=MOST_STATE_DIM, conv_kernel=MOST_KERNEL)
        if self.value_heads % self.key_heads:
            raise ValueError(
                f"{self.value_heads} value heads cannot share {self.key_heads} key heads evenly"
            )

    @property
    def sharing(self) -> int:
        """Value heads that share a key head."""
        return self.value_heads // self.key_heads


Attention = HeadsSpec | LatentSpec | LinearSpec


def query_heads(attention: Attention) -> int:
    """How many heads a layer's attention is cut by."""
    return attention.key_heads if isinstance(attention, LinearSpec) else attention.num_heads


def heads_together(attention: Attention, block: int) -> int:
    """The fewest heads, of those that attention is cut by, whose outputs are whole blocks."""
    if isinstance(attention, LinearSpec):
        width = attention.sharing * attention.value_dim
    else:
        width = attention.v_dim if isinstance(attention, LatentSpec) else attention.head_dim
    return block // math.gcd(block, width)


def run_limit(attention: Attention) -> int | None:
    """Positions that an attention can be run for; None for all."""
    if isinstance(attention, HeadsSpec):
        return attention.run_length
    index = attention.index if isinstance(attention, LatentSpec) else None
    return None if index is None else index.top_k
