"""CRC-32C byte by byte, as RFC 3720 has it: what the native one must give."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78  # bits reflected


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(_entry(value) for value in range(256))


def crc32c(data: bytes, before: int = 0) -> int:
    """The checksum of ``data``, or of what ``before`` is the checksum of and then ``data``."""
    total = before ^ 0xFFFFFFFF
    for byte in data:
        total = (total >> 8) ^ _TABLE[(total ^ byte) & 0xFF]
    return total ^ 0xFFFFFFFF
