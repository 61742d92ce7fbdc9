"""RopeSpec: rotary position embedding, and the frequencies that it turns by. Knows no arrays."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

_DIGITS = 50
MOST_ROTARY = 1 << 12  # elements of a head; each frequency takes 0.1 ms of decimal arithmetic
_TWO_PI = 2 * Decimal("3.14159265358979323846264338327950288419716939937510582")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How a rope's frequencies are stretched for a context longer than its first training's.

    ``kind``: ``"linear"`` (``factor`` alone), ``"llama3"`` (the ``*_freq_factor``), ``"yarn"`` (the
    ``beta_*`` and the three fields behind them) or ``"longrope"`` (``divisors``: one a frequency).
    ``attention_factor``: of cosines and sines, None for what the kind gives. Sources: the Llama 3.1
    model card, Peng et al. 2023 (arXiv:2309.00071), Ding et al. 2024 (arXiv:2402.13753), and
    transformers' ``modeling_rope_utils``.
    """

    kind: str
    factor: float = 1.0
    original_context_length: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    truncate: bool = True
    attention_factor: float | None = None
    divisors: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RopeSpec:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864).

    ``interleaved``: the pairs are elements ``2 i`` and ``2 i + 1``, else ``i`` and
    ``i + rotary_dim / 2``.
    """

    theta: float = 10000.0
    rotary_dim: int  # elements of a head that are rotated, even
    interleaved: bool = False
    scaling: RopeScaling | None = None

    @property
    def softmax_factor(self) -> float:
        """What DeepSeek's attention multiplies its scores by beside their scale: YaRN's growth of
        ``mscale_all_dim`` squared; 1 where there is none."""
        scaling = self.scaling
        if scaling is None or scaling.kind != "yarn" or not scaling.mscale_all_dim:
            return 1.0
        with localcontext() as context:
            context.prec = _DIGITS
            return float(_growth(scaling, scaling.mscale_all_dim) ** 2)


@dataclass(frozen=True, kw_only=True)
class RopeTable:
    """What heads are turned by: ``frequencies`` in radians a position, one a pair of elements, and
    what multiplies cosines and sines."""

    frequencies: tuple[float, ...]
    factor: float = 1.0

    def __len__(self) -> int:
        return len(self.frequencies)


def rope_table(rope: RopeSpec) -> RopeTable:
    """The ``rotary_dim / 2`` frequencies and the factor, as correctly rounded float64.

    Computed in 50-digit decimal arithmetic, so that every machine gets the same bits whatever its
    libm does: ``theta ** (-2 i / rotary_dim)``, then the family's scaling.
    """
    with localcontext() as context:
        context.prec = _DIGITS
        log_theta = Decimal(rope.theta).ln()
        exact = [(-log_theta * 2 * i / rope.rotary_dim).exp() for i in range(rope.rotary_dim // 2)]
        if rope.scaling is None:
            return RopeTable(frequencies=tuple(map(float, exact)))
        scaled = _SCALINGS[rope.scaling.kind](exact, rope, rope.scaling)
        return RopeTable(frequencies=tuple(map(float, scaled)), factor=float(_factor(rope.scaling)))


def _linear(exact: list[Decimal], rope: RopeSpec, scaling: RopeScaling) -> list[Decimal]:
    return [frequency / Decimal(scaling.factor) for frequency in exact]


def _llama3(exact: list[Decimal], rope: RopeSpec, scaling: RopeScaling) -> list[Decimal]:
    """Long wavelengths are stretched, short ones kept, those between are blended."""
    low, high = Decimal(scaling.low_freq_factor), Decimal(scaling.high_freq_factor)
    original, factor = Decimal(scaling.original_context_length), Decimal(scaling.factor)

    def scaled(frequency: Decimal) -> Decimal:
        wavelength = _TWO_PI / frequency
        if wavelength > original / low:
            return frequency / factor
        if wavelength < original / high:
            return frequency
        blend = (original / wavelength - low) / (high - low)
        return (1 - blend) * frequency / factor + blend * frequency

    return [scaled(frequency) for frequency in exact]


def _yarn(exact: list[Decimal], rope: RopeSpec, scaling: RopeScaling) -> list[Decimal]:
    """Frequencies that turn often within the first context are kept, those that turn less than once
    are stretched, and a ramp over their numbers blends those between."""
    dim = Decimal(rope.rotary_dim)
    original, log_theta = Decimal(scaling.original_context_length), Decimal(rope.theta).ln()

    def number(turns: float) -> Decimal:
        """Which frequency turns so often within the first context."""
        return dim * (original / (Decimal(turns) * _TWO_PI)).ln() / (2 * log_theta)

    low, high = number(scaling.beta_fast), number(scaling.beta_slow)
    if scaling.truncate:
        low = low.to_integral_value(ROUND_FLOOR)
        high = high.to_integral_value(ROUND_CEILING)
    low, high = max(low, Decimal(0)), min(high, dim - 1)
    if low == high:
        high += Decimal("0.001")
    result = []
    for i, frequency in enumerate(exact):
        ramp = min(max((i - low) / (high - low), Decimal(0)), Decimal(1))
        result.append(ramp * frequency / Decimal(scaling.factor) + (1 - ramp) * frequency)
    return result


def _longrope(exact: list[Decimal], rope: RopeSpec, scaling: RopeScaling) -> list[Decimal]:
    pairs = zip(exact, scaling.divisors, strict=True)
    return [frequency / Decimal(divisor) for frequency, divisor in pairs]


_SCALINGS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope}


def _growth(scaling: RopeScaling, scale: float) -> Decimal:
    """YaRN's ``0.1 scale ln(factor) + 1``; 1 where nothing is stretched."""
    if scaling.factor <= 1:
        return Decimal(1)
    return Decimal("0.1") * Decimal(scale) * Decimal(scaling.factor).ln() + 1


def _factor(scaling: RopeScaling) -> Decimal:
    """What cosines and sines are multiplied by."""
    if scaling.kind not in ("yarn", "longrope"):
        return Decimal(1)
    if scaling.attention_factor is not None:
        return Decimal(scaling.attention_factor)
    if scaling.kind == "longrope":
        if scaling.factor <= 1:
            return Decimal(1)
        original = Decimal(scaling.original_context_length)
        return (1 + Decimal(scaling.factor).ln() / original.ln()).sqrt()
    if scaling.mscale and scaling.mscale_all_dim:
        return _growth(scaling, scaling.mscale) / _growth(scaling, scaling.mscale_all_dim)
    return _growth(scaling, 1.0)
