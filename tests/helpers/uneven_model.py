"""A model on disk whose sizes divide unevenly, for tests of what is packed and kept."""

from __future__ import annotations

import time
from pathlib import Path

from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape


def write_uneven_model(path: Path) -> Path:
    """Three layers, three KV heads, and files that a cache can tell from others."""
    shape = find_shape("llama-3.2-1b", layers=3, hidden=192, heads=12, kv_heads=3, head_dim=16,
                       intermediate=704, vocab=1000, context=1024)  # fmt: skip
    synthesise(shape, path)
    time.sleep(0.1)  # files of this very moment cannot be told from those that change
    return path
