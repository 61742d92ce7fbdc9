"""RopeSpec: rotary position embedding, and the frequencies that it turns by. Knows no arrays."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext


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
