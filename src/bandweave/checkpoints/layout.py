"""Which files of a Hugging Face folder there are, and what is missing. Knows no tensors' insides.

Names and sizes that come from files are checked before they are used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from bandweave import files
from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import printable, shown

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_MAX_CONFIG_BYTES = 4_000_000
_MAX_INDEX_BYTES = 64_000_000
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors", re.ASCII)
_PICKLED = "PyTorch files are not read, since they can run code"
_ELSEWHERE: Sequence[tuple[str, str]] = (
    (".bin", _PICKLED),
    (".pth", _PICKLED),
    (".pt", _PICKLED),
    (".ckpt", _PICKLED),
    (".h5", "TensorFlow files are not read"),
    (".msgpack", "Flax files are not read"),
    (".npz", "NumPy files are not read"),
    (".onnx", "ONNX files are not read"),
)


def read_json(path: Path) -> tuple[dict[str, Any], bytes]:
    """A config: a JSON object and the bytes of its file; ``CheckpointError`` otherwise."""
    return files.read_json(path, most=_MAX_CONFIG_BYTES, error=CheckpointError)


def require_config(folder: Path) -> Path:
    """The path of ``config.json``; ``CheckpointError`` that says what the folder is instead."""
    name = printable(folder)
    if not _is_dir(folder):
        raise CheckpointError(
            f"{name} {_not_a_folder(folder)}; a model is a folder with {CONFIG} in it"
        )
    path = folder / CONFIG
    if files.is_there(path):
        return path
    raise CheckpointError(
        f"{name} has no {CONFIG}; {_instead(folder) or 'a model is a Hugging Face folder'}"
    )


def has_weight_files(folder: Path) -> bool:
    """Whether a folder holds any safetensors file."""
    return any(name.endswith(".safetensors") for name in _listed(folder))


def weight_files(folder: Path) -> dict[str, tuple[str, ...]]:
    """The safetensors files of a folder, by name, sorted, each with the tensors that the index
    promises in it (none where there is no index, as with a single file). All of them exist."""
    name = printable(folder)
    if files.is_there(folder / SINGLE):
        return {SINGLE: ()}
    if not files.is_there(folder / INDEX):
        return _shards_without_index(folder)
    found = indexed_files(folder)
    missing = [file for file in found if not files.is_there(folder / file)]
    if missing:
        raise CheckpointError(
            f"{name} lacks {len(missing)} of its {len(found)} weight files, the first is "
            f"{missing[0]}; finish the download"
        )
    return found


def indexed_files(folder: Path) -> dict[str, tuple[str, ...]]:
    """The weight files that a folder's index names, sorted, each with its tensors; they may be
    missing."""
    name = printable(folder)
    content, _ = files.read_json(folder / INDEX, most=_MAX_INDEX_BYTES, error=CheckpointError)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{name}/{INDEX} has no 'weight_map'; download it again")
    return _by_file(f"{name}/{INDEX}", weight_map)


def _by_file(index: str, weight_map: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        tensors = found.get(name) if isinstance(name, str) else None
        if tensors is None:
            if not _is_plain(name):
                raise CheckpointError(
                    f"{index}: the file of {shown(tensor)} is {shown(name)}; it must be the plain "
                    "name of a .safetensors file in the same folder"
                )
            tensors = found[name] = []
        tensors.append(tensor)
    return {name: tuple(found[name]) for name in sorted(found)}


def _is_plain(name: Any) -> bool:
    """A name that is a path could reach files outside of the folder."""
    return (
        isinstance(name, str)
        and name == PurePosixPath(name).name == PureWindowsPath(name).name
        and name.endswith(".safetensors")
        and name.isprintable()
    )


def _shards_without_index(folder: Path) -> dict[str, tuple[str, ...]]:
    """Files whose names say that they are all parts of one model; that is all that an index adds to
    them here, since every file lists its own tensors."""
    name = printable(folder)
    listed = _listed(folder)
    shards = {file: match for file in listed if (match := _SHARD.fullmatch(file))}
    totals = {int(match[2]) for match in shards.values()}
    if not totals:
        reason = _instead(folder) or "download the checkpoint's safetensors files"
        raise CheckpointError(f"{name} has neither {SINGLE} nor {INDEX}; {reason}")
    if len(totals) > 1:
        raise CheckpointError(
            f"{name} has no {INDEX}, and its weight files are parts of different models "
            f"({' and '.join(f'of {total}' for total in sorted(totals))}); download it again"
        )
    (total,) = totals
    numbers = {int(match[1]) for match in shards.values()}
    if numbers != set(range(1, total + 1)):
        missing = next((n for n in range(1, total + 1) if n not in numbers), None)
        what = "is one too many" if missing is None else "is missing"
        number = max(numbers) if missing is None else missing
        raise CheckpointError(
            f"{name} has no {INDEX} and {len(numbers)} of {total} weight files: "
            f"model-{number:05}-of-{total:05}.safetensors {what}; finish the download"
        )
    return {file: () for file in sorted(shards)}


def _instead(folder: Path) -> str | None:
    """What the folder holds in the place of safetensors files, and what to do about it."""
    names = _listed(folder)
    if "adapter_config.json" in names:
        return "it holds an adapter (LoRA), not a model: merge it into its base model first"
    gguf = next((name for name in names if name.lower().endswith(".gguf")), None)
    if gguf is not None:
        return f"it has {printable(gguf)}: name that file in the place of its folder"
    for ending, what in _ELSEWHERE:
        found = [name for name in names if name.endswith(ending)]
        if found:
            return f"it has {printable(found[0])}, but {what}: use the model's safetensors version"
    own = [name for name in names if name == SINGLE or _SHARD.fullmatch(name)]
    found = [n for n in names if n.endswith(".safetensors") and n not in own]
    if found:
        first = printable(found[0])
        return f"it has {first}, but that name is not a model's in Hugging Face layout"
    return None


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise CheckpointError(f"{printable(folder)} cannot be listed: {error.strerror}") from error


def _not_a_folder(path: Path) -> str:
    if not files.is_there(path):
        return "does not exist"
    return "is a file" if os.path.isfile(path) else "is no folder"


def _is_dir(folder: Path) -> bool:
    try:
        return os.path.isdir(folder)
    except ValueError:  # no name of a file
        return False
