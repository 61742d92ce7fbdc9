"""States: which slots of recurrent states belong to which sequence, and what the others keep.

A layer with a recurrent state cannot look back: a sequence goes on where a slot stands, and nowhere
else. Knows slot numbers and prefixes; the states themselves are the executors'.
"""

from __future__ import annotations

from collections import OrderedDict

Key = tuple[int, tuple[int, ...]]  # a prefix of full pages, and the tokens behind it


class StatePool:
    """All slots of a model's states. A slot is free, a sequence's own, or keeps what some tokens
    left until it is needed, the one that was left first going first.

    A kept slot can be read by any number of sequences, each of which writes to one of its own; from
    ``lend`` to ``give_back`` it cannot be taken away.
    """

    def __init__(self, num_states: int) -> None:
        self.num_states = num_states
        self._free = list(range(num_states - 1, -1, -1))
        self._kept: OrderedDict[Key, int] = OrderedDict()
        self._keys: dict[int, Key] = {}
        self._readers = [0] * num_states

    @property
    def available(self) -> int:
        """Slots that nobody uses."""
        return len(self._free) + sum(not self._readers[slot] for slot in self._kept.values())

    def take(self) -> int | None:
        """A slot for a sequence of its own, forgetting what it keeps; None where none is left."""
        if self._free:
            return self._free.pop()
        for key, slot in self._kept.items():
            if not self._readers[slot]:
                self._forget(key)
                return self._free.pop()
        return None

    def free(self, slot: int) -> None:
        """A slot holds nothing that anybody wants."""
        assert slot not in self._keys and slot not in self._free, slot
        self._free.append(slot)

    def keep(self, slot: int, key: Key) -> None:
        """A slot of a sequence's own holds what these tokens left."""
        if key in self._kept:
            self._kept.move_to_end(key)
            self.free(slot)
            return
        self._kept[key] = slot
        self._keys[slot] = key

    def has(self, key: Key) -> bool:
        return key in self._kept

    def lend(self, key: Key) -> int:
        """The slot that keeps what these tokens left, to be read."""
        slot = self._kept[key]
        self._kept.move_to_end(key)
        self._readers[slot] += 1
        return slot

    def give_back(self, slot: int) -> None:
        self._readers[slot] -= 1

    def take_over(self, key: Key) -> int | None:
        """That slot as a sequence's own; None where somebody else is to read it."""
        slot = self._kept[key]
        if self._readers[slot]:
            return None
        self._forget(key)
        return self._free.pop()

    def drop(self, key: Key) -> None:
        """Nothing is kept of these tokens any more; no matter if nothing was."""
        if key in self._kept and not self._readers[self._kept[key]]:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        slot = self._kept.pop(key)
        del self._keys[slot]
        self._free.append(slot)
