"""Memory: what a node will need before it loads anything. Pure but for asking packed sizes."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave import _native
from bandweave.executors.native import ExecutorOptions, kv_page_bytes
from bandweave.formats.groups import Groups
from bandweave.programs.program import Program
from bandweave.weights.loading import PANEL_BYTES, packed_bytes

# The interpreter with numpy, and what reading and packing a panel takes beside the panel itself.
BASE_BYTES = 60 << 20
# Of a quantised row in q8, more than in q4: native/kernels/kernels.h, activation_bytes.
_ACTIVATION_GROUP_BYTES, _ACTIVATION_PADDING = 72, 128
_READ_BYTES = 128 << 10  # that a link reads at once, twice


@dataclass(frozen=True, kw_only=True)
class NodeMemory:
    """Bytes that a node needs at most, by what for."""

    weight_bytes: int
    kv_bytes: int
    work_bytes: int
    base_bytes: int

    def __add__(self, other: NodeMemory) -> NodeMemory:
        return NodeMemory(**{name: value + vars(other)[name] for name, value in vars(self).items()})

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.work_bytes + self.base_bytes


def node_memory(program: Program, weight_format: str, options: ExecutorOptions) -> NodeMemory:
    """What a node needs to run a program."""
    weights = packed_bytes(program, weight_format)
    return NodeMemory(
        weight_bytes=weights,
        kv_bytes=kv_page_bytes(program, options.kv_format) * options.num_pages,
        work_bytes=_step_bytes(program, options.max_rows)
        + _exchange_bytes(program, options.max_rows),
        base_bytes=BASE_BYTES + min(weights * 4, PANEL_BYTES),
    )


def _step_bytes(program: Program, rows: int) -> int:
    """What a step of that many rows computes on: buffers, quantised activations, rope's angles."""
    widths = sum(
        (8 if buffer.dtype == "grid" else 4) * (buffer.width + 16)
        for buffer in program.buffers.values()
    )
    quantised = 0
    for weight in program.weights.values():
        groups = Groups(inputs=weight.inputs, unit=weight.unit).count
        quantised = max(quantised, _ACTIVATION_GROUP_BYTES * groups + _ACTIVATION_PADDING)
    return rows * (widths + quantised + 8 * sum(map(len, program.frequencies))) + 1024


def _exchange_bytes(program: Program, rows: int) -> int:
    """Messages of a step of that many rows: the node's own, and its peers' until they are read.

    Peers' sums are counted as int32, as they nearly always are, in buffers that grow by doubling.
    Logits of more rows than a few are not counted: only a digest of a prompt asks for them.
    """
    own = received = 0
    for op in program.ops:
        if op.kind == "all_reduce_add":
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


def check_memory(who: str, needed: NodeMemory, available: int | None) -> None:
    """``MemoryError`` that says how much is needed and how much there is."""
    if available is None or needed.total_bytes <= available:
        return
    raise MemoryError(
        f"{who} needs {gigabytes(needed.total_bytes)} of memory "
        f"({gigabytes(needed.weight_bytes)} weights, {gigabytes(needed.kv_bytes)} KV cache) but "
        f"only {gigabytes(available)} are available; use more machines, a smaller --format or a "
        "smaller --context"
    )


def gigabytes(count: int) -> str:
    """``"3.25 GB"``, in powers of ten as bandwidths are."""
    return f"{count / 1e9:.2f} GB"
