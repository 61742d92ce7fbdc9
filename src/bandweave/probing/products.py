"""How fast the products run: every format, kind, number of rows and of threads.

Weights are larger than the caches, as a model's are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bandweave import _native
from bandweave.formats.names import QUANTISED_FORMATS
from bandweave.planning.profile.profile import ElementRate, ProductRate, median_and_spread
from bandweave.probing import programs
from bandweave.probing.stopwatch import Setting, Timed, take_turns, vectors_of
from bandweave.programs.program import Program, Weight
from bandweave.weights.packed import Weights

ROWS = (1, 2, 4, 8, 32, 128)
_INPUTS, _OUTPUTS = 2048, 2048
_UNIT = 64  # of the grid's products, as the down projection's
_FEW_ROWS = 8  # up to here the weights' way from memory counts, beyond it arithmetic does
_MANY_ROWS_BYTES = 16 << 20
_CACHED_BYTES, _CACHED_OPS = 4 << 20, 16
_SHAPED_OPS = 8
_QUANTISED_ROWS = 32
_FINISHED_ROWS, _FEW_INPUTS = 64, 256
_LEAST = 0.2  # of a product's time stays the product's, whatever the rest seems to cost

Overheads = Callable[[int], float]  # seconds of an operation, by threads


def probe_format(
    format: str,
    *,
    threads: Sequence[int],
    rows: Sequence[int],
    streamed_bytes: int,
    rounds: int,
    setting: Setting,
    op_seconds: Overheads,
) -> tuple[list[ProductRate], list[ElementRate]]:
    """The rates of one format, and what inputs and outputs cost where it quantises. Takes twice
    ``streamed_bytes`` of memory for the while."""
    each = _native.matrix_bytes(format, _OUTPUTS, _INPUTS, _INPUTS)
    count = max(2, -(-streamed_bytes // each))
    pool = count + count // 2  # the next to run has other weights than the last
    found: list[ProductRate] = []
    others: list[ElementRate] = []
    quantise = finish = 0.0
    for on_grid in (False, True):
        unit = _UNIT if on_grid else _INPUTS
        weights = _random_weights(format, pool, _OUTPUTS, unit)
        timed: dict[tuple[int, int, bool], Timed] = {}
        for number in threads:
            for many in rows:
                if many > _FEW_ROWS and number not in (1, max(threads)):
                    continue
                for cached in (False, True) if many == 1 else (False,):
                    size = streamed_bytes if many <= _FEW_ROWS else _MANY_ROWS_BYTES
                    some = max(1, (_CACHED_BYTES if cached else size) // each)
                    start = len(timed) * (count // 2)
                    chosen = [
                        _weight((start + index) % pool, _OUTPUTS, unit)
                        for index in range(min(count, some))
                    ]
                    turns = max(1, _CACHED_OPS // len(chosen)) if cached else 1
                    timed[number, many, cached] = Timed(
                        program=programs.products(chosen, on_grid=on_grid, turns=turns),
                        options=setting.options(number, rows=many),
                        item="weights",
                        rows=many,
                        weights=_picked(weights, [weight.name for weight in chosen]),
                    )
        times = take_turns(timed, rounds)
        if not on_grid and format in QUANTISED_FORMATS:
            others.append(_quantising(format, rounds, setting, op_seconds))
            quantise = others[0].seconds
            others.append(_finishing(format, rounds, setting, quantise))
            finish = others[1].seconds
        for (number, many, cached), values in times.items():
            ops = len(timed[number, many, cached].program.ops) - 1  # the embedding
            seconds, spread = median_and_spread([value / ops for value in values])
            # One row is quantised by every thread for itself, several are shared out.
            own = _INPUTS * (1 if many == 1 else many / number) * quantise
            own += _OUTPUTS * many / number * finish
            kernel = max(seconds - op_seconds(number) - own, _LEAST * seconds)
            found.append(
                ProductRate(
                    format=format,
                    on_grid=on_grid,
                    cached=cached,
                    rows=many,
                    threads=number,
                    seconds_per_byte=kernel / each,
                    spread=spread,
                )
            )
    return found, others


def _quantising(format: str, rounds: int, setting: Setting, op_seconds: Overheads) -> ElementRate:
    """From products with few outputs and with many, the same activations for both."""
    rows, few, many = _QUANTISED_ROWS, 16, 272
    timed = {n: _shaped(format, n, _INPUTS, rows, setting) for n in (few, many)}
    times = take_turns(timed, rounds)
    less, spread = median_and_spread([value / _SHAPED_OPS for value in times[few]])
    more, _ = median_and_spread([value / _SHAPED_OPS for value in times[many]])
    kernel = (more - less) / (many - few) * few
    seconds = max(0.0, less - kernel - op_seconds(1)) / (rows * _INPUTS)
    return ElementRate(kind=f"quantise_{format}", seconds=seconds, first_seconds=0.0, spread=spread)


def _finishing(format: str, rounds: int, setting: Setting, quantise: float) -> ElementRate:
    """What an output costs beside its multiply-adds: from matrices of the same size, flat and
    tall. ``quantise``: seconds for each input."""
    rows = _FINISHED_ROWS
    shapes = {"tall": (_OUTPUTS, _FEW_INPUTS), "flat": (_FEW_INPUTS, _OUTPUTS)}
    timed = {name: _shaped(format, *shape, rows, setting) for name, shape in shapes.items()}
    times = take_turns(timed, rounds)
    tall, spread = median_and_spread([value / _SHAPED_OPS for value in times["tall"]])
    flat, _ = median_and_spread([value / _SHAPED_OPS for value in times["flat"]])
    seconds = max(0.0, (tall - flat) / (rows * (_OUTPUTS - _FEW_INPUTS)) + quantise)
    return ElementRate(kind=f"outputs_{format}", seconds=seconds, first_seconds=0.0, spread=spread)


def _shaped(format: str, outputs: int, inputs: int, rows: int, setting: Setting) -> Timed:
    """Products of one shape, by one thread, out of a cache."""
    weights = [_weight(index, outputs, inputs, inputs) for index in range(_SHAPED_OPS)]
    return Timed(
        program=programs.products(weights, on_grid=False),
        options=setting.options(1, rows=rows),
        item="weights",
        rows=rows,
        weights=_random_weights(format, _SHAPED_OPS, outputs, inputs, inputs),
    )


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """Weights that no cache holds, for products that stand between what is measured."""

    weights: tuple[Weight, ...]
    packed: Weights

    @classmethod
    def make(cls, streamed_bytes: int) -> Streamed:
        """So many bytes of q4 weights."""
        each = _native.matrix_bytes("q4", _OUTPUTS, _INPUTS, _INPUTS)
        count = max(2, -(-streamed_bytes // each))
        return cls(
            weights=tuple(_weight(index, _OUTPUTS, _INPUTS) for index in range(count)),
            packed=_random_weights("q4", count, _OUTPUTS, _INPUTS),
        )

    def beside(self, program: Program) -> Weights:
        """These weights, and vectors for the program."""
        vectors = vectors_of(program).vectors
        return Weights(arena=self.packed.arena, matrices=self.packed.matrices, vectors=vectors)


def _weight(index: int, outputs: int, unit: int, inputs: int = _INPUTS) -> Weight:
    return programs.matrix(f"w{index}", outputs, inputs, unit)


def _random_weights(
    format: str, count: int, outputs: int, unit: int, inputs: int = _INPUTS
) -> Weights:
    """Matrices whose panels are all alike: what they hold does not matter to the kernels."""
    each = -(-_native.matrix_bytes(format, outputs, inputs, unit) // 64) * 64
    arena = _native.Arena(each * count)
    matrices = {
        f"w{index}": _native.Matrix(arena, format, outputs, inputs, unit) for index in range(count)
    }
    first = matrices["w0"]
    values = np.random.default_rng(0).standard_normal((16, inputs), np.float32) / 64
    first.pack(0, values)
    panel = first.panels[: first.nbytes * 16 // outputs].copy()
    for matrix in matrices.values():
        matrix.panels.reshape(-1, len(panel))[:] = panel
    return Weights(arena=arena, matrices=matrices, vectors={})


def _picked(weights: Weights, names: Sequence[str]) -> Weights:
    picked = {name: weights.matrices[name] for name in names}
    return Weights(arena=weights.arena, matrices=picked, vectors={})
