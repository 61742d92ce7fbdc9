"""Published measurements, and the deployment that each one is of.

``measured.csv`` keeps every row that was found; a row that the model cannot be asked about says why
in ``left_out``. That choice was made by what a row states, never by how well it fits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from bandweave.models.known_models import known_model
from bandweave.models.model_shape import ModelShape
from bandweave.planning.costs.beside import placed
from bandweave.planning.costs.deployment import (
    Deployment,
    EngineTraits,
    Network,
    Placement,
    Stage,
    Workload,
    pipeline_split,
    tensor_split,
)
from bandweave.planning.costs.weight_bytes import WeightBytes, find_format
from bandweave.planning.machines.beside import machine_with_cards
from bandweave.planning.machines.hardware import Hardware
from bandweave.planning.machines.hardware_text import hardware_from_text
from bandweave.planning.machines.links import find_link, link_shares_port
from bandweave.planning.machines.rates import NodeRates
from bandweave.planning.machines.tables import Row, number

_TABLE = Path(__file__).with_name("measured.csv")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One published row that can be predicted."""

    id: str
    hardware: Hardware
    devices: int
    link: str  # "" for one device
    split: str  # "one", "tensor", "stages" or "beside"
    placement: Placement | None  # what lies on the cards, where the source says it
    chunk: int | None  # rows that a prompt was read in, where it was not the engine's own number
    carry_rows: int | None  # of a chunk, from which weights crossed to a card, where that was set
    carries: bool  # weights in host memory were such that a card can compute with them
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

    @property
    def machine(self) -> str:
        """The same for all rows of one machine, under whatever name."""
        return self.hardware.title


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
                hardware=_hardware(row["hardware"]),
                devices=int(row["devices"]),
                link=row["link"],
                split=row["split"],
                placement=_placement(row["on_card"]),
                chunk=_reading(row["reading"], "chunks of "),
                carry_rows=_reading(row["reading"], "carried from "),
                carries="repacked" not in row["reading"],
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


def deployment_of(row: Measurement, node: NodeRates, engine: EngineTraits) -> Deployment:
    """The deployment of a row on ``devices`` equal nodes of these rates."""
    network = Network()
    if row.link:
        network = Network(default=find_link(row.link), shared_port=link_shares_port(row.link))
    if row.chunk is not None:
        engine = replace(engine, chunk_rows=row.chunk, streamed_rows=row.chunk)
    if row.carry_rows is not None:
        engine = replace(engine, carry_rows=row.carry_rows)
    if not row.carries:
        engine = replace(engine, carries="never")
    deployment = Deployment(
        model=row.model,
        weights=row.weights,
        nodes=(node,) * row.devices,
        stages=_stages(row),
        network=network,
        engine=engine,
    )
    if row.placement is not None:
        return replace(deployment, placements={0: row.placement})
    return placed(deployment, workload_of(row, prefill=False))


_STAGES: dict[tuple[str, bool, int], tuple[Stage, ...]] = {}  # a fit asks a million times


def _stages(row: Measurement) -> tuple[Stage, ...]:
    key = (row.model.name, row.split == "stages", row.devices)
    if key not in _STAGES:
        split = pipeline_split if row.split == "stages" else tensor_split
        _STAGES[key] = split(row.model, [Fraction(1)] * row.devices)
    return _STAGES[key]


@lru_cache(maxsize=512)
def _hardware(text: str) -> Hardware:
    """A name, a description, or either ``with`` cards."""
    return machine_with_cards(text, hardware_from_text) or hardware_from_text(text)


def _placement(text: str) -> Placement | None:
    """``experts 0.25``: of the routed experts, beside all else; ``layers 0.4``: whole layers."""
    if not text:
        return None
    what, part = text.split()
    assert what in ("experts", "layers"), text
    layers = 1.0 if what == "experts" else float(part)
    return Placement(layers=layers, experts=float(part))


_READINGS = ("chunks of ", "carried from ")


def _reading(text: str, what: str) -> int | None:
    """Of ``chunks of 4096``, ``carried from 2049`` and ``repacked`` (in a layout that cards do not
    read), or some of them: the number that follows ``what``."""
    found = None
    for part in filter(None, text.split(", ")):
        assert part == "repacked" or part.startswith(_READINGS), text
        if part.startswith(what):
            found = int(part.removeprefix(what))
    return found


def workload_of(row: Measurement, *, prefill: bool) -> Workload:
    """What was asked of it."""
    if prefill:
        return Workload(context=row.depth, streams=1, prompt=row.prompt)
    return Workload(context=row.context, streams=row.streams, prompt=row.prompt)


@lru_cache(maxsize=1)
def measured_rows() -> tuple[Row, ...]:
    """All rows of ``measured.csv``, by column."""
    return tuple(csv.DictReader(io.StringIO(_TABLE.read_text("utf-8"))))
