"""The printable characters that stand for bytes in byte-level vocabularies. Knows no tokens."""

from __future__ import annotations


def byte_alphabet() -> list[str]:
    """The character of each byte, as GPT-2's vocabulary has it (Radford et al. 2019).

    Printable Latin-1 stands for itself, the other bytes for U+0100 and up in ascending order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    result, other = [], 0x100
    for byte in range(256):
        if byte in printable:
            result.append(chr(byte))
        else:
            result.append(chr(other))
            other += 1
    return result
