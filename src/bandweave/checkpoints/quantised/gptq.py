"""GPTQ (Frantar et al. 2022, arXiv:2210.17323) as AutoGPTQ and GPTQModel store it: ``qweight``
``[inputs * bits / 32, outputs]``, ``qzeros`` ``[groups, outputs * bits / 32]``, ``scales``
``[groups, outputs]`` and ``g_idx``, the group of every input.

Codes of a word are those of consecutive inputs (zero points: outputs), the lowest bits first. The
format ``gptq`` stores zero points less one, modulo their range, ``gptq_v2`` the points themselves.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from bandweave.checkpoints.quantised.input_major import Codes, InputMajor
from bandweave.checkpoints.quantised.scales import SCALE_DTYPES, Scales
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.quantised.words import unpacked_columns, unpacked_rows
from bandweave.checkpoints.tensor import (
    Found,
    StoredTensor,
    check,
    companion,
    fitting,
    wrong,
)
from bandweave.ranges import Range


def find(found: Found, name: str, shape: tuple[int, ...], settings: Settings) -> InputMajor | None:
    """The matrix of that shape; ``name`` is what its plain weights would be called."""
    module = name.removesuffix("weight")
    words = found.get(module + "qweight")
    if settings.method != "gptq" or words is None:
        return None
    per_word = 32 // settings.bits
    if len(shape) != 2 or any(size % per_word for size in shape):
        raise wrong(
            words,
            f"cannot hold a tensor of shape {list(shape)}; is it the config of these weights?",
        )
    outputs, inputs = shape
    size = settings.group_size or inputs
    groups = -(-inputs // size)
    check(fitting(words, (inputs // per_word, outputs)), ("I32",), words[1].shape)
    zeros = companion(found, words, module + "qzeros", "zero points")
    check(zeros, ("I32",), (groups, outputs // per_word))
    scale = companion(found, words, module + "scales", "scales")
    check(scale, SCALE_DTYPES, (groups, outputs))
    index = found.get(module + "g_idx")
    if index is not None:
        check(index, ("I32", "I64"), (inputs,))
    elif settings.act_order:
        companion(found, words, module + "g_idx", "groups")
    return InputMajor(
        words, zeros, Scales(scale, (size, 1), inputs, outputs, signed=True), index, shape,
        f"gptq 1 of {settings.bits} bits in groups of {size}, zeros less {settings.zero_less}",
        settings.bits,
        partial(_codes, StoredTensor(words, inputs // per_word, outputs), settings.bits),
        partial(_zeros, StoredTensor(zeros, groups, outputs // per_word), settings),
    )  # fmt: skip


def _codes(tensor: StoredTensor, bits: int, inputs: Range, outputs: Range) -> Codes:
    per_word = 32 // bits
    words = range(inputs.start // per_word, -(-inputs.stop // per_word))
    first = inputs.start - words.start * per_word
    return unpacked_rows(tensor.read(words, outputs), bits)[first : first + len(inputs)]


def _zeros(tensor: StoredTensor, settings: Settings, groups: Range, outputs: Range) -> Codes:
    per_word = 32 // settings.bits
    words = Range(start=outputs.start // per_word, stop=-(-outputs.stop // per_word))
    codes = unpacked_columns(tensor.read(range(groups.start, groups.stop), words), settings.bits)
    first = outputs.start - words.start * per_word
    some = codes[:, first : first + len(outputs)]
    return (some + np.uint8(settings.zero_less)) & np.uint8((1 << settings.bits) - 1)
