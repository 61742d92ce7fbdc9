"""Servers: how long one replica takes for a step, whoever knows. Pure.

``PlannedServer`` asks the formulas of ``cost``, for machines of the catalogue; ``ProbedServer`` the
profile of machines that were measured, operation by operation. The simulation sees no difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from bandweave.models.graph import Graph
from bandweave.planning.costs.cost import stage_costs
from bandweave.planning.costs.deployment import Deployment
from bandweave.planning.costs.layer_cost import Items, RowBatch
from bandweave.planning.profile.engine_cost import Links, predict_step
from bandweave.planning.profile.engine_node import EngineNode
from bandweave.programs.split import Split
from bandweave.programs.work import PAGE, Step

#: Seconds of a stage's work, and of the way to it from the stage before.
Times = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A step: a row of each of ``decoding`` answers, which see ``context`` keys, and ``rows`` rows
    of ``prompts`` prompts of ``span`` tokens: the average chunk of them."""

    context: int
    decoding: int = 0
    rows: int = 0
    prompts: int = 0
    span: int = 0


class Server(Protocol):
    """One replica. ``stages``: the machines of each, by name; batches follow each other through
    them. ``mixes``: a step takes decoding rows and chunks of prompts together, ``chunk_rows`` rows
    at most; else chunks of prompts have steps of their own."""

    @property
    def machines(self) -> tuple[str, ...]: ...
    @property
    def stages(self) -> tuple[tuple[str, ...], ...]: ...
    @property
    def chunk_rows(self) -> int: ...
    @property
    def mixes(self) -> bool: ...
    def times(self, batch: Batch) -> list[Times]: ...


@dataclass(frozen=True)
class PlannedServer:
    """A deployment, by the formulas. An engine that runs one step at a time is one server, however
    many stages it has. ``exchange_factor``: what an exchange takes, beside the formula."""

    deployment: Deployment
    exchange_factor: float = 1.0

    @property
    def machines(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.deployment.nodes)

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        if not self.deployment.engine.overlaps_stages:
            return (self.machines,)
        return tuple(
            tuple(self.machines[node] for node in stage.nodes) for stage in self.deployment.stages
        )

    @property
    def chunk_rows(self) -> int:
        return self.deployment.engine.chunk_rows

    @property
    def mixes(self) -> bool:
        return self.deployment.engine.mixes_prompts

    def times(self, batch: Batch) -> list[Times]:
        costs = self._items(batch)
        times = [(items.total_s - items.handover_s, items.handover_s) for items in costs]
        if not self.deployment.engine.overlaps_stages:
            return [(sum(work + way for work, way in times), 0.0)]
        return times

    def _items(self, batch: Batch) -> list[Items]:
        """By stage. What both kinds of rows share is there once: a step reads weights once."""
        decoding = self._costs(
            RowBatch(
                rows=batch.decoding, streams=batch.decoding, start=batch.context, decoding=True
            )
        )
        if not batch.rows:
            return decoding
        reading = self._costs(
            RowBatch(rows=batch.rows, streams=1, start=0, decoding=False, span=batch.span)
        )
        if not batch.decoding:
            return reading
        result = []
        for own, more in zip(reading, decoding, strict=True):
            # Products that wait for their weights have time for some more rows, others have none.
            each = (own.weights_s + own.compute_s) / batch.rows if own.compute_s > 0 else 0.0
            result.append(
                own.plus(
                    Items(
                        compute_s=each * batch.decoding,
                        attention_s=more.attention_s,
                        exchange_bytes_s=more.exchange_bytes_s,
                    )
                )
            )
        return result

    def _costs(self, batch: RowBatch) -> list[Items]:
        if not batch.rows:
            return []
        costs = [cost.items for cost in stage_costs(self.deployment, batch)]
        if self.exchange_factor == 1.0:
            return costs
        return [
            replace(items, exchange_latency_s=items.exchange_latency_s * self.exchange_factor,
                    exchange_bytes_s=items.exchange_bytes_s * self.exchange_factor)
            for items in costs
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ProbedServer:
    """bandweave on machines that were measured: what ``run`` and ``bench`` predict."""

    graph: Graph
    split: Split
    nodes: Sequence[EngineNode]
    links: Links
    weight_format: str = "q4"
    kv_format: str = "f16"
    max_rows: int = 256

    @property
    def machines(self) -> tuple[str, ...]:
        return tuple(node.host for node in self.nodes)

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(self.machines[node] for node in stage) for stage in self.split.stages)

    @property
    def chunk_rows(self) -> int:
        return self.max_rows

    @property
    def mixes(self) -> bool:
        return True

    def times(self, batch: Batch) -> list[Times]:
        rows = batch.decoding + batch.rows
        keys = batch.decoding * batch.context + batch.rows * (batch.span + 1) / 2
        step = Step(
            rows=rows,
            keys=keys / rows,
            logit_rows=batch.decoding + batch.prompts,
            slots=batch.decoding + batch.prompts,
            pages=math.ceil(max(batch.context, batch.span, 1) / PAGE),
        )
        bill = predict_step(
            self.graph, self.split, self.nodes, self.links, step,
            weight_format=self.weight_format, kv_format=self.kv_format,
        )  # fmt: skip
        if len(self.split.stages) == 1:
            return [(bill.wall, 0.0)]
        busy = bill.busy
        work = [max(busy[node] for node in stage) for stage in self.split.stages]
        # What no node's work explains is the way from stage to stage, and back.
        way = max(0.0, bill.wall - sum(work)) / len(work)
        return [(seconds, way) for seconds in work]
