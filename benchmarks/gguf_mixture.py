"""The tensors of mixtures and of latent attention as GGUF has them: all experts in one, and what
makes keys and values of a latent in one of three dimensions each.

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
from bandweave.models.attention_spec import LatentSpec
from bandweave.models.mlp_spec import MixtureSpec
from bandweave.ranges import Range

Floats = npt.NDArray[np.float32]
_EXPERT = re.compile(r"layers\.\d+\.experts\.\d+\.")
_LATENT = (".k_b_proj", ".v_b_proj")
_STEMS = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A tensor of several parts of one shape: ``parts`` gives them in order, matrices ``[N, K]`` or
    vectors ``[N]``."""

    name: str
    parts: Callable[[], Iterator[Floats]]


def is_part(name: str) -> bool:
    """Whether a tensor of bandweave's is a part of a whole."""
    return bool(_EXPERT.match(name)) or name.endswith(_LATENT)


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
    """A head's rows together: those of ``k_b_proj`` give queries in the latent's place, as GGUF has
    them."""
    for part in ("k_b", "v_b"):
        yield Whole(
            name=f"blk.{index}.attn_{part}.weight",
            parts=_heads(folder, f"layers.{index}.{part}_proj", attention.num_heads),
        )


def _heads(folder: Folder, name: str, count: int) -> Callable[[], Iterator[Floats]]:
    return lambda: iter(np.split(_whole(folder, name), count))


def _whole(folder: Folder, name: str) -> Floats:
    return widen(folder.read(name, Range(start=0, stop=folder.shape(name)[0])))
