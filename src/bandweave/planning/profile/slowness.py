"""Why a run is much slower than was predicted: the likely cause, from both bills. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bandweave.planning.profile.bill import Bill

MUCH = 2.0  # times as slow as predicted, to be worth a remark
_CAUSES = {
    "weights": "{node} takes {times} times as long to read weights: memory that is swapped out or "
    "shared with other programs, or fewer free processors than when it was probed",
    "attention": "attention takes {times} times as long on {node}: other programs use its "
    "processors",
    "exchange_wait": "nodes wait for {node}: other programs use its processors, or nodes of one "
    "host have more threads than it has processors (--threads)",
    "wire": "the link takes {times} times as long: it is slower than when it was probed, or others "
    "use it",
    "sampling": "choosing tokens takes {times} times as long on {node}",
    "other": "{node} is held up between operations: more threads than free processors (--threads)",
}


def slowness_sentence(
    names: Sequence[str], measured: Sequence[Mapping[str, float]], predicted: Bill
) -> str:
    """One sentence where a token took more than ``MUCH`` times what was predicted, else nothing.
    ``measured``: seconds of a token by node and item, as in the bill."""
    wall, expected = measured[0]["wall"], predicted.wall
    if expected <= 0 or wall <= MUCH * expected:
        return ""
    # What all nodes wait for is one node's excess, or the link's; so excess is looked for there.
    excess = {
        (node, item): seconds.get(item, 0.0) - predicted.seconds[node].get(item, 0.0)
        for node, seconds in enumerate(measured)
        for item in _CAUSES
    }
    working = {key: value for key, value in excess.items() if key[1] != "exchange_wait"}
    node, item = max(working, key=lambda key: working[key])
    if working[node, item] < (wall - expected) / 4:
        waiting = max(excess, key=lambda key: excess[key])
        item = waiting[1]
        node = _awaited(measured) if item == "exchange_wait" else waiting[0]
    before = predicted.seconds[node].get(item, 0.0)
    ratio = measured[node].get(item, 0.0) / before if before > 0 else 0.0
    times = f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
    cause = _CAUSES[item].format(node=names[node], times=times if ratio else "many")
    return f"a token takes {wall / expected:.1f} times as long as predicted; likely cause: {cause}"


def _awaited(measured: Sequence[Mapping[str, float]]) -> int:
    """The node that itself waits least."""
    return min(range(len(measured)), key=lambda node: measured[node].get("exchange_wait", 0.0))
