"""ModelSpec: a decoder-only language model: its sizes, its constants, and what each layer is.

The one form that a model has: families parse configs into it, their text and the planner's counts
are made from it. Knows no files, no nodes, no formats and no arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from bandweave.models.cut import COLUMN_UNIT
from bandweave.models.rope import RopeSpec

#: What is believed of a config: no model has more, and sums and products of such sizes fit int64.
MOST_LAYERS = 4096
MOST_SIZE = 1 << 28
MOST_HEAD_DIM = 1 << 16
MOST_EXPERTS = 1 << 14
MOST_HEADS = 1 << 12  # with a state
MOST_STATE_DIM = 1 << 10
MOST_KERNEL = 1 << 6
MOST_POSITIONS = 1 << 31
MOST_WEIGHTS = 1 << 42  # of one tensor


def _check(spec: object, **most: int) -> None:
    for name, limit in most.items():
        value = getattr(spec, name)
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
        if value > limit:
            raise ValueError(f"{name} is {value}; more than {limit} is not believed")


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
        _check(self, num_heads=MOST_SIZE, num_kv_heads=MOST_SIZE, head_dim=MOST_HEAD_DIM)
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
        _check(self, num_heads=MOST_SIZE, head_dim=MOST_HEAD_DIM, top_k=MOST_POSITIONS)


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
        _check(self, num_heads=MOST_SIZE, kv_rank=MOST_HEAD_DIM, nope_dim=MOST_HEAD_DIM)
        _check(self, rope_dim=MOST_HEAD_DIM, v_dim=MOST_HEAD_DIM)
        if self.q_rank is not None:
            _check(self, q_rank=MOST_SIZE)
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
        _check(self, key_heads=MOST_HEADS, value_heads=MOST_HEADS, key_dim=MOST_STATE_DIM)
        _check(self, value_dim=MOST_STATE_DIM, conv_kernel=MOST_KERNEL)
        if self.value_heads % self.key_heads:
            raise ValueError(
                f"{self.value_heads} value heads cannot share {self.key_heads} key heads evenly"
            )

    @property
    def sharing(self) -> int:
        """Value heads that share a key head."""
        return self.value_heads // self.key_heads


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """The function of an MLP's gate: ``"silu"``, ``"gelu_tanh"``, or ``"clamped_silu"`` with its
    ``limit`` and ``alpha`` (docs/numerics.md, section 5)."""

    function: str = "silu"
    limit: float = 0.0
    alpha: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MlpSpec:
    """A gated MLP (Shazeer 2020, arXiv:2002.05202)."""

    intermediate_size: int
    gate: GateSpec = GateSpec()
    bias: bool = False

    def __post_init__(self) -> None:
        _check(self, intermediate_size=MOST_SIZE)


SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN = "softmax", "sigmoid", "softmax_of_chosen"
LARGEST, TWO_LARGEST = "largest", "two_largest"


@dataclass(frozen=True, kw_only=True)
class RouterSpec:
    """How a mixture's experts are chosen and weighted (docs/numerics.md, section 12).

    ``scoring``: of the logits; ``logit_bias``: a number is added to each logit; ``correction``: to
    each score, for the choice alone (DeepSeek-V3, arXiv:2412.19437). With ``groups`` only experts
    of the best ``top_groups`` are chosen, by ``group_score``: a group's largest score or its two
    largest. ``normalise``: weights are divided by their sum; all are multiplied by ``factor``.
    """

    scoring: str = SOFTMAX
    logit_bias: bool = False
    correction: bool = False
    groups: int = 1
    top_groups: int = 1
    group_score: str = LARGEST
    normalise: bool = False
    factor: float = 1.0

    def __post_init__(self) -> None:
        assert self.scoring in (SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN), self.scoring
        assert self.group_score in (LARGEST, TWO_LARGEST), self.group_score
        _check(self, groups=MOST_EXPERTS, top_groups=MOST_EXPERTS)


@dataclass(frozen=True, kw_only=True)
class MixtureSpec:
    """A mixture of gated MLPs of ``intermediate_size`` (Shazeer et al. 2017, arXiv:1701.06538),
    ``top_k`` of ``num_experts`` for each token beside a shared one of ``shared_size``, 0 for none.

    ``shared_gate``: the shared one is weighted by a logistic function of its own; ``bias``: each
    expert's products have biases.
    """

    num_experts: int
    top_k: int
    intermediate_size: int
    router: RouterSpec = RouterSpec()
    gate: GateSpec = GateSpec()
    shared_size: int = 0
    shared_gate: bool = False
    bias: bool = False

    def __post_init__(self) -> None:
        _check(self, num_experts=MOST_EXPERTS, top_k=MOST_EXPERTS, intermediate_size=MOST_SIZE)
        router = self.router
        if self.top_k > self.num_experts:
            raise ValueError(f"{self.top_k} of {self.num_experts} experts cannot be chosen")
        if self.num_experts % router.groups:
            raise ValueError(
                f"{self.num_experts} experts do not make {router.groups} groups of one size"
            )
        if router.top_groups > router.groups:
            raise ValueError(f"{router.top_groups} of {router.groups} groups cannot be chosen")
        each = self.num_experts // router.groups
        if each * router.top_groups < self.top_k:
            raise ValueError(
                f"{router.top_groups} groups of {each} experts are too few to choose "
                f"{self.top_k} experts from"
            )
        if router.group_score == TWO_LARGEST and router.groups > 1 and each < 2:
            raise ValueError("a group's two largest scores need two experts a group")
        if not 0 <= self.shared_size <= MOST_SIZE:
            raise ValueError(f"shared_size is {self.shared_size}; it must be 0 to {MOST_SIZE}")

    @property
    def slots(self) -> int:
        """MLPs that a token goes through."""
        return self.top_k + (1 if self.shared_size else 0)


_NORMS = {"pre": 2, "post": 2, "both": 4, "parallel": 1}

Attention = HeadsSpec | LatentSpec | LinearSpec
Mlp = MlpSpec | MixtureSpec


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


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """One decoder layer.

    ``form``: where its norms are. ``"pre"``: of what each block reads (Llama); ``"post"``: of what
    each block gives, before it is added (OLMo 2); ``"both"`` (Gemma 2); ``"parallel"``: one norm of
    what both blocks read (Cohere). ``residual_factor``: of what each block gives.
    """

    attention: Attention
    mlp: Mlp
    form: str = "pre"
    residual_factor: float = 1.0

    def __post_init__(self) -> None:
        assert self.form in _NORMS, self.form

    @property
    def norms(self) -> int:
        """How many norms of the residual's width it has."""
        return _NORMS[self.form]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that a family's text needs to emit its operations, and that counts are made of.

    ``family`` is a name of the registry; layers that are alike may be one object. ``norm``:
    ``"rms"`` or ``"layer"`` (without bias); ``norm_offset``: added to every norm's weights;
    ``embedding_factor`` and ``logit_factor``: of the embedding rows and of the logits;
    ``logit_cap``: bounds the logits by its tanh, 0 for no bound; ``further``: the layer behind the
    others that predicts the token after the next (DeepSeek-V3, arXiv:2412.19437), None where there
    is none; ``column_block``: weights of a row that are stored as one, which no unit of a product
    cuts whose columns are split.
    """

    family: str
    hidden_size: int
    vocab_size: int
    context_length: int
    norm_eps: float
    layers: tuple[LayerSpec, ...]
    tied_embeddings: bool = False
    norm: str = "rms"
    norm_offset: float = 0.0
    embedding_factor: float = 1.0
    logit_factor: float = 1.0
    logit_cap: float = 0.0
    further: LayerSpec | None = None
    column_block: int = 1

    def __post_init__(self) -> None:
        assert self.norm in ("rms", "layer"), self.norm
        _check(self, hidden_size=MOST_SIZE, vocab_size=MOST_SIZE, context_length=MOST_POSITIONS)
        if not 1 <= len(self.layers) <= MOST_LAYERS:
            raise ValueError(f"{len(self.layers)} layers; there may be 1 to {MOST_LAYERS}")
        widest = max(self.vocab_size, *map(_width, {id(one): one for one in self.layers}.values()))
        if widest * self.hidden_size > MOST_WEIGHTS:
            raise ValueError(
                f"a tensor of {widest} by {self.hidden_size} weights is not believed; no model has "
                "one that large"
            )

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def column_unit(self) -> int:
        """Columns of an MLP that no split divides."""
        return math.lcm(COLUMN_UNIT, self.column_block)

    def head_unit(self, attention: Attention) -> int:
        """Query heads that no split divides: the fewest whose outputs are whole blocks."""
        return heads_together(attention, self.column_block)

    def layer(self, index: int) -> LayerSpec:
        """A layer by its number; the further one comes behind the others."""
        if index == len(self.layers) and self.further is not None:
            return self.further
        return self.layers[index]

    @cached_property
    def has_state(self) -> bool:
        """Whether some layer has a recurrent state."""
        return any(isinstance(layer.attention, LinearSpec) for layer in self.layers)

    @cached_property
    def run_length(self) -> int:
        """Tokens of the longest context that can be run: ``context_length``, or fewer where
        attention is another one beyond."""
        limits = (_limit(layer.attention) for layer in self.layers)
        return min([self.context_length, *(limit for limit in limits if limit is not None)])

    @property
    def beyond_run_length(self) -> str:
        """What attention does beyond ``run_length``, with the field of a config that says so."""
        if any(isinstance(layer.attention, LatentSpec) for layer in self.layers):
            return "(index_topk) attention leaves positions out"
        return "(llama_4_scaling_beta) attention scales queries by their positions"

    @cached_property
    def heads(self) -> HeadsSpec:
        """The first layer's attention, whose heads, and their sizes, are those of all layers."""
        first = self.layers[0].attention
        sizes = {(type(one), *_head_sizes(one)) for one in (x.attention for x in self.layers)}
        if len(sizes) > 1 or not isinstance(first, HeadsSpec):
            raise ValueError("the layers' heads differ, or are none")
        return first

    @property
    def num_heads(self) -> int:
        return self.heads.num_heads

    @property
    def num_kv_heads(self) -> int:
        return self.heads.num_kv_heads

    @property
    def head_dim(self) -> int:
        return self.heads.head_dim

    @property
    def heads_per_kv_head(self) -> int:
        return self.heads.heads_per_kv_head

    @cached_property
    def intermediate_size(self) -> int:
        """The columns of every layer's MLP."""
        sizes = {one.mlp.intermediate_size for one in self.layers}
        if len(sizes) > 1 or not isinstance(self.layers[0].mlp, MlpSpec):
            raise ValueError("the layers' MLPs differ, or are mixtures")
        return sizes.pop()


def _limit(attention: Attention) -> int | None:
    """Positions that an attention can be run for; None for all."""
    if isinstance(attention, HeadsSpec):
        return attention.run_length
    index = attention.index if isinstance(attention, LatentSpec) else None
    return None if index is None else index.top_k


def _width(layer: LayerSpec) -> int:
    """Rows of the largest matrix that reads the residual."""
    attention, heads = layer.attention, 1
    if isinstance(attention, HeadsSpec):
        heads = attention.num_heads * attention.head_dim
    if isinstance(attention, LinearSpec):
        heads = attention.value_heads * attention.value_dim
    return max(heads, layer.mlp.intermediate_size)


def _head_sizes(one: Attention) -> tuple[int, ...]:
    if not isinstance(one, HeadsSpec):
        return ()
    return one.num_heads, one.num_kv_heads, one.head_dim
