"""What the native executor needs beside weights and KV cache, before it is made.

Pure but for asking the native module for sizes.
"""

from __future__ import annotations

from bandweave import _native
from bandweave.formats.groups import Groups
from bandweave.programs.operations import BY_KIND
from bandweave.programs.program import Op, Program

# Of a quantised row in q8, more than in q4: native/kernels/kernels.h, activation_bytes.
_ACTIVATION_GROUP_BYTES, _ACTIVATION_PADDING = 72, 128
_READ_BYTES = 128 << 10  # that a link reads at once, twice


def step_bytes(program: Program, rows: int) -> int:
    """What a step of that many rows computes on: buffers, quantised activations, rope's angles."""
    widths = sum(
        (8 if buffer.dtype == "grid" else 4) * (buffer.width + 16)
        for buffer in program.buffers.values()
    )
    quantised = 0
    for weight in program.weights.values():
        groups = Groups(inputs=weight.inputs, unit=weight.unit).count
        quantised = max(quantised, _ACTIVATION_GROUP_BYTES * groups + _ACTIVATION_PADDING)
    gathered = max((_gathered_bytes(program, op) for op in program.ops), default=0)
    return rows * (widths + quantised + gathered + 8 * sum(map(len, program.frequencies))) + 1024


def _gathered_bytes(program: Program, op: Op) -> int:
    """What products with several matrices, the chosen experts' or the heads', read of a row, beside
    the row itself."""
    if BY_KIND[op.kind].cost not in ("experts", "heads"):
        return 0
    names = [name for name in op.names("matrices") if name is not None]
    widest = max((program.weights[name].inputs for name in names), default=0)
    # As floats, which is more than as integers with their scales.
    count = len(names) if BY_KIND[op.kind].cost == "heads" else op.number("top_k") + 2
    return 4 * (widest + 64) * count


def exchange_bytes(program: Program, rows: int) -> int:
    """Messages of a step of that many rows: the node's own, and its peers' until they are read.

    Peers' sums are counted as int32, as they nearly always are, in buffers that grow by doubling.
    Logits of more rows than a few are not counted: only a digest of a prompt asks for them.
    """
    own = received = 0
    for op in program.ops:
        if BY_KIND[op.kind].cost == "sum":
            group = op.attributes["group"]
            assert isinstance(group, tuple)
            if len(group) == 1:
                continue
            width = op.inputs[0].width
            own = max(own, _native.reduction_bytes(rows, width, len(group)))
            received = max(received, 2 * (len(group) - 1) * (4 * rows * width + _READ_BYTES))
        elif op.kind in ("embed", "recv", "send") and program.num_nodes > 1:
            received = max(received, 3 * 4 * rows * program.hidden_size)
    return own + received + (program.num_nodes - 1) * _READ_BYTES
