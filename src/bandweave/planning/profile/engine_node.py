"""EngineNode: one node of this engine on a machine that was probed."""

from __future__ import annotations

from dataclasses import dataclass, field

from bandweave.planning.profile.profile import MachineProfile


@dataclass(frozen=True, kw_only=True)
class EngineNode:
    """One node: ``threads`` threads on a machine; nodes with the same ``host`` share its memory and
    processors. Remembers the rates that it was asked for."""

    machine: MachineProfile
    threads: int
    host: str
    _rates: dict[tuple[str, bool, int, int, bool], float] = field(
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
        memory = self._rate(format, on_grid, rows, threads, False)
        if not cached:
            return memory
        cache = self._rate(format, on_grid, rows, threads, True)
        return cached * min(cache, memory) + (1 - cached) * memory

    def _rate(self, format: str, on_grid: bool, rows: int, threads: int, cached: bool) -> float:
        # Searches ask for the same rates with ever other parts in the cache.
        key = (format, on_grid, rows, threads, cached)
        if key not in self._rates:
            self._rates[key] = self.machine.seconds_per_byte(
                format, on_grid=on_grid, rows=rows, threads=threads, cached=cached
            )
        return self._rates[key]
