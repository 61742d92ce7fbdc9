"""EngineNode: one node of this engine on a machine that was probed."""

from __future__ import annotations

from dataclasses import dataclass, field

from bandweave.planning.profile import MachineProfile


@dataclass(frozen=True, kw_only=True)
class EngineNode:
    """One node: ``threads`` threads on a machine; nodes with the same ``host`` share its memory and
    processors. Remembers the rates that it was asked for."""

    machine: MachineProfile
    threads: int
    host: str
    _rates: dict[tuple[str, bool, int, int, float], float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"{self.threads} threads a node; it must be at least 1")

    def seconds_per_byte(
        self, format: str, *, on_grid: bool, rows: int, threads: int, cached: float
    ) -> float:
        """As the machine's profile says, where the part ``cached`` of the weights, 0 to 1, lies in
        the last-level cache."""
        key = (format, on_grid, rows, threads, cached)
        if key not in self._rates:
            memory, cache = (
                self.machine.seconds_per_byte(
                    format, on_grid=on_grid, rows=rows, threads=threads, cached=lies
                )
                for lies in (False, True)
            )
            self._rates[key] = cached * min(cache, memory) + (1 - cached) * memory
        return self._rates[key]
