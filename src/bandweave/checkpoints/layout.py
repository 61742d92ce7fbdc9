"""Which files of a Hugging Face folder there are, and what is missing. Knows no tensors' insides.

Names and sizes that come from files are checked before they are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from bandweave.checkpoints.source import CheckpointError

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_MAX_JSON_BYTES = 64_000_000


def read_json(path: Path) -> tuple[dict[str, Any], bytes]:
    """A JSON object and the bytes that it was read from; ``CheckpointError`` otherwise."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_JSON_BYTES:
        raise CheckpointError(f"{path} has more than {_MAX_JSON_BYTES} bytes; that is no config")
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise CheckpointError(f"{path} is no valid JSON: {why}; download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} must be a JSON object, not {type(value).__name__}; download it again"
        )
    return value, content


def require_config(folder: Path) -> Path:
    """The path of ``config.json``; ``CheckpointError`` that says what the folder is instead."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {what}; a model is a folder with {CONFIG} in it")
    path = folder / CONFIG
    if path.is_file():
        return path
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds an adapter (LoRA), not a model; merge it into its base model first"
        )
    raise CheckpointError(
        f"{folder} has no {CONFIG}; {_instead(folder) or 'a model is a Hugging Face folder'}"
    )


def has_weight_files(folder: Path) -> bool:
    """Whether a folder holds any safetensors file."""
    try:
        return any(path.suffix == ".safetensors" for path in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be listed: {error.strerror}") from error


def weight_files(folder: Path) -> dict[str, tuple[str, ...]]:
    """The safetensors files of a folder, by name, sorted, each with the tensors that the index
    promises in it (none where there is no index). All of them exist."""
    if (folder / SINGLE).is_file():
        return {SINGLE: ()}
    if not (folder / INDEX).is_file():
        reason = _instead(folder) or "download the checkpoint's safetensors files"
        raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}; {reason}")
    weight_map = read_json(folder / INDEX)[0].get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX} has no 'weight_map'; download it again")
    files = _by_file(folder / INDEX, weight_map)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its {len(files)} weight files, the first is "
            f"{missing[0]}; finish the download"
        )
    return files


def _by_file(index: Path, weight_map: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    files: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        # A name that is a path could reach files outside of the folder.
        plain = (
            isinstance(name, str)
            and name == PurePosixPath(name).name == PureWindowsPath(name).name
            and name.endswith(".safetensors")
            and name.isprintable()
        )
        if not plain:
            raise CheckpointError(
                f"{index}: the file of {tensor!r} is {str(name)[:80]!r}; it must be the plain "
                "name of a .safetensors file in the same folder"
            )
        files.setdefault(name, []).append(tensor)
    return {name: tuple(files[name]) for name in sorted(files)}


def _instead(folder: Path) -> str | None:
    """What the folder holds in the place of safetensors files, and what to do about it."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be listed: {error.strerror}") from error
    for ending, what in (
        (".gguf", "GGUF files are not supported yet"),
        (".bin", "PyTorch files are not read, since they can run code"),
        (".pth", "PyTorch files are not read, since they can run code"),
        (".pt", "PyTorch files are not read, since they can run code"),
    ):
        found = [name for name in names if name.endswith(ending)]
        if found:
            return f"it has {found[0]}, but {what}: use the model's safetensors version"
    shard = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
    found = [n for n in names if n.endswith(".safetensors") and not shard.fullmatch(n)]
    if found:
        return f"it has {found[0]}, but that name is not a model's in Hugging Face layout"
    return None
