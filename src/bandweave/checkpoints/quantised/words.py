"""Words of 32 bits that hold several codes, the lowest bits first, and the groups of inputs that
share a scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.tensor import Stored, StoredTensor, wrong
from bandweave.ranges import Range


def unpacked_rows(words: npt.NDArray[np.generic], bits: int) -> npt.NDArray[np.uint8]:
    """``[words, n]`` int32 to codes ``[words * 32 / bits, n]``: those of a word are consecutive
    rows."""
    per_word = 32 // bits
    shifts = np.arange(0, 32, bits, dtype=np.uint32)[None, :, None]
    codes = (words.view(np.uint32)[:, None, :] >> shifts).astype(np.uint8)
    if bits < 8:
        codes &= np.uint8((1 << bits) - 1)
    return codes.reshape(len(words) * per_word, words.shape[1])


def unpacked_columns(words: npt.NDArray[np.generic], bits: int) -> npt.NDArray[np.uint8]:
    """``[n, words]`` int32 to codes ``[n, words * 32 / bits]``: those of a word are consecutive."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words.view(np.uint32)[:, :, None] >> shifts).astype(np.uint8)
    if bits < 8:
        codes &= np.uint8((1 << bits) - 1)
    return codes.reshape(len(words), -1)


def group_numbers(stored: Stored, inputs: Range, count: int, size: int) -> npt.NDArray[np.int64]:
    """The groups of inputs, as a tensor numbers them, of ``count`` that there are, of ``size``
    inputs each."""
    tensor = StoredTensor(stored, 1, stored[1].shape[0])
    numbers = tensor.read(range(1), inputs)[0].astype(np.int64)
    if not numbers.size:
        return numbers
    if numbers.min() < 0 or numbers.max() >= count:
        bad = numbers[(numbers < 0) | (numbers >= count)][0]
        raise wrong(stored, f"names group {bad}, but there are {count}; download the file again")
    counts = np.bincount(numbers)
    if counts.max() > size:
        raise wrong(
            stored,
            f"puts {counts.max()} inputs into group {counts.argmax()}, but groups have {size}; "
            "download the file again",
        )
    return numbers
