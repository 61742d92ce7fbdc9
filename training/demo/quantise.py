"""Imitations of the engine's 4-bit format. Knows the rounding rule, not the network."""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 32


def round_q4(weight: Tensor) -> Tensor:
    """The weight as the q4 format gives it back (groups of 32 along the input dimension).

    The element of largest magnitude sets the scale and lies on code 0, that is -8 steps;
    the scale is kept as a half-precision number. The rule is that of GGUF's Q4_0.
    """
    # The engine reads bfloat16 from disk, so the rounding starts from bfloat16.
    groups = weight.to(torch.bfloat16).float().reshape(-1, GROUP)
    low, high = groups.amin(dim=1, keepdim=True), groups.amax(dim=1, keepdim=True)
    extreme = torch.where(high > -low, high, low)
    # Of two extremes of one magnitude the first counts. Few groups have them, so only those
    # pay for the search.
    tied = (high == -low).squeeze(1).nonzero().squeeze(1)
    if len(tied):
        place = groups[tied].abs().argmax(dim=1, keepdim=True)
        extreme[tied] = groups[tied].gather(1, place)
    scale = extreme / -8.0
    # The codes come from the full-precision scale, the values from the stored one.
    inverse = torch.where(scale == 0, torch.zeros_like(scale), 1.0 / scale)
    codes = (groups * inverse + 8.5).floor_().clamp_(0, 15)
    return ((codes - 8.0) * scale.half().float()).reshape(weight.shape)


def round_q8_activation(x: Tensor) -> Tensor:
    """Activations as signed 8-bit integers in groups of 32, the largest at 127."""
    groups = x.float().reshape(*x.shape[:-1], -1, GROUP)
    scale = groups.abs().amax(dim=-1, keepdim=True) / 127.0
    inverse = torch.where(scale == 0, torch.zeros_like(scale), 1.0 / scale)
    return ((groups * inverse).round_() * scale).reshape(x.shape).to(x.dtype)


def fake_q4(weight: Tensor) -> Tensor:
    """Rounded forward, straight through backward."""
    with torch.no_grad():
        change = round_q4(weight.detach()) - weight.detach()
    return weight + change


def fake_q8_activation(x: Tensor) -> Tensor:
    """Rounded forward, straight through backward."""
    with torch.no_grad():
        change = round_q8_activation(x.detach()) - x.detach()
    return x + change
