"""AWQ (Lin et al. 2023, arXiv:2306.00978) as AutoAWQ stores it (version ``gemm``): ``qweight``
``[inputs, outputs / 8]``, ``qzeros`` ``[groups, outputs / 8]``, ``scales`` ``[groups, outputs]``.

A word holds the codes of 8 outputs, from the lowest bits on those of 0, 2, 4, 6, 1, 3, 5, 7.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from bandweave.checkpoints.quantised.input_major import Codes, InputMajor
from bandweave.checkpoints.quantised.scales import SCALE_DTYPES, Scales
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.quantised.words import unpacked_columns
from bandweave.checkpoints.tensor import (
    Found,
    StoredTensor,
    check,
    companion,
    fitting,
    wrong,
)
from bandweave.ranges import Range

_PER_WORD = 8
_PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])  # of the outputs of a word


def find(found: Found, name: str, shape: tuple[int, ...], settings: Settings) -> InputMajor | None:
    """The matrix of that shape; ``name`` is what its plain weights would be called."""
    module = name.removesuffix("weight")
    words = found.get(module + "qweight")
    if settings.method != "awq" or words is None:
        return None
    if len(shape) != 2 or shape[0] % _PER_WORD:
        raise wrong(
            words,
            f"cannot hold a tensor of shape {list(shape)}; is it the config of these weights?",
        )
    outputs, inputs = shape
    size = settings.group_size or inputs
    if inputs % size:
        raise wrong(
            words,
            f"has groups of {size}, of which {inputs} inputs are no multiple; is it the config of "
            "these weights?",
        )
    groups = inputs // size
    check(fitting(words, (inputs, outputs // _PER_WORD)), ("I32",), words[1].shape)
    zeros = companion(found, words, module + "qzeros", "zero points")
    check(zeros, ("I32",), (groups, outputs // _PER_WORD))
    scale = companion(found, words, module + "scales", "scales")
    check(scale, SCALE_DTYPES, (groups, outputs))
    return InputMajor(
        words, zeros, Scales(scale, (size, 1), inputs, outputs, signed=True), None, shape,
        f"awq 1 in groups of {size}", 4,
        partial(_codes, StoredTensor(words, inputs, outputs // _PER_WORD)),
        partial(_codes, StoredTensor(zeros, groups, outputs // _PER_WORD)),
    )  # fmt: skip


def _codes(tensor: StoredTensor, rows: Range, outputs: Range) -> Codes:
    held = Range(start=outputs.start // _PER_WORD, stop=-(-outputs.stop // _PER_WORD))
    codes = unpacked_columns(tensor.read(range(rows.start, rows.stop), held), 4)
    ordered = codes.reshape(len(codes), -1, _PER_WORD)[:, :, _PLACES].reshape(len(codes), -1)
    first = outputs.start - held.start * _PER_WORD
    return ordered[:, first : first + len(outputs)]
