"""From a measured profile to the rates that the planner's cost model asks for. Pure.

The planner compares any hardware in bytes, FLOPs and latencies; ``planning.profile.engine_cost``
predicts this engine operation by operation. Both start from the same measurements.
"""

from __future__ import annotations

from bandweave.formats.registry import get_format
from bandweave.planning.machines.rates import ComputeRate, Estimate, LinkRates, NodeRates
from bandweave.planning.profile.link_profile import LinkProfile
from bandweave.planning.profile.profile import MachineProfile

_OPS_OF_A_LAYER = 11  # norms, products, rope, append, attention, gate, sums
_TOGETHER = 4  # query heads that read one KV head, in many models
_KV_BYTES = 4.0  # a key and a value, f16
_FLOPS_OF_A_PAIR = 4.0  # of a query and a key's dim: two products, two sums


def rates_from_profile(
    machine: MachineProfile,
    *,
    name: str = "",
    threads: int | None = None,
    memory_bytes: int | None = None,
) -> NodeRates:
    """A node of ``threads`` threads (all that were measured) on a probed machine, with the spread
    of the measurement as its range."""
    threads = min(threads or machine.cpus, machine.cpus)
    spread = _spread(machine)

    def around(value: float) -> Estimate:
        return Estimate.within(value, spread)

    weights, compute = {}, {}
    for format in machine.formats:
        per_byte = 1 / float(get_format(format).bytes_per_weight)
        points = []
        for rows in sorted({p.rows for p in machine.products if p.format == format}):
            rate = machine.seconds_per_byte(format, on_grid=False, rows=rows, threads=threads)
            points.append((rows, around(2 * rows * per_byte / rate)))
        compute[format] = ComputeRate(points=tuple(points))
        read = machine.seconds_per_byte(format, on_grid=False, rows=1, threads=threads)
        weights[format] = around(1 / read)
    return NodeRates(
        name=name or machine.processor,
        memory_bytes=machine.memory_bytes if memory_bytes is None else memory_bytes,
        weight_bytes_per_s=weights,
        compute=compute,
        kv_bytes_per_s=around(
            _KV_BYTES * threads / (_TOGETHER * _attention(machine, threads, streamed=True))
        ),
        attention_flop_per_s=around(
            _FLOPS_OF_A_PAIR * threads / _attention(machine, threads, streamed=False)
        ),
        layer_overhead_s=around(_OPS_OF_A_LAYER * machine.op_seconds(threads)),
        step_overhead_s=around(machine.step.seconds_per_step),
        source=f"measured {machine.measured_at}",
    )


def link_rates_from_profile(link: LinkProfile, *, name: str = "") -> LinkRates:
    """A probed link. What a message keeps its sender busy for is what sending the least one took;
    encoding and adding count as part of the way."""
    first = min(link.times, key=lambda time: time.payload_bytes)
    spread = 1 + first.spread
    return LinkRates(
        name=name or link.transport,
        latency_s=Estimate.within(first.wait_seconds + first.other_seconds, spread),
        bytes_per_s=Estimate.within(link.bytes_per_s, spread),
        message_s=Estimate.within(first.wire_seconds, spread),
        source="measured",
    )


def _attention(machine: MachineProfile, threads: int, *, streamed: bool) -> float:
    seconds = machine.attention_seconds(
        "f16", together=_TOGETHER, streamed=streamed, threads=threads
    )
    return max(seconds, 1e-15)  # a measurement in the noise is no division by zero


def _spread(machine: MachineProfile) -> float:
    """The factor that the middle product's rounds lie within."""
    spreads = sorted(product.spread for product in machine.products)
    return 1 + spreads[len(spreads) // 2]
