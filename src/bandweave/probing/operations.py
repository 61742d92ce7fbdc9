"""What operations without weights cost: norms, rope and the like, and being an operation at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bandweave.planning.profile.profile import ElementRate, Overhead, median_and_spread
from bandweave.probing import programs
from bandweave.probing.products import Streamed
from bandweave.probing.stopwatch import Setting, Timed, take_turns

_TINY_OPS, _TINY_WIDTH = 256, 16
_WIDTH, _ROWS, _OPS = 2048, 32, 32
_DIM = 64


def probe_overheads(threads: Sequence[int], rounds: int, setting: Setting) -> list[Overhead]:
    """Operations on 16 numbers: what is left is the way there and the barrier."""
    timed = {
        number: Timed(
            program=programs.norms(_TINY_WIDTH, _TINY_OPS),
            options=setting.options(number),
            item="other",
        )
        for number in threads
    }
    found = []
    for number, values in take_turns(timed, rounds).items():
        seconds, spread = median_and_spread([value / _TINY_OPS for value in values])
        found.append(Overhead(threads=number, seconds_per_op=seconds, spread=spread))
    return found


def probe_elements(
    rounds: int, setting: Setting, op_seconds: Callable[[int], float], streamed: Streamed
) -> list[ElementRate]:
    """Seconds for each element, by one thread: of many rows in a row, and of one row between
    products of the ``streamed`` weights."""
    heads = _WIDTH // _DIM
    makers = {
        "rms_norm": (programs.norms(_WIDTH, _OPS), "other"),
        "gated_mul": (programs.gates(_WIDTH, _OPS), "other"),
        "rope": (programs.ropes(heads, _DIM, _OPS), "other"),
        "kv_append": (programs.appends(heads, _DIM, _OPS), "attention"),
        "all_reduce_add": (programs.reduces(_WIDTH, _OPS), "other"),
    }
    timed = {}
    for kind, (program, item) in makers.items():
        timed[kind, _ROWS] = Timed(
            program=program,
            options=setting.options(1, rows=_ROWS),
            item=item,
            rows=_ROWS,
            position=_ROWS - 1,
        )
        timed[kind, 1] = Timed(
            program=programs.amid_weights(program, streamed.weights),
            options=setting.options(1),
            item=item,
            weights=streamed.beside(program),
        )
    times = take_turns(timed, rounds)
    found = []
    for kind in makers:
        many, spread = median_and_spread([value / _OPS for value in times[kind, _ROWS]])
        one, _ = median_and_spread([value / _OPS for value in times[kind, 1]])
        each = max(0.0, many - op_seconds(1)) / (_ROWS * _WIDTH)
        first = max(0.0, (one - op_seconds(1)) / _WIDTH - each)
        found.append(ElementRate(kind=kind, seconds=each, first_seconds=first, spread=spread))
    return found
