"""Published measurements of just what is asked: the same machines, model and number of bits.

Reads the packaged table ``published.csv``, made from the rows that the predictions were fitted to.
Says what others measured, and decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from bandweave.models.known_models import known_model
from bandweave.models.model_shape import ModelShape
from bandweave.planning.costs.weight_bytes import WeightBytes, find_format
from bandweave.planning.machines.beside import machine_with_cards
from bandweave.planning.machines.hardware import Hardware
from bandweave.planning.machines.hardware_text import hardware_from_text
from bandweave.planning.machines.tables import Row, number, required, rows

_BITS = 1.09  # formats whose sizes differ by less stand for each other: q4 and mlx-4bit
_MOST_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Published:
    """A measurement. ``context``: the mean while it decoded; ``link`` empty where none is named."""

    machines: str
    model: str
    format: str
    engine: str
    split: str
    link: str
    streams: int
    context: int
    decode_tokens_per_s: float | None
    prefill_tokens_per_s: float | None
    source: str

    @property
    def words(self) -> str:
        """``27.8 tokens/s (exo, mlx-8bit, 1024 tokens of context)``."""
        link = f", {self.link}" if self.link else ""
        streams = f", {self.streams} streams" if self.streams > 1 else ""
        return (
            f"{self.decode_tokens_per_s:.3g} tokens/s ({self.engine}, {self.format}{link}"
            f"{streams}, {self.context} tokens of context)"
        )


def published_for(
    model: ModelShape, weights: WeightBytes, hardware: Sequence[Hardware]
) -> tuple[Published, ...]:
    """What was published for these machines, all alike, and a model of the same shape."""
    if len({machine.name for machine in hardware}) != 1:
        return ()
    found = []
    for row in rows("published"):
        if int(row["devices"]) != len(hardware) or not _same_machine(row, hardware[0]):
            continue
        ratio = find_format(row["format"]).default / weights.default
        if 1 / _BITS <= ratio <= _BITS and _same_model(row["model"], model):
            found.append(_published(row))
    return tuple(found)


def published_sentence(found: Sequence[Published], streams: int, context: int) -> str:
    """The rows for as many streams, those of the nearest contexts first; empty for none."""
    rows_ = [each for each in found if each.streams == streams and each.decode_tokens_per_s]
    if not rows_:
        return ""
    nearest = sorted(rows_, key=lambda each: abs(each.context - context))[:_MOST_SHOWN]
    more = len(rows_) - len(nearest)
    rest = f"; {more} more" if more else ""
    return f"Measured by others: {'; '.join(each.words for each in nearest)}{rest}."


def _published(row: Row) -> Published:
    return Published(
        machines=f"{row['devices']} x {_machine(row['hardware']).name}",
        model=row["model"],
        format=row["format"],
        engine=row["engine"],
        split=row["split"],
        link=row["link"],
        streams=int(required(row, "streams")),
        context=int(required(row, "context")),
        decode_tokens_per_s=number(row, "decode_tokens_per_s"),
        prefill_tokens_per_s=number(row, "prefill_tokens_per_s"),
        source=row["source"],
    )


def _same_machine(row: Row, machine: Hardware) -> bool:
    """Also of another memory size, or under another name with the same figures."""
    known = _machine(row["hardware"])
    if [card.name for card in known.cards] != [card.name for card in machine.cards]:
        return False
    name, ours_alone = (each.name.partition(" with ")[0] for each in (known, machine))
    if re.fullmatch(re.escape(name) + r"(-\d+)?", ours_alone):
        return True
    titles = {each.title.split("(")[0] for each in (known, machine)}
    if machine.cards or not known.flop_per_s or len(titles) > 1:
        return False
    ours = (machine.kind, machine.bytes_per_s, machine.flop_per_s, machine.sockets)
    return ours == (known.kind, known.bytes_per_s, known.flop_per_s, known.sockets)


@lru_cache(maxsize=512)
def _machine(name: str) -> Hardware:
    """A machine of the table, of the catalogue or described, which may have cards in it."""
    return machine_with_cards(name, hardware_from_text) or hardware_from_text(name)


def _same_model(name: str, model: ModelShape) -> bool:
    if name == model.name:
        return True
    known = known_model(name)
    return (known.architecture, known.total_parameters, known.read_parameters) == (
        model.architecture, model.total_parameters, model.read_parameters
    )  # fmt: skip
