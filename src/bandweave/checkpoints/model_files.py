"""The shape of a model that lies here as files, with the bytes that its tensors really take.

Reads headers only: a folder's config.json and safetensors headers, or a ``.gguf`` file's header
(all of its parts). Knows which tensor is for what; knows no nodes.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from bandweave.checkpoints import layout
from bandweave.checkpoints.block_tensor import BLOCK_WEIGHTS
from bandweave.checkpoints.gguf_model import SUFFIX, describe, read_headers
from bandweave.checkpoints.headed_file import TensorEntry
from bandweave.checkpoints.safetensors import SafetensorsFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.checkpoints.stored import plain_name
from bandweave.checkpoints.tensor import DTYPES
from bandweave.models.config import ConfigError
from bandweave.models.config_shape import shape_from_config
from bandweave.models.model_shape import ModelShape
from bandweave.shown import printable

_LAYER = re.compile(r"(?:^|\.)(?:layers|blk)\.(\d+)\.(.*)")
# The first pattern that is found in a name decides.
_ROLES = (
    (re.compile(r"shared_expert|_shexp"), "shared"),
    (re.compile(r"\.experts\.|_exps\b|_exps\."), "expert"),
    (re.compile(r"mlp\.gate\.|mlp\.router|block_sparse_moe\.(gate\.|e_score)|ffn_gate_inp|exp_probs"
                r"|e_score_correction"), "router"),
    (re.compile(r"layernorm|attn_norm\.|ffn_norm|post_attention_norm|post_ffw_norm"), "norm"),
    (re.compile(r"self_attn|linear_attn|attn_|ssm_"), "attention"),
    (re.compile(r"mlp\.|ffn_"), "dense"),
)  # fmt: skip
_FAR_OFF = 0.02  # parameters that files and sizes may differ by: rounding, constants, padding


def shape_from_path(path: Path) -> ModelShape:
    """The shape of a model folder or of a ``.gguf`` file; ``CheckpointError`` says what is wrong.

    ``stored_bytes_by_role`` is exact. Where the parameters in the files are not those that the
    sizes ask for, the files are not believed."""
    if path.suffix.lower() == SUFFIX:
        return _from_gguf(path)
    return _from_folder(path)


def _from_folder(path: Path) -> ModelShape:
    config, _ = layout.read_json(layout.require_config(path))
    try:
        shape = shape_from_config(config, name=path.name)
    except ConfigError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error
    entries: list[TensorEntry] = []
    for name in layout.weight_files(path):
        file = SafetensorsFile.open(path / name)
        file.close()
        entries += file.tensors.values()
    names = {plain_name(entry.name) for entry in entries}
    if shape.tied and {"lm_head.weight", "model.embed_tokens.weight"} <= names:
        shape = dataclasses.replace(shape, tied=False)  # as the engine has it
    sizes: Counter[str] = Counter()
    unused = 0
    for entry in entries:
        role = role_of(plain_name(entry.name), len(shape.layers), tied=shape.tied)
        if role == "unused":
            unused += math.prod(entry.shape)
        else:
            sizes[role] += entry.stop - entry.start
    return dataclasses.replace(shape, stored_bytes_by_role=dict(sizes), unused_parameters=unused)


def _from_gguf(path: Path) -> ModelShape:
    with ExitStack() as stack:
        files, found = read_headers(path, stack)
        _, _, config = describe(path, next(iter(files.values())).metadata, found)
    tensors = {name: entry for name, (_, entry) in found.items()}
    try:
        shape = shape_from_config(config, name=path.stem)
    except ConfigError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        role = role_of(tensor.name, len(shape.layers), tied=shape.tied)
        sizes[role] += tensor.stop - tensor.start
        counts[role] += math.prod(tensor.shape)
    _check_counts(path, shape, counts)
    unused = counts.pop("unused", 0)
    sizes.pop("unused", None)
    return dataclasses.replace(
        shape,
        runs_on_bandweave=shape.runs_on_bandweave and all(map(_is_read, tensors.values())),
        stored_format=_main_type(tensors.values()),
        stored_bytes_by_role=dict(sizes),
        unused_parameters=unused,
    )


def role_of(name: str, layers: int, *, tied: bool) -> str:
    """The role of a tensor, by its name in a folder or a GGUF file; ``unused`` for what decoding
    text does not read: drafts' layers, vision."""
    match = _LAYER.search(name)
    if name.startswith("mtp."):
        return "unused"
    if match is None:
        if name.startswith(("lm_head.", "output.")):
            return "head"
        if "embed_tokens" in name or name.startswith("token_embd."):
            return "head" if tied else "embedding"
        return "norm" if name.endswith("norm.weight") or "rope_freqs" in name else "unused"
    if int(match[1]) >= layers or "visual" in name or "vision" in name:
        return "unused"
    return next((role for pattern, role in _ROLES if pattern.search("." + match[2])), "norm")


def _check_counts(path: Path, shape: ModelShape, counts: Counter[str]) -> None:
    expected = shape.parameters_by_role()
    found = sum(count for role, count in counts.items() if role != "unused")
    total = sum(expected.values())
    if abs(found - total) > _FAR_OFF * total:
        raise CheckpointError(
            f"{printable(path)} holds {found / 1e9:.2f} B parameters, but its sizes ask for "
            f"{total / 1e9:.2f} B; it is damaged or a variant that is not known"
        )


def _is_read(entry: TensorEntry) -> bool:
    return entry.dtype in DTYPES or entry.dtype.lower() in BLOCK_WEIGHTS


def _main_type(tensors: Iterable[TensorEntry]) -> str:
    by_type: Counter[str] = Counter()
    for tensor in tensors:
        by_type[tensor.dtype] += tensor.stop - tensor.start
    name = by_type.most_common(1)[0][0].lower()
    return name if name in ("f32", "f16", "bf16") else f"gguf-{name}"
