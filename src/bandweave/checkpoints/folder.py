"""Folder: a checkpoint in Hugging Face layout, as a source of slices of tensors.

Knows the folder's files and reads exactly the byte ranges asked for; knows no nodes and no
formats.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints import layout
from bandweave.checkpoints.names import hugging_face_name
from bandweave.checkpoints.safetensors import SafetensorsFile, TensorEntry
from bandweave.checkpoints.source import CheckpointError
from bandweave.models.config import ConfigError
from bandweave.models.graph import WeightSpec
from bandweave.models.registry import build_graph, spec_from_config
from bandweave.models.spec import ModelSpec
from bandweave.planning.split import Range

_SAMPLES, _SAMPLE_BYTES = 256, 4096  # of a fingerprint

# The stored dtypes that can be read: bandweave's name, and the array that holds them.
_DTYPES: Mapping[str, tuple[str, type[np.generic]]] = {
    "F32": ("f32", np.float32),
    "F16": ("f16", np.float16),
    "BF16": ("bf16", np.uint16),
}


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What checkpoints are told apart by before they are loaded: SHA-256 in hexadecimal of
    config.json, of all weight files' names, sizes and headers, and of samples of tensors; empty
    where it is not known."""

    config: str
    headers: str = ""
    sample: str = ""

    def fits(self, other: Fingerprint) -> bool:
        """Whether nothing that both know tells them apart."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(not own or not theirs or own == theirs for own, theirs in pairs)


class Folder:
    """An open checkpoint, a ``TensorSource``. Threads may read at once; use ``with`` or ``close``.

    ``path``: the folder. ``spec``: its model. ``config``: the parsed config.json.
    ``eos_token_ids``: sorted ids that end an answer, those of generation_config.json and of
    config.json together, all inside the vocabulary.
    """

    def __init__(
        self,
        *,
        path: Path,
        spec: ModelSpec,
        config: Mapping[str, Any],
        config_bytes: bytes,
        eos_token_ids: tuple[int, ...],
        files: Mapping[str, SafetensorsFile],
        tensors: Mapping[str, tuple[SafetensorsFile, TensorEntry]],
        stack: ExitStack,
    ) -> None:
        """Takes what ``open`` has checked; call ``open``."""
        self.path, self.spec, self.config = path, spec, config
        self.eos_token_ids = eos_token_ids
        self._config_bytes, self._files, self._tensors = config_bytes, files, tensors
        self._stack = stack
        self._closed = False

    @classmethod
    def open(cls, path: str | Path, *, weights: bool = True) -> Folder:
        """Opens a folder and checks config, files, and every tensor's presence, shape and dtype.

        Reads headers only. With ``weights`` off a folder without any weight file will do, which
        has the config of a model that other machines hold. ``CheckpointError`` says what is wrong
        and what to do.
        """
        path = Path(path)
        config, config_bytes = layout.read_json(layout.require_config(path))
        spec = _spec(path, config)
        with ExitStack() as stack:
            files = {}
            needed = weights or layout.has_weight_files(path)
            for name, promised in layout.weight_files(path).items() if needed else ():
                files[name] = file = SafetensorsFile.open(path / name)
                stack.callback(file.close)
                for tensor in promised:
                    if tensor not in file.tensors:
                        raise CheckpointError(
                            f"{path / layout.INDEX} says that tensor {tensor!r} is in {name}, "
                            "but it is not; download both again"
                        )
            return cls(
                path=path,
                spec=spec,
                config=config,
                config_bytes=config_bytes,
                eos_token_ids=_eos_token_ids(path, config, spec.vocab_size),
                files=files,
                tensors=_tensors(path, spec, files) if needed else {},
                stack=stack.pop_all(),
            )

    # --- TensorSource ---

    def names(self) -> Collection[str]:
        """bandweave's names of all tensors that the model needs."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """``(outputs, inputs)``, or ``(size,)``; ``KeyError`` for an unknown name."""
        return self._tensors[name][1].shape

    def dtype(self, name: str) -> str:
        """``"f32"``, ``"bf16"`` or ``"f16"``."""
        return _DTYPES[self._tensors[name][1].dtype][0]

    def file_key(self, name: str) -> str:
        """Names the very file that holds the tensor, as it is now; empty where that cannot be
        told."""
        file, _ = self._tensors[name]
        return file.identity.key(file.header_sha256)

    def read(self, name: str, rows: Range, columns: Range | None = None) -> npt.NDArray[np.generic]:
        """The rectangle as stored, C order, reading its bytes and no others.

        ``[rows, columns]``, or ``[rows]`` of a vector: float32, float16, or uint16 holding bf16
        bits. ``ValueError`` for a range outside of the tensor.
        """
        if self._closed:
            raise ValueError(f"{self.path} has been closed")
        file, entry = self._tensors[name]
        dtype = _DTYPES[entry.dtype][1]
        if len(entry.shape) == 1 and columns is not None:
            raise ValueError(f"{name} is a vector, but columns {columns} were asked for")
        width = entry.shape[1] if len(entry.shape) == 2 else 1
        if columns is None:  # not "or": an empty range is false
            columns = Range(start=0, stop=width)
        _check_range(name, "rows", rows, entry.shape[0])
        _check_range(name, "columns", columns, width)
        shape = (len(rows),) if len(entry.shape) == 1 else (len(rows), len(columns))
        result = np.empty(shape, dtype)
        if not result.size:
            return result
        target = result.reshape(-1).view(np.uint8).data
        item, stride = result.itemsize, width * result.itemsize
        start = entry.start + rows.start * stride + columns.start * item
        if len(columns) == width:
            file.read_into(target, start)
            return result
        step = len(columns) * item
        for row in range(len(rows)):
            file.read_into(target[row * step : (row + 1) * step], start + row * stride)
        return result

    def read_rows(self, name: str, rows: Sequence[int]) -> npt.NDArray[np.generic]:
        """Rows of a matrix from anywhere in it, as ``read`` gives them: ``[rows, width]``.
        ``ValueError`` for a row that it does not have."""
        if self._closed:
            raise ValueError(f"{self.path} has been closed")
        file, entry = self._tensors[name]
        count, width = entry.shape
        result = np.empty((len(rows), width), _DTYPES[entry.dtype][1])
        target, stride = result.reshape(-1).view(np.uint8).data, width * result.itemsize
        for place, row in enumerate(rows):
            if not 0 <= row < count:
                raise ValueError(f"row {row} of {name}, which has {count}")
            at = place * stride
            file.read_into(target[at : at + stride], entry.start + row * stride)
        return result

    # --- the rest of the folder ---

    @property
    def has_weights(self) -> bool:
        """Whether the model's tensors are here, and not its config alone."""
        return bool(self._tensors)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors that the model needs, as stored."""
        return sum(entry.stop - entry.start for _, entry in self._tensors.values())

    @property
    def file_keys(self) -> frozenset[str]:
        """The keys of all weight files; see ``file_key``."""
        return frozenset(f.identity.key(f.header_sha256) for f in self._files.values()) - {""}

    @property
    def files(self) -> Mapping[str, int]:
        """The sizes of all weight files, by name."""
        return {name: file.size for name, file in self._files.items()}

    @property
    def file_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(file.size for file in self._files.values())

    def read_bytes(self, file: str, target: memoryview, offset: int) -> None:
        """Fills ``target`` from a weight file, whatever is there."""
        self._files[file].read_into(target, offset)

    def tensor_bytes(self, name: str) -> int:
        """Stored bytes of a tensor."""
        entry = self._tensors[name][1]
        return entry.stop - entry.start

    def file_name(self, name: str) -> str:
        """The name of the file that holds a tensor."""
        return self._tensors[name][0].path.name

    def stored_name(self, name: str) -> str:
        """What a tensor is called in its file."""
        return hugging_face_name(self.spec.family, name)

    def item_bytes(self, name: str) -> int:
        """Stored bytes of one element of a tensor."""
        return 4 if self.dtype(name) == "f32" else 2

    def layout_fingerprint(self) -> Fingerprint:
        """``fingerprint`` without a sample, which nothing is read for."""
        headers = hashlib.sha256()
        for name, file in sorted(self._files.items()):
            encoded = name.encode()
            headers.update(struct.pack("<QQ", len(encoded), file.size))
            headers.update(encoded + file.header_sha256)
        config = hashlib.sha256(self._config_bytes).hexdigest()
        return Fingerprint(config=config, headers=headers.hexdigest() if self._files else "")

    def fingerprint(self) -> Fingerprint:
        """Tells this checkpoint from others by a few hundred reads of 4 KiB. What it cannot tell
        is for the comparison of all that is loaded."""
        if not self._tensors:
            return self.layout_fingerprint()
        digest = hashlib.sha256()
        tensors = sorted(self._tensors.items())
        for _, (file, entry) in tensors[:: -(-len(tensors) // _SAMPLES) or 1]:
            count = min(entry.stop - entry.start, _SAMPLE_BYTES)
            sample = bytearray(count)
            file.read_into(memoryview(sample), (entry.start + entry.stop - count) // 2)
            digest.update(sample)
        return dataclasses.replace(self.layout_fingerprint(), sample=digest.hexdigest())

    def close(self) -> None:
        """Closes the files; no read may be under way. A second call does nothing."""
        self._closed = True
        self._stack.close()

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_range(name: str, what: str, asked: Range, size: int) -> None:
    if not 0 <= asked.start <= asked.stop <= size:
        raise ValueError(f"{what} {asked} of {name} were asked for, but it has {size}")


def _spec(path: Path, config: Mapping[str, Any]) -> ModelSpec:
    quantisation = config.get("quantization_config")
    if quantisation is not None:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
        raise CheckpointError(
            f"{path} is already quantised ({str(method or 'unknown method')[:40]}); use the "
            "original model, bandweave quantises while loading"
        )
    try:
        return spec_from_config(config)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _tensors(
    path: Path, spec: ModelSpec, files: Mapping[str, SafetensorsFile]
) -> dict[str, tuple[SafetensorsFile, TensorEntry]]:
    found: dict[str, tuple[SafetensorsFile, TensorEntry]] = {}
    for file in files.values():
        for name, entry in file.tensors.items():
            if name in found:
                other = found[name][0].path.name
                raise CheckpointError(
                    f"{path}: tensor {name!r} is in {other} and in {file.path.name}; remove the "
                    "file that does not belong"
                )
            found[name] = (file, entry)
    needed = build_graph(spec).weights()
    missing = [name for name in (_stored_name(spec, weight) for weight in needed)
               if name not in found]  # fmt: skip
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the {len(needed)} tensors that its config.json asks "
            f"for, the first is {missing[0]!r}; is it the config of these weights?"
        )
    result = {weight.name: found[_stored_name(spec, weight)] for weight in needed}
    for weight in needed:
        _check_tensor(weight, *result[weight.name])
    return result


def _stored_name(spec: ModelSpec, weight: WeightSpec) -> str:
    return hugging_face_name(spec.family, weight.name)


def _check_tensor(weight: WeightSpec, file: SafetensorsFile, entry: TensorEntry) -> None:
    if entry.shape != weight.shape:
        raise CheckpointError(
            f"{file.path}: tensor {entry.name!r} has shape {list(entry.shape)}, but config.json "
            f"asks for {list(weight.shape)}; is it the config of these weights?"
        )
    if entry.dtype not in _DTYPES:
        supported = ", ".join(_DTYPES)
        raise CheckpointError(
            f"{file.path}: tensor {entry.name!r} is stored as {entry.dtype}; only {supported} can "
            "be read, so use the original model"
        )


def _eos_token_ids(path: Path, config: Mapping[str, Any], vocab_size: int) -> tuple[int, ...]:
    sources = [(layout.CONFIG, config)]
    if (path / layout.GENERATION_CONFIG).is_file():
        generation = layout.read_json(path / layout.GENERATION_CONFIG)[0]
        sources.append((layout.GENERATION_CONFIG, generation))
    result: set[int] = set()
    for file, content in sources:
        value = content.get("eos_token_id")
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
            raise CheckpointError(
                f"{path / file}: eos_token_id is {str(value)[:80]}; it must be a token id or a "
                "list of them"
            )
        # An id that the model cannot choose (-1 is in use for "none") ends nothing.
        result.update(token for token in ids if 0 <= token < vocab_size)
    return tuple(sorted(result))
