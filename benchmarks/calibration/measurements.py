"""Published measurements, and the deployment that each one is of.

``measured.csv`` keeps every row that was found; a row that the model cannot be asked about says why
in ``left_out``. That choice was made by what a row states, never by how well it fits.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from bandweave.models.known_models import known_model
from bandweave.models.model_shape import ModelShape
from bandweave.planning.costs.deployment import (
    Deployment,
    EngineTraits,
    Network,
    Workload,
    pipeline_split,
    tensor_split,
)
from bandweave.planning.costs.weight_bytes import WeightBytes, find_format
from bandweave.planning.machines.hardware import Hardware, find_hardware
from bandweave.planning.machines.links import find_link, link_shares_port
from bandweave.planning.machines.rates import NodeRates
from bandweave.planning.machines.tables import Row, number

_TABLE = Path(__file__).with_name("measured.csv")
HELD_OUT_PART = 3  # one row in three of every class is held out


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One published row that can be predicted."""

    id: str
    hardware: Hardware
    devices: int
    link: str  # "" for one device
    split: str  # "one", "tensor" or "stages"
    model: ModelShape
    weights: WeightBytes
    engine: str
    streams: int
    context: int  # mean, while decoding
    prompt: int
    depth: int  # tokens before the prompt
    decode_tokens_per_s: float | None
    prefill_tokens_per_s: float | None
    source: str

    @property
    def kind(self) -> str:
        return f"{self.engine}/{self.hardware.kind}"


@lru_cache(maxsize=1)
def measurements() -> tuple[Measurement, ...]:
    """The rows that can be predicted."""
    models: dict[str, ModelShape] = {}
    result = []
    for row in measured_rows():
        if row["left_out"]:
            continue
        name = row["model"]
        models.setdefault(name, known_model(name))
        result.append(
            Measurement(
                id=row["id"],
                hardware=find_hardware(row["hardware"]),
                devices=int(row["devices"]),
                link=row["link"],
                split=row["split"],
                model=models[name],
                weights=find_format(row["format"]),
                engine=row["engine"],
                streams=int(row["streams"]),
                context=int(row["context"]),
                prompt=int(row["prompt"]),
                depth=int(row["depth"]),
                decode_tokens_per_s=number(row, "decode_tokens_per_s"),
                prefill_tokens_per_s=number(row, "prefill_tokens_per_s"),
                source=row["source"],
            )
        )
    return tuple(result)


def left_out() -> Mapping[str, int]:
    """How many rows are not predicted, by reason."""
    counts: dict[str, int] = {}
    for row in measured_rows():
        if row["left_out"]:
            counts[row["left_out"]] = counts.get(row["left_out"], 0) + 1
    return counts


def held_out_ids(part: int = HELD_OUT_PART) -> frozenset[str]:
    """The rows that are kept from fitting: of every class, in the order of the hash of their id,
    every ``part``-th. So the choice is the same everywhere and depends on no value."""
    by_kind: dict[str, list[Measurement]] = {}
    for row in measurements():
        by_kind.setdefault(f"{row.kind} {row.split}", []).append(row)
    result: set[str] = set()
    for group in by_kind.values():
        ordered = sorted(group, key=lambda row: hashlib.sha256(row.id.encode()).hexdigest())
        result |= {row.id for row in ordered[part - 1 :: part]}
    return frozenset(result)


def deployment_of(row: Measurement, node: NodeRates, engine: EngineTraits) -> Deployment:
    """The deployment of a row on ``devices`` equal nodes of these rates."""
    shares = [Fraction(1)] * row.devices
    split = pipeline_split if row.split == "stages" else tensor_split
    network = Network()
    if row.link:
        network = Network(default=find_link(row.link), shared_port=link_shares_port(row.link))
    return Deployment(
        model=row.model,
        weights=row.weights,
        nodes=(node,) * row.devices,
        stages=split(row.model, shares),
        network=network,
        engine=engine,
    )


def workload_of(row: Measurement, *, prefill: bool) -> Workload:
    """What was asked of it."""
    if prefill:
        return Workload(context=row.depth, streams=1, prompt=row.prompt)
    return Workload(context=row.context, streams=row.streams, prompt=row.prompt)


@lru_cache(maxsize=1)
def measured_rows() -> tuple[Row, ...]:
    """All rows of ``measured.csv``, by column."""
    return tuple(csv.DictReader(io.StringIO(_TABLE.read_text("utf-8"))))
