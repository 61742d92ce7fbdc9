"""Models with numbers that are tiny or subnormal, by themselves or multiplied with each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.helpers.random_model import F32, MemorySource

KINDS = ("usual", "sprinkled", "rows", "small", "tiny")


def tiny_numbers(values: F32, kind: str, generator: np.random.Generator) -> F32:
    """A tensor with some of its elements, some of its rows or all of it scaled down.

    ``small`` is near what is stored at least, so that products of two pass below the smallest
    normal number; ``tiny`` is from 2^-149 to 2^-30.
    """
    if kind == "usual":
        return values
    if kind == "small":
        return np.ldexp(values, generator.integers(-42, -16))
    powers = np.ldexp(values, generator.integers(-149, -20, size=values.shape))
    if kind == "tiny":
        return powers
    shape = values.shape if kind == "sprinkled" else (len(values), *(1,) * (values.ndim - 1))
    return np.where(generator.random(size=shape) < 0.25, powers, values)


def tiny_source(
    tensors: Mapping[str, F32], kinds: Mapping[str, str], seed: int, *, bf16: bool = False
) -> MemorySource:
    """The tensors by their kinds; ``sprinkled`` where none is named. ``bf16`` cuts them to bf16."""
    generator = np.random.default_rng(seed)
    changed: dict[str, F32] = {}
    for name, values in tensors.items():
        tiny = tiny_numbers(values, kinds.get(name, "sprinkled"), generator)
        if bf16:
            tiny = (tiny.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        changed[name] = tiny
    return MemorySource(tensors=changed, stored="bf16" if bf16 else "f32")
