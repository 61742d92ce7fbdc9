"""A GGUF file, or the parts that one was cut into, as the contents of a checkpoint."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bandweave.checkpoints.block_tensor import BLOCK_WEIGHTS
from bandweave.checkpoints.contents import Contents
from bandweave.checkpoints.gguf import GgufFile
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.source import CheckpointError
from bandweave.checkpoints.stored import find_tensors
from bandweave.checkpoints.tensor import Stored
from bandweave.checkpoints.view import View
from bandweave.models.config import ConfigError
from bandweave.models.gguf.architectures import Architecture, find_architecture
from bandweave.models.gguf.deepseek import unsaid_groups
from bandweave.models.gguf.metadata import Metadata, architecture_of
from bandweave.models.graph_op import Split
from bandweave.models.registry import build_graph, spec_from_config
from bandweave.models.spec import ModelSpec
from bandweave.shown import printable, shown

SUFFIX = ".gguf"
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.ASCII)
_BIAS = re.compile(r"blk\.(\d{1,9})\.(?!indexer\.).+\.bias", re.ASCII)
_MOST_PARTS = 4096
_MOST_VECTOR = 1 << 16  # numbers of a vector that a config is made of
_SAID_BY = "metadata"
_DOUBT = "download the file again, or a version of the model from elsewhere"


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, which need not exist."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def open_gguf(path: Path, stack: ExitStack) -> Contents:
    """Opens a file and all parts that belong to it, which the stack closes, and checks headers and
    every tensor's presence, shape and type. ``CheckpointError`` says what is wrong."""
    files, found = read_headers(path, stack)
    first = next(iter(files.values()))
    architecture, data, config = describe(path, first.metadata, found)
    try:
        spec = spec_from_config(config)
    except ConfigError as error:
        raise _wrong(path, error) from error
    if architecture.norm_offset:
        spec = dataclasses.replace(spec, norm_offset=0.0)
    names, settings = architecture.names, Settings(said_by=_SAID_BY, doubt=_DOUBT)
    spec, tensors = find_tensors(path, spec, found, names, settings)
    _refuse_other_biases(path, spec, found, tensors)
    return Contents(
        spec=dataclasses.replace(spec, column_block=_column_block(spec, tensors)),
        config=config,
        config_bytes=first.header,
        files=files,
        tensors=tensors,
        names=names,
        metadata=first.whole_metadata,
        fields=first.metadata,
        remarks=_remarks(data),
    )


def read_headers(path: Path, stack: ExitStack) -> tuple[dict[str, GgufFile], dict[str, Stored]]:
    """The file and all parts that belong to it, by name, which the stack closes, and their tensors.
    The first part's metadata are the model's."""
    files = _open_parts(path, stack)
    return files, _by_name(files.values())


def describe(
    path: Path, fields: Mapping[str, Any], found: Mapping[str, Stored]
) -> tuple[Architecture, Metadata, dict[str, Any]]:
    """What a header says of its model: the architecture, its fields, and those of a config.json
    that say the same."""

    def vector(name: str) -> Sequence[float]:
        file, entry = found[name]
        count = math.prod(entry.shape)
        if entry.dtype != "F32" or count > _MOST_VECTOR:
            raise ConfigError(f"tensor {shown(name)} must hold at most {_MOST_VECTOR} F32 numbers")
        values = np.empty(count, np.float32)
        file.read_into(values.view(np.uint8).data, entry.start)
        return values.tolist()

    try:
        data = Metadata(
            architecture=architecture_of(fields),
            fields=fields,
            shapes={name: entry.shape for name, (_, entry) in found.items()},
            vector=vector,
        )
        architecture = find_architecture(data)
        config = architecture.config(data)
    except ConfigError as error:
        raise _wrong(path, error) from error
    return architecture, data, config


def parts_of(path: Path) -> list[Path]:
    """The file, or all parts of a model that was cut into several; all of them exist."""
    match = _PART.search(path.name)
    if match is None:
        return [path]
    stem, number, total = path.name[: match.start()], int(match[1]), int(match[2])
    if not 1 <= number <= total <= _MOST_PARTS:
        raise CheckpointError(
            f"{printable(path)} cannot be part {number} of {total}, as its name says; give it the "
            "name that it came with"
        )
    parts = [path.with_name(f"{stem}-{n:05}-of-{total:05}.gguf") for n in range(1, total + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CheckpointError(
            f"{printable(path)} is one of {total} parts; {printable(missing[0])} is missing, the "
            f"first of {len(missing)}: download all parts into one folder"
        )
    return parts


def _open_parts(path: Path, stack: ExitStack) -> dict[str, GgufFile]:
    paths = parts_of(path)
    files: dict[str, GgufFile] = {}
    for part in paths:
        files[part.name] = file = GgufFile.open(part)
        stack.callback(file.close)
    for number, file in enumerate(files.values()):
        for key, expected in (("split.no", number), ("split.count", len(paths))):
            given = file.metadata.get(key, expected)
            if given != expected and not (key == "split.count" and given in (0, 1)):
                raise CheckpointError(
                    f"{printable(file.path)}: {key} is {shown(given)}, but by its name it is part "
                    f"{number + 1} of {len(paths)}; give all parts the names that they came with"
                )
    tensors = sum(len(file.tensors) for file in files.values())
    promised = next(iter(files.values())).metadata.get("split.tensors.count", tensors)
    if len(files) > 1 and promised != tensors:
        raise CheckpointError(
            f"{printable(path)}: its parts hold {tensors} tensors, but there must be "
            f"{shown(promised)}; download them again"
        )
    return files


def _by_name(files: Iterable[GgufFile]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for file in files:
        for name, entry in file.tensors.items():
            if name in found:
                other = found[name][0]
                raise CheckpointError(
                    f"tensor {shown(name)} is in {printable(other.path)} and in "
                    f"{printable(file.path)}; remove the file that does not belong"
                )
            found[name] = (file, entry)
    return found


def _column_block(spec: ModelSpec, tensors: Mapping[str, View]) -> int:
    """Columns that no split and no unit may cut: the largest block of a matrix whose columns are
    split."""
    split = [
        weight.name
        for weight in build_graph(spec, further=spec.further is not None).weights()
        if weight.split is Split.SHARDED_TO_ALL
    ]
    return max((BLOCK_WEIGHTS.get(tensors[name].dtype, 1) for name in split), default=1)


def _refuse_other_biases(
    path: Path, spec: ModelSpec, found: Mapping[str, Stored], tensors: Mapping[str, View]
) -> None:
    """Nothing in the metadata says which biases there are: the tensors do. An indexer is not
    read."""
    used = {entry.name for view in tensors.values() for _, entry in view.matrix.stored}
    for name in found:
        match = _BIAS.fullmatch(name)
        if match and int(match[1]) < spec.num_layers and name not in used:
            raise CheckpointError(
                f"{printable(path)}: tensor {shown(name)} is a bias that models of its "
                "architecture are not run with; use the model's safetensors version"
            )


def _remarks(data: Metadata) -> tuple[str, ...]:
    if not unsaid_groups(data):
        return ()
    return (
        "the file leaves out that experts are chosen by groups; by its sizes the model is DeepSeek "
        "V3 or R1, so 8 groups are taken, of which a token goes to 4",
    )


def _wrong(path: Path, error: ConfigError) -> CheckpointError:
    return CheckpointError(f"{printable(path)}: {str(error).replace('config.json', _SAID_BY)}")
