"""What is left of values that crossed a link in a wire format: docs/numerics.md, section 10.

Knows arrays; knows no nodes and no bytes on the wire.

Suffixes: T rows, N values of a row, G groups, 32 the elements of a group.
"""

from __future__ import annotations

import numpy as np

from bandweave.executors.reference.math import F32
from bandweave.executors.reference.products import Grid, NumbersError, quantise_activations
from bandweave.formats import bf16
from bandweave.formats.groups import Groups


def round_grid(values_TN: Grid, wire: str) -> Grid:
    """A node's sums as all nodes of its group use them, the node itself among them."""
    if wire == "exact":
        return values_TN
    return np.rint(round_rows(values_TN.astype(np.float32), wire)).astype(np.int64)


def round_rows(x_TN: F32, wire: str) -> F32:
    """Activations as the next stage gets them; ``NumbersError`` where one is not finite."""
    if wire == "exact":
        return x_TN
    if not np.isfinite(x_TN).all():
        raise NumbersError("an activation is not finite")
    if wire == "bf16":
        rounded_TN = bf16.from_bits(bf16.to_bits(x_TN))
        if not np.isfinite(rounded_TN).all():
            raise NumbersError("an activation is not finite")
        return rounded_TN
    assert wire == "q8", wire
    width = x_TN.shape[1]
    groups = Groups(inputs=width, unit=width)
    q_TG32, scale_TG = quantise_activations(x_TN, groups, 127)
    return groups.unpad(q_TG32.astype(np.float32) * scale_TG[:, :, None])
