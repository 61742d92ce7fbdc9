"""Mutations: JSON values and bytes that are almost right, from a seeded generator."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1 << 31, -(1 << 31), 1 << 63, 10**30, 1e308, 1e-320,
    float("inf"), float("nan"), "", "0", "own", "x" * 300, "\x1b[2J\x07", "\u202e\x00", "\ud800",
    "é", "../../etc/passwd", "/dev/zero", "1e2000000000", "9" * 5000, "%s%n{}", [], {}, [[]],
    [None], [1, 2, 3], ["a", 1], {"type": "load"}, {"": None},
)  # fmt: skip


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class Mutator:
    """Everything that it gives follows from its seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self) -> Any:
        """Something odd."""
        if self.random.random() < 0.02:
            return nested(self.random.choice((5, 200)))
        return copy.deepcopy(self.random.choice(ODD))

    def json(self, value: Any, times: int = 1) -> Any:
        """A copy of a JSON value that differs in some places."""
        value = copy.deepcopy(value)
        for _ in range(times):
            value = self._once(value)
        return value

    def _once(self, value: Any) -> Any:
        if isinstance(value, dict) and value and self.random.random() < 0.95:
            key = self.random.choice(list(value))
            choice = self.random.random()
            if choice < 0.1:
                del value[key]
            elif choice < 0.15:
                value[self.random.choice(("", "type", "x" * 70, key + " "))] = self.value()
            else:
                value[key] = self._once(value[key])
            return value
        if isinstance(value, list) and value and self.random.random() < 0.7:
            index = self.random.randrange(len(value))
            choice = self.random.random()
            if choice < 0.2:
                del value[index]
            elif choice < 0.4:
                value.insert(index, copy.deepcopy(value[index]))
            else:
                value[index] = self._once(value[index])
            return value
        if isinstance(value, str) and value and self.random.random() < 0.5:
            at = self.random.randrange(len(value))
            return value[:at] + chr(self.random.randrange(1, 0x2FFF)) + value[at + 1 :]
        if isinstance(value, int) and self.random.random() < 0.5:
            return value + self.random.choice((-1, 1, 1 << self.random.randrange(70)))
        return self.value()

    def bytes(self, data: bytes, times: int = 1) -> bytes:
        """A copy of some bytes that differs in some places."""
        changed = bytearray(data)
        for _ in range(times):
            at = self.random.randrange(len(changed) + 1)
            choice = self.random.random()
            if choice < 0.5 and at < len(changed):
                changed[at] ^= 1 << self.random.randrange(8)
            elif choice < 0.65:
                changed[at:at] = self.random.randbytes(self.random.randrange(9))
            elif choice < 0.8:
                del changed[at : at + self.random.randrange(9)]
            else:
                del changed[at:]
        return bytes(changed)


def text_of(message: Any) -> bytes:
    """As Python writes it, which goes beyond JSON (NaN, lone surrogates)."""
    return json.dumps(message, separators=(",", ":")).encode()
