"""How engines run a split, by name: the fitted cost of their hops and exchanges. Packaged data."""

from __future__ import annotations

from functools import lru_cache

from bandweave.planning.costs.deployment import BANDWEAVE, EngineTraits
from bandweave.planning.machines.tables import required, rows


@lru_cache(maxsize=32)
def find_engine(name: str) -> EngineTraits:
    """The traits of an engine; ``ValueError`` for an unknown one."""
    if name == BANDWEAVE.name:
        return BANDWEAVE
    for row in rows("engines"):
        if row["name"] == name:
            return EngineTraits(
                name=name,
                wire_bytes_per_value=required(row, "wire_bytes_per_value"),
                handover_bytes_per_value=required(row, "handover_bytes_per_value"),
                overlaps_stages=row["overlaps_stages"] == "1",
                chunk_rows=int(required(row, "chunk_rows")),
                chunks_in_flight=int(required(row, "chunks_in_flight")),
                overlap=required(row, "overlap"),
                streamed_rows=int(required(row, "streamed_rows")),
                carries=row["carries"],
                carry_rows=int(required(row, "carry_rows")),
                hop_s=required(row, "hop_us") * 1e-6,
                exchange_s=required(row, "exchange_us") * 1e-6,
                sharded_overhead=required(row, "sharded_overhead"),
            )
    known = ", ".join(row["name"] for row in rows("engines"))
    raise ValueError(f"no engine is called {name!r}; known are {known}")
