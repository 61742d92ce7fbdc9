"""Rows of the embedding table, read from the checkpoint where they are needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.folder import Folder


def read_embeddings(folder: Folder, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """``[T, hidden_size]`` for token ids ``[T]``. It runs between two steps, when weights have
    just streamed through the caches: Python is some three times slower then."""
    return folder.read_rows("embed_tokens", tokens.tolist())
