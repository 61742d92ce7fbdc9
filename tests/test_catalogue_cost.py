"""The planner's model of this engine, which knows machines of a catalogue, against the engine's own
counters and against the model of probed machines."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest

from bandweave.checkpoints.model_files import shape_from_path
from bandweave.checkpoints.resolve import demo_folder
from bandweave.engine.options import EngineOptions
from bandweave.models.known_models import known_model
from bandweave.models.model_shape import ModelShape
from bandweave.models.registry import build_graph
from bandweave.planning.costs.cost import EXCHANGES_A_LAYER, decode_step, exchange_chunks
from bandweave.planning.costs.deployment import (
    BANDWEAVE,
    Deployment,
    Network,
    Workload,
    pipeline_split,
    tensor_split,
)
from bandweave.planning.costs.exchange import exchange
from bandweave.planning.costs.layer_cost import RowBatch
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.machines.rates import (
    ANY,
    INFINITE,
    NOTHING,
    ComputeRate,
    Estimate,
    LinkRates,
    NodeRates,
)
from bandweave.planning.profile.engine_cost import predict_step
from bandweave.programs.split import make_split
from bandweave.programs.work import Step
from bandweave.run_options import RunOptions
from bandweave.synth.shapes import find_shape
from tests.helpers.counted_run import counted_run
from tests.helpers.profiles import make_link, make_machine, make_nodes


def catalogue_deployment(
    shape: ModelShape, format: str, shares: Sequence[Fraction | int], *, stages: int = 1
) -> Deployment:
    """bandweave on nodes that read, and send, a byte each second: times are bytes."""
    free, unit = INFINITE, Estimate.exactly(1.0)
    node = NodeRates(
        name="unit",
        memory_bytes=1 << 50,
        weight_bytes_per_s={ANY: unit},
        compute={ANY: ComputeRate.constant(free)},
        kv_bytes_per_s=free,
        attention_flop_per_s=free,
    )
    wire = LinkRates(name="unit", latency_s=NOTHING, bytes_per_s=unit)
    split = pipeline_split if stages > 1 else tensor_split
    return Deployment(
        model=shape,
        weights=find_format(format),
        nodes=(node,) * len(shares),
        stages=split(shape, shares),
        network=Network(default=wire),
        engine=BANDWEAVE,
    )


def catalogue_bytes(deployment: Deployment, rows: int) -> tuple[list[float], float]:
    """Weights that each node reads for a token, and activations that all send for so many rows."""
    cost = decode_step(deployment, Workload(context=0))
    nodes, model = len(deployment.nodes), deployment.model
    size = rows * model.hidden * BANDWEAVE.wire_bytes_per_value
    chunks = exchange_chunks(
        deployment, deployment.stages[0],
        RowBatch(rows=rows, streams=1, start=0, decoding=False, span=rows),
    )  # fmt: skip
    each = exchange(deployment.network, range(nodes), size, "likely",
                    hop_bytes=BANDWEAVE.hop_bytes * chunks)  # fmt: skip
    sums = nodes * EXCHANGES_A_LAYER * len(model.layers) * each.bytes_s
    return list(cost.busy_s), sums + (nodes - 1) * size


def test_the_catalogue_counts_what_three_nodes_count() -> None:
    """The same run held against both models: that of probed machines, and that of the planner."""
    shares, prompt, new = (2, 1, 1), 200, 8
    options = EngineOptions(
        shares=tuple(map(Fraction, shares)), run=RunOptions(weight_format="q4", context=256)
    )
    run = counted_run(options, prompt=prompt, new=new)
    deployment = catalogue_deployment(shape_from_path(demo_folder()), "q4", shares)
    weights, sent = catalogue_bytes(deployment, 1)
    assert weights == pytest.approx(list(run.bill.weight_bytes), rel=0.04)
    assert sent == pytest.approx(run.bill.wire_bytes["activations"], rel=0.04)
    crossed = sum(new.prefill["activation_bytes"] - old.prefill["activation_bytes"]
                  for old, new in zip(run.before, run.after, strict=True))  # fmt: skip
    assert catalogue_bytes(deployment, prompt)[1] == pytest.approx(crossed, rel=0.04)


@pytest.mark.parametrize("name", ["tinyllama-1.1b", "qwen3-0.6b", "qwen3-30b-a3b"])
@pytest.mark.parametrize("rows", [1, 8, 256])
def test_both_models_of_this_engine_count_alike(name: str, rows: int) -> None:
    shares = (2, 1, 1)
    graph = build_graph(find_shape(name).spec())
    split = make_split(graph.spec, shares)
    step = Step(rows=rows, keys=100.0, logit_rows=rows, slots=rows, pages=2)
    nodes = make_nodes(*[make_machine()] * 3)
    found = predict_step(
        graph, split, nodes, lambda a, b: make_link(), step, weight_format="q4", kv_format="f16"
    )
    weights, sent = catalogue_bytes(catalogue_deployment(known_model(name), "q4", shares), rows)
    if rows == 1:
        assert weights == pytest.approx(list(found.weight_bytes), rel=0.03)
    assert sent == pytest.approx(found.wire_bytes["activations"], rel=0.03)
