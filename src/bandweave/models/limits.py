"""What is believed of a model's sizes, whoever says them."""

from __future__ import annotations

#: What is believed of a config: no model has more, and sums and products of such sizes fit int64.
MOST_LAYERS = 4096
MOST_SIZE = 1 << 28
MOST_HEAD_DIM = 1 << 16
MOST_EXPERTS = 1 << 14
MOST_HEADS = 1 << 12  # with a state
MOST_STATE_DIM = 1 << 10
MOST_KERNEL = 1 << 6
MOST_POSITIONS = 1 << 31
MOST_WEIGHTS = 1 << 42  # of one tensor


def check_sizes(spec: object, **most: int) -> None:
    """``ValueError`` where a field of the record is less than 1, or more than its limit."""
    for name, limit in most.items():
        value = getattr(spec, name)
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
        if value > limit:
            raise ValueError(f"{name} is {value}; more than {limit} is not believed")
