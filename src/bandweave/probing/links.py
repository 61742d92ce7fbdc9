"""How long an exchange takes between every two nodes, by the size of its messages.

All nodes go through the same pairs, sizes and rounds; node 0 opens every step, as in a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bandweave import _native
from bandweave.executors.executor import StepError
from bandweave.executors.native import NativeExecutor
from bandweave.planning.profile.link_profile import LinkProfile, LinkTime
from bandweave.planning.profile.profile import median_and_spread
from bandweave.probing import programs
from bandweave.probing.stopwatch import Setting, Timed, make_step, take_turns, vectors_of

#: Grid values of an exchange, and how many a step holds: from the least message (a block of 64
#: values) to 16 MB. Several in a row find their buffers in the caches, as behind a product.
SIZES = ((64, 32), (256, 32), (1024, 32), (2048, 32), (4096, 32), (16384, 16), (262144, 16),
         (4194304, 1))  # fmt: skip
#: Fewer, where a mesh of many machines is looked at before each has a share: the latency, what a
#: layer of a model sends, and the rate.
QUICK_SIZES = ((64, 16), (2048, 16), (8192, 16), (262144, 2))
_BLOCK = 64
_HEADER_BYTES = 32

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What all nodes do together."""

    num_nodes: int
    sizes: tuple[tuple[int, int], ...] = SIZES
    rounds: int = 9

    @property
    def pairs(self) -> Iterator[Pair]:
        return ((a, b) for b in range(self.num_nodes) for a in range(b))


def probe_pairs(
    node: int,
    exchange: _native.Exchange,
    schedule: Schedule,
    setting: Setting,
    transport_of: Callable[[int], str],
    on_pair: Callable[[], None] = lambda: None,
) -> dict[Pair, LinkProfile]:
    """The links that this node is the first end of. ``StepError`` where a node fails."""
    found = {}
    alone = _alone(schedule, setting)
    for pair in schedule.pairs:
        times = _probe_pair(node, exchange, schedule, setting, pair, alone)
        if node == pair[0]:
            found[pair] = LinkProfile(transport=transport_of(pair[1]), times=tuple(times))
        on_pair()
    return found


def message_bytes(width: int) -> int:
    """Bytes of the frame that carries ``width`` grid values, all of them small."""
    blocks = -(-width // _BLOCK)
    return _HEADER_BYTES + -(-blocks // 8) * 8 + 4 * _BLOCK * blocks


def _alone(schedule: Schedule, setting: Setting) -> dict[int, float]:
    """Seconds by width of a sum that one node makes alone: every node's of a sum has them too."""
    timed = {
        width: Timed(
            program=programs.reduces(width, count), options=setting.options(1), item="other"
        )
        for width, count in schedule.sizes
    }
    times = take_turns(timed, schedule.rounds)
    return {width: median_and_spread(times[width])[0] / count for width, count in schedule.sizes}


def _probe_pair(
    node: int,
    exchange: _native.Exchange,
    schedule: Schedule,
    setting: Setting,
    pair: Pair,
    alone: Mapping[int, float],
) -> list[LinkTime]:
    values: dict[int, list[tuple[float, ...]]] = {width: [] for width, _ in schedule.sizes}
    executors = {
        width: _executor(node, exchange, schedule, setting, pair, width, count)
        for width, count in schedule.sizes
    }
    for number in range(schedule.rounds + 1):
        for width, count in _in_turn(schedule.sizes, number):
            items = _step(node, executors[width])
            if number:  # the first warms up
                values[width].append(tuple(item / count for item in items))
    if node not in pair:
        return []
    return [
        _link_time(message_bytes(width), found, alone[width]) for width, found in values.items()
    ]


def _in_turn(sizes: Sequence[tuple[int, int]], number: int) -> Sequence[tuple[int, int]]:
    return sizes if number % 2 == 0 else sizes[::-1]


def _executor(
    node: int,
    exchange: _native.Exchange,
    schedule: Schedule,
    setting: Setting,
    pair: Pair,
    width: int,
    count: int,
) -> NativeExecutor:
    program = programs.reduces(width, count, node=node, num_nodes=schedule.num_nodes, pair=pair)
    return NativeExecutor(program, vectors_of(program), setting.options(1), exchange)


def _step(node: int, executor: NativeExecutor) -> tuple[float, ...]:
    """Seconds of wire, wait and the rest of one step on this node."""
    names = ("wire", "exchange_wait", "other")
    before = executor.bill(decode=False)
    if node == 0:
        executor.run(make_step(1, 0, 1), np.zeros((1, 1), np.float32))
    elif executor.follow() != "ran":
        raise StepError("node 0 has left in the midst of a probe")
    after = executor.bill(decode=False)
    return tuple(after[name] - before[name] for name in names)


def _link_time(size: int, values: Sequence[tuple[float, ...]], alone: float) -> LinkTime:
    wire, wait, other = (median_and_spread(column)[0] for column in zip(*values, strict=True))
    spread = median_and_spread([sum(items) for items in values])[1]
    return LinkTime(
        payload_bytes=size,
        wire_seconds=wire,
        wait_seconds=wait,
        other_seconds=max(0.0, other - alone),
        spread=spread,
    )
