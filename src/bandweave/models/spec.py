"""ModelSpec: a decoder-only language model: its sizes, its constants, and what each layer is.

The one form that a model has: families parse configs into it, their text and the planner's counts
are made from it. Knows no files, no nodes, no formats and no arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from bandweave.models.attention_spec import (
    Attention,
    HeadsSpec,
    LatentSpec,
    LinearSpec,
    heads_together,
    run_limit,
)
from bandweave.models.cut import COLUMN_UNIT
from bandweave.models.limits import (
    MOST_LAYERS,
    MOST_POSITIONS,
    MOST_SIZE,
    MOST_WEIGHTS,
    check_sizes,
)
from bandweave.models.mlp_spec import Mlp, MlpSpec

_NORMS = {"pre": 2, "post": 2, "both": 4, "parallel": 1}


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
        check_sizes(
            self, hidden_size=MOST_SIZE, vocab_size=MOST_SIZE, context_length=MOST_POSITIONS
        )
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
        limits = (run_limit(layer.attention) for layer in self.layers)
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
