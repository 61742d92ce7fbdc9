"""What attention costs, by how many query heads read a KV head, and where the keys come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bandweave import _native
from bandweave.executors.executor import PAGE_SIZE
from bandweave.planning.profile.profile import AttentionRate, ElementRate, median_and_spread
from bandweave.probing import programs
from bandweave.probing.products import Streamed
from bandweave.probing.stopwatch import Setting, Timed, fill_cache, take_turns

_DIM = 64
_KV_HEADS, _CONTEXT = 4, 2048
_PROMPT_ROWS, _PROMPT_LAYERS = 32, 2
_FIRST_TOGETHER, _FIRST_LAYERS, _FIRST_PAGES = 8, 32, 9


def probe_attention(
    kv_format: str,
    *,
    threads: Sequence[int],
    together: Sequence[int],
    cache_bytes: int,
    rounds: int,
    setting: Setting,
    op_seconds: Callable[[int], float],
) -> list[AttentionRate]:
    """One row far into a text, whose keys come from memory; and rows of a prompt, which share
    theirs. ``together``: how many query heads read one KV head."""
    pages = _CONTEXT // PAGE_SIZE
    half = kv_format == "f16"
    layer_bytes = pages * _KV_HEADS * _native.kv_head_bytes(_DIM, half)
    layers = max(_PROMPT_LAYERS, -(-cache_bytes // layer_bytes))
    found: list[AttentionRate] = []
    for streamed in (True, False):
        depth = layers if streamed else _PROMPT_LAYERS
        rows = 1 if streamed else _PROMPT_ROWS
        timed: dict[tuple[int, int], Timed] = {}
        for group in together:
            for number in threads:
                timed[group, number] = one = Timed(
                    program=programs.attention(group * _KV_HEADS, _KV_HEADS, _DIM, depth),
                    options=setting.options(
                        number, rows=4 * PAGE_SIZE, pages=pages, kv_format=kv_format
                    ),
                    item="attention",
                    rows=rows,
                    position=_CONTEXT - 1,
                )
                fill_cache(one.executor, pages, 4 * PAGE_SIZE, 1)
        for (group, number), values in take_turns(timed, rounds).items():
            seconds, spread = median_and_spread([value / depth for value in values])
            heads = group * _KV_HEADS
            elements = rows * (_CONTEXT - rows / 2) * heads * _DIM / min(number, rows * heads)
            found.append(
                AttentionRate(
                    kv_format=kv_format,
                    together=group,
                    streamed=streamed,
                    threads=number,
                    seconds=max(0.0, seconds - 2 * op_seconds(number)) / elements,
                    spread=spread,
                )
            )
    return found


def probe_first_attention(
    kv_format: str,
    rounds: int,
    setting: Setting,
    streamed: Streamed,
    append: ElementRate,
    op_seconds: float,
) -> ElementRate:
    """What one row's attention between products of the ``streamed`` weights takes for being there:
    what a line through two contexts says where there are no keys, less the ``append`` and
    ``op_seconds`` for each of the two."""
    heads = _FIRST_TOGETHER * _KV_HEADS
    program = programs.attention(heads, _KV_HEADS, _DIM, _FIRST_LAYERS)
    timed = {}
    for pages in (1, _FIRST_PAGES):
        timed[pages] = one = Timed(
            program=programs.amid_weights(program, streamed.weights),
            options=setting.options(1, rows=PAGE_SIZE, pages=pages, kv_format=kv_format),
            item="attention",
            position=pages * PAGE_SIZE - 1,
            weights=streamed.beside(program),
        )
        fill_cache(one.executor, pages, PAGE_SIZE, 1)
    times = take_turns(timed, rounds)
    short, spread = median_and_spread([value / _FIRST_LAYERS for value in times[1]])
    long, _ = median_and_spread([value / _FIRST_LAYERS for value in times[_FIRST_PAGES]])
    nothing = short - (long - short) / (_FIRST_PAGES - 1)
    appended = (append.seconds + append.first_seconds) * _KV_HEADS * _DIM
    first = max(0.0, nothing - appended - 2 * op_seconds) / (heads * _DIM)
    return ElementRate(kind="attention", seconds=0.0, first_seconds=first, spread=spread)
