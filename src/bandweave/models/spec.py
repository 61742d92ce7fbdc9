"""ModelSpec: the sizes and constants of a decoder-only language model.

Knows what a model looks like; knows no files, no nodes, no formats and no arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

#: What is believed of a config: no model has more, and sums and products of such sizes fit int64.
MOST_LAYERS = 4096
MOST_SIZE = 1 << 28
MOST_HEAD_DIM = 1 << 16
MOST_POSITIONS = 1 << 31
MOST_WEIGHTS = 1 << 42  # of one tensor


_MOST = {
    "num_layers": MOST_LAYERS, "head_dim": MOST_HEAD_DIM, "context_length": MOST_POSITIONS,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3.x frequency scaling (``rope_type: llama3``), or plain linear scaling.

    ``kind`` is ``"llama3"`` or ``"linear"``; linear scaling uses ``factor`` alone.
    Source of the llama3 rule: the Llama 3.1 model card and transformers' ``modeling_rope_utils``.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_length: int = 8192


@dataclass(frozen=True, kw_only=True)
class RopeSpec:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

    theta: float = 10000.0
    rotary_dim: int  # leading elements of a head that are rotated, even
    scaling: RopeScaling | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that the text of a model family needs to emit its operations."""

    family: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    context_length: int
    norm_eps: float
    rope: RopeSpec
    tied_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "hidden_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "intermediate_size",
            "vocab_size",
            "context_length",
        ):
            value, most = getattr(self, name), _MOST.get(name, MOST_SIZE)
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
            if value > most:
                raise ValueError(f"{name} is {value}; more than {most} is not believed")
        widest = max(self.num_heads * self.head_dim, self.intermediate_size, self.vocab_size)
        if widest * self.hidden_size > MOST_WEIGHTS:
            raise ValueError(
                f"a tensor of {widest} by {self.hidden_size} weights is not believed; no model has "
                "one that large"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} KV heads evenly"
            )
        if self.rope.rotary_dim % 2 or not 0 < self.rope.rotary_dim <= self.head_dim:
            raise ValueError(
                f"rotary dim {self.rope.rotary_dim} does not fit a head of {self.head_dim}"
            )

    @property
    def heads_per_kv_head(self) -> int:
        return self.num_heads // self.num_kv_heads


@lru_cache(64)
def inverse_frequencies(rope: RopeSpec) -> tuple[float, ...]:
    """The ``rotary_dim / 2`` rope frequencies (radians a position) as correctly rounded float64.

    Computed in 50-digit decimal arithmetic, so that every machine gets the same bits whatever its
    libm does: ``theta ** (-2 i / rotary_dim)``, then the family's scaling.
    """
    with localcontext() as context:
        context.prec = 50
        log_theta = Decimal(rope.theta).ln()
        exact = [(-log_theta * 2 * i / rope.rotary_dim).exp() for i in range(rope.rotary_dim // 2)]
        if rope.scaling is not None:
            exact = [_scaled(frequency, rope.scaling) for frequency in exact]
        return tuple(float(frequency) for frequency in exact)


_TWO_PI = 2 * Decimal("3.14159265358979323846264338327950288419716939937510582")


def _scaled(frequency: Decimal, scaling: RopeScaling) -> Decimal:
    factor = Decimal(scaling.factor)
    if scaling.kind == "linear":
        return frequency / factor
    assert scaling.kind == "llama3", scaling.kind
    # Long wavelengths are stretched, short ones kept, those between are blended.
    low, high = Decimal(scaling.low_freq_factor), Decimal(scaling.high_freq_factor)
    wavelength = _TWO_PI / frequency
    original = Decimal(scaling.original_context_length)
    if wavelength > original / low:
        return frequency / factor
    if wavelength < original / high:
        return frequency
    blend = (original / wavelength - low) / (high - low)
    return (1 - blend) * frequency / factor + blend * frequency
