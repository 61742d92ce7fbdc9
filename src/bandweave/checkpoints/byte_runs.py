"""Runs of bytes at even distances in a file: the rows of a rectangle of a stored tensor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.byte_file import Readable

_GAP_BYTES = 4096  # a page of memory: what lies in a shorter gap is read from the disk anyway
_BUFFER_BYTES = 1 << 20


def read_runs(file: Readable, target: npt.NDArray[np.uint8], start: int, stride: int) -> None:
    """Fills ``target`` ``[runs, length]``, C order, from runs that begin ``stride`` bytes apart.

    Runs without gaps are read at once. Where gaps are shorter than a page, several runs are read
    with the gaps between them, at most a megabyte at a time.
    """
    count, length = target.shape
    if not target.size:
        return
    if stride == length or count == 1:
        file.read_into(target.reshape(-1).data, start)
        return
    file.prepare(start, length, stride, count)
    if stride - length > _GAP_BYTES:
        for index in range(count):
            file.read_into(target[index].data, start + index * stride)
    else:
        most = max(1, min(count, _BUFFER_BYTES // stride))
        buffer = np.empty(most * stride, np.uint8)
        for first in range(0, count, most):
            some = min(most, count - first)
            end = (some - 1) * stride + length  # the last run's gap may be behind the file's end
            file.read_into(buffer[:end].data, start + first * stride)
            target[first : first + some] = buffer[: some * stride].reshape(some, stride)[:, :length]
