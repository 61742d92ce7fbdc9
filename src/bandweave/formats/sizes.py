"""What a packed matrix takes in memory, in the layout of ``formats.packing``. Sizes only."""

from __future__ import annotations

from bandweave.formats.block_packing import PANEL
from bandweave.formats.block_types import BLOCK_TYPES, check_unit
from bandweave.formats.groups import GROUP
from bandweave.formats.names import QUANTISED_FORMATS
from bandweave.formats.registry import get_format


def packed_bytes(format: str, outputs: int, inputs: int, unit: int) -> int:
    """Bytes of ``outputs`` rows of ``inputs`` weights in units of ``unit`` along k: outputs are
    padded to panels of 16, the groups of quantised formats to 32. ``ValueError`` where ``unit``
    would cut a GGUF block."""
    panels = -(-outputs // PANEL)
    if format in BLOCK_TYPES:
        check_unit(format, inputs, unit)
    if format in QUANTISED_FORMATS:
        whole, rest = divmod(inputs, unit)
        inputs = GROUP * (whole * -(-unit // GROUP) + -(-rest // GROUP))
    size = get_format(format).bytes_per_weight * inputs * panels * PANEL
    assert size.denominator == 1, (format, size)
    return int(size)
