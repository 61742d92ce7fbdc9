"""The formats that keep weights as GGUF stores them: what a block of each type is made of.

Block sizes are those of ggml's ``ggml-common.h``. Knows shapes; knows no bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from bandweave.formats.code_book import CodeBook
from bandweave.formats.groups import GROUP

#: Of IQ4_NL and IQ4_XS. It has no 0, so that nothing can be quantised with it here.
IQ4_BOOK = CodeBook((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))

SUPER_BLOCK = 256  # columns of a block of the K types

NO_SCALES, UNSIGNED, SIGNED, NIBBLES = "none", "unsigned", "signed", "nibbles"


@dataclass(frozen=True, kw_only=True)
class BlockType:
    """``columns`` weights have a float16 scale ``d``, and a float16 ``m`` where there are
    ``minima``. A weight is a code of ``bits`` bits; it stands for ``code - zero``, or for the
    ``book``'s number. In a super-block every ``sub`` columns have an integer scale, of a kind that
    ``scales`` names, and an integer minimum where there are any: ``NIBBLES`` have both in one byte.

    ``stored_bytes``: of a block in a GGUF file.
    """

    name: str
    columns: int
    stored_bytes: int
    bits: int
    zero: int = 0
    book: CodeBook | None = None
    minima: bool = False
    sub: int = GROUP
    scales: str = NO_SCALES

    @property
    def subs(self) -> int:
        """Integer scales of a block."""
        return 0 if self.scales == NO_SCALES else self.columns // self.sub

    @property
    def scale_bytes(self) -> int:
        """Of an output's block in a panel: its float16 numbers and its integer scales."""
        minima = self.subs if self.minima and self.scales != NIBBLES else 0
        return (4 if self.minima else 2) + self.subs + minima

    @property
    def bytes_per_weight(self) -> Fraction:
        """In a panel."""
        return Fraction(self.scale_bytes, self.columns) + Fraction(self.bits, 8)


BLOCK_TYPES: Mapping[str, BlockType] = {
    one.name: one
    for one in (
        BlockType(name="q4_1", columns=32, stored_bytes=20, bits=4, minima=True),
        BlockType(name="q5_0", columns=32, stored_bytes=22, bits=5, zero=16),
        BlockType(name="q5_1", columns=32, stored_bytes=24, bits=5, minima=True),
        BlockType(name="iq4_nl", columns=32, stored_bytes=18, bits=4, book=IQ4_BOOK),
        BlockType(
            name="q2_k", columns=256, stored_bytes=84, bits=2, minima=True, sub=16, scales=NIBBLES
        ),
        BlockType(
            name="q3_k", columns=256, stored_bytes=110, bits=3, zero=4, sub=16, scales=SIGNED
        ),
        BlockType(name="q4_k", columns=256, stored_bytes=144, bits=4, minima=True, scales=UNSIGNED),
        BlockType(name="q5_k", columns=256, stored_bytes=176, bits=5, minima=True, scales=UNSIGNED),
        BlockType(
            name="q6_k", columns=256, stored_bytes=210, bits=6, zero=32, sub=16, scales=SIGNED
        ),
        BlockType(
            name="iq4_xs", columns=256, stored_bytes=136, bits=4, book=IQ4_BOOK, scales=SIGNED
        ),
    )
}


def check_unit(format: str, inputs: int, unit: int) -> None:
    """``ValueError`` where a matrix of a block format would cut a block."""
    columns = BLOCK_TYPES[format].columns
    if inputs % columns or unit % columns:
        raise ValueError(
            f"{format} has blocks of {columns} columns, which {inputs} columns in units of {unit} "
            "would cut; choose units of whole blocks, or another format for this matrix"
        )
