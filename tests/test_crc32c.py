"""CRC-32C: the published values, whatever computes it and in however many parts."""

from __future__ import annotations

import random

import pytest

from bandweave import _native
from tests.helpers.crc32c import crc32c

VARIANTS = _native.crc32c_variants()

# RFC 3720, appendix B.4, and the check value of the catalogues.
PUBLISHED = {
    b"": 0x00000000,
    b"123456789": 0xE3069283,
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
    bytes.fromhex(
        "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
        "0200000000000000"
    ): 0xD9963A56,
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("data", PUBLISHED)
def test_published_values(data: bytes, variant: str) -> None:
    assert _native.crc32c(data, variant) == crc32c(data) == PUBLISHED[data]


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_length_at_any_place(variant: str) -> None:
    """Streams of 1024 and of 128 bytes, three at a time, then words, then bytes."""
    data = random.Random(1).randbytes(9000)
    lengths = [*range(70), 127, 128, 383, 384, 385, 767, 768, 3071, 3072, 3073, 6144, 8320, 8990]
    for length in lengths:
        for start in (0, 1, 5):
            part = data[start : start + length]
            assert _native.crc32c(part, variant) == crc32c(part), (length, start)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checksum_goes_on_from_that_of_the_bytes_before(variant: str) -> None:
    data = random.Random(2).randbytes(5000)
    for cut in (0, 1, 8, 1000, 3072, 4999, 5000):
        before = _native.crc32c(data[:cut], variant)
        assert _native.crc32c(data[cut:], variant, before) == crc32c(data)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_flipped_bit_shows(variant: str) -> None:
    data = bytearray(random.Random(3).randbytes(300))
    sound = _native.crc32c(bytes(data), variant)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        assert _native.crc32c(bytes(data), variant) != sound
        data[bit // 8] ^= 1 << bit % 8


def test_an_unknown_variant_is_refused() -> None:
    assert VARIANTS[-1] == "tables"
    with pytest.raises(ValueError, match="no CRC-32C by abacus"):
        _native.crc32c(b"", "abacus")
