"""The tensors of mixtures and of latent attention as GGUF has them: all experts in one, and the
matrix of keys and values as two of three dimensions.

Knows bandweave's names and GGUF's; knows no blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import widen
from bandweave.models.spec import LatentSpec, MixtureSpec
from bandweave.ranges import Range

Floats = npt.NDArray[np.float32]
_EXPERT = re.compile(r"layers\.\d+\.experts\.\d+\.")
_STEMS = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A tensor of several parts of one shape: ``parts`` gives them in order, matrices ``[N, K]`` or
    vectors ``[N]``."""

    name: str
    parts: Callable[[], Iterator[Floats]]


def is_part(name: str) -> bool:
    """Whether a tensor of bandweave's is a part of a whole."""
    return bool(_EXPERT.match(name)) or name.endswith(".kv_b_proj")


def wholes(folder: Folder) -> Iterator[Whole]:
    """All of a model's, layer by layer."""
    for index, layer in enumerate(folder.spec.layers):
        if isinstance(layer.attention, LatentSpec):
            yield from _keys_and_values(folder, index, layer.attention)
        if isinstance(layer.mlp, MixtureSpec):
            yield from _experts(folder, index, layer.mlp)


def _experts(folder: Folder, index: int, mlp: MixtureSpec) -> Iterator[Whole]:
    for ours, theirs in _STEMS.items():
        for ending, kind in (("", "weight"), (".bias", "bias")):
            names = [f"layers.{index}.experts.{expert}.{ours}{ending}"
                     for expert in range(mlp.num_experts)]  # fmt: skip
            if names[0] in folder.names():
                yield Whole(name=f"blk.{index}.{theirs}.{kind}", parts=_read(folder, names))


def _read(folder: Folder, names: list[str]) -> Callable[[], Iterator[Floats]]:
    return lambda: (_whole(folder, name) for name in names)


def _keys_and_values(folder: Folder, index: int, attention: LatentSpec) -> Iterator[Whole]:
    """``kv_b_proj`` has a head's keys and then its values, ``[heads x (nope + v), rank]``; GGUF has
    the keys' part transposed."""
    each = attention.nope_dim + attention.v_dim

    def heads() -> Floats:
        rows = _whole(folder, f"layers.{index}.kv_b_proj")
        return rows.reshape(attention.num_heads, each, attention.kv_rank)

    yield Whole(
        name=f"blk.{index}.attn_k_b.weight",
        parts=lambda: (np.ascontiguousarray(one[: attention.nope_dim].T) for one in heads()),
    )
    yield Whole(
        name=f"blk.{index}.attn_v_b.weight",
        parts=lambda: (one[attention.nope_dim :] for one in heads()),
    )


def _whole(folder: Folder, name: str) -> Floats:
    return widen(folder.read(name, Range(start=0, stop=folder.shape(name)[0])))
