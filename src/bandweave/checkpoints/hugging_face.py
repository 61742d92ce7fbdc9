"""A folder in Hugging Face layout as the contents of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bandweave.checkpoints import layout
from bandweave.checkpoints.contents import Contents
from bandweave.checkpoints.quantised.settings import Settings, settings_from
from bandweave.checkpoints.safetensors import SafetensorsFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.checkpoints.stored import by_plain_name, find_tensors
from bandweave.checkpoints.view import View
from bandweave.models.config import ConfigError
from bandweave.models.registry import spec_from_config, tensor_names
from bandweave.models.spec import ModelSpec
from bandweave.shown import printable, shown


def open_folder(path: Path, stack: ExitStack, *, weights: bool) -> Contents:
    """Opens a folder's files, which the stack closes, and checks config, files, and every tensor's
    presence, shape and dtype.

    Reads headers only. With ``weights`` off a folder without any weight file will do.
    ``CheckpointError`` says what is wrong and what to do.
    """
    config, config_bytes = layout.read_json(layout.require_config(path))
    spec, settings = _meaning(path, config)
    names = tensor_names(spec.family)
    files: dict[str, SafetensorsFile] = {}
    tensors: dict[str, View] = {}
    if weights or layout.has_weight_files(path):
        for name, promised in layout.weight_files(path).items():
            files[name] = file = SafetensorsFile.open(path / name)
            stack.callback(file.close)
            for tensor in promised:
                if tensor not in file.tensors:
                    raise CheckpointError(
                        f"{printable(path / layout.INDEX)} says that tensor {shown(tensor)} is "
                        f"in {name}, but it is not; download both again"
                    )
        found = by_plain_name(path, files.values())
        spec, tensors = find_tensors(path, spec, found, names, settings)
    return Contents(
        spec=spec,
        config=config,
        config_bytes=config_bytes,
        files=files,
        tensors=tensors,
        names=names,
    )


def _meaning(path: Path, config: Mapping[str, Any]) -> tuple[ModelSpec, Settings]:
    try:
        return spec_from_config(config), settings_from(config)
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error
