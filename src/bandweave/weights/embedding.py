"""Rows of the embedding table, read from the checkpoint where they are needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import widen


def read_embeddings(folder: Folder, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """``[T, hidden_size]`` for token ids ``[T]``. It stands between two steps: while weights stream
    through the caches, every line of Python is paid for thrice."""
    return widen(folder.read_rows("embed_tokens", tokens.tolist()))
