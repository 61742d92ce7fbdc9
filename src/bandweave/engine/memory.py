"""Memory: what a node will need before it loads anything. Pure but for asking packed sizes."""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.executors.backend import NATIVE
from bandweave.executors.executor import PAGE_SIZE, ExecutorOptions
from bandweave.models.spec import ModelSpec
from bandweave.programs.program import Program
from bandweave.run_options import RunOptions
from bandweave.weights.loading import PANEL_BYTES

# The interpreter with numpy, and what reading and packing a panel takes beside the panel itself.
BASE_BYTES = 60 << 20
_SPARE_STATES = 4


@dataclass(frozen=True, kw_only=True)
class NodeMemory:
    """Bytes that a node needs at most, by what for; ``kv_bytes``: of the KV cache, and of recurrent
    states."""

    weight_bytes: int
    kv_bytes: int
    work_bytes: int
    base_bytes: int

    def __add__(self, other: NodeMemory) -> NodeMemory:
        return NodeMemory(**{name: value + vars(other)[name] for name, value in vars(self).items()})

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.work_bytes + self.base_bytes


def state_slots(spec: ModelSpec, streams: int) -> int:
    """Slots of recurrent states: one for each of the sequences for which there are pages, and some
    for what prompts have in common, or for more sequences that are shorter."""
    return streams + _SPARE_STATES if spec.has_state else 0


def executor_sizes(spec: ModelSpec, run: RunOptions, context: int) -> ExecutorOptions:
    """What of an executor's options follows from the model, from how it runs, and from the tokens
    of one sequence; the others are as they are by default."""
    pages = -(-context // PAGE_SIZE)
    return ExecutorOptions(
        num_pages=pages * run.streams,
        max_pages=pages,
        num_states=state_slots(spec, run.streams),
        max_drafted=run.most_drafted,
        max_rows=run.max_rows,
        kv_format=run.kv_format,
    )


def node_memory(program: Program, weight_format: str, options: ExecutorOptions) -> NodeMemory:
    """What a node needs to run a program."""
    weights = NATIVE.weight_bytes(program, weight_format)
    return NodeMemory(
        weight_bytes=weights,
        kv_bytes=NATIVE.kv_page_bytes(program, options.kv_format) * options.num_pages
        + NATIVE.state_bytes(program, options.max_drafted) * options.num_states,
        work_bytes=NATIVE.work_bytes(program, options),
        base_bytes=BASE_BYTES + min(weights * 4, PANEL_BYTES),
    )


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
