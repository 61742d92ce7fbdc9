"""RunOptions: how a model runs: one value from the command to every node.

What is not in here is where it runs (machines, threads, processors), which no answer shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from bandweave.formats.names import KV_FORMATS, RUN_FORMATS

MAX_NODES = 1024  # of one model
WIRE_FORMATS = ("exact", "bf16", "q8")
SPECULATORS = ("off", "ngram", "draft", "mtp")
DEFAULT_DRAFT_TOKENS = 8
MAX_DRAFT_TOKENS = 64
_MOST_STREAMS, _MOST_ROWS = 1 << 16, 1 << 16


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """``context`` tokens of one sequence (None: the model's, at most 4096), ``streams`` sequences
    for which there are KV pages, ``max_rows`` rows of a step; ``isa`` a kernel variant by name,
    empty for the fastest; ``wire``: activations cross ``"exact"``, or rounded to ``"bf16"`` or
    ``"q8"``, which changes the answer; ``speculate``: who drafts tokens, ``"off"``, ``"ngram"``,
    ``"draft"``, a smaller model, or ``"mtp"``, the model's own further layer, at most
    ``draft_tokens`` at a time. ``ValueError`` for what makes no sense."""

    weight_format: str = "q4"
    kv_format: str = "f16"
    context: int | None = None
    streams: int = 1
    max_rows: int = 256
    isa: str = ""
    wire: str = "exact"
    speculate: str = "off"
    draft_tokens: int = DEFAULT_DRAFT_TOKENS

    @property
    def further(self) -> bool:
        """Whether the model's further layer is wanted, too."""
        return self.speculate == "mtp"

    @property
    def most_drafted(self) -> int:
        """Rows of a sequence that a step may have for drafted tokens."""
        return 0 if self.speculate == "off" else self.draft_tokens

    def __post_init__(self) -> None:
        for name, value, known in (
            ("weight format", self.weight_format, RUN_FORMATS),
            ("KV format", self.kv_format, KV_FORMATS),
            ("wire format", self.wire, WIRE_FORMATS),
            ("speculation", self.speculate, SPECULATORS),
        ):
            if value not in known:
                raise ValueError(f"{name} {value[:40]!r} is unknown; choose {', '.join(known)}")
        for name, value, most in (
            ("streams", self.streams, _MOST_STREAMS),
            ("max_rows", self.max_rows, _MOST_ROWS),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
            if value > most:
                raise ValueError(f"{name} is {value}; it may be {most} at most")
        if not 1 <= self.draft_tokens <= MAX_DRAFT_TOKENS:
            raise ValueError(
                f"drafts of {self.draft_tokens} tokens; they may have 1 to {MAX_DRAFT_TOKENS}"
            )
