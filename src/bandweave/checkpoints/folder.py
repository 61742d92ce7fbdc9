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
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints import layout
from bandweave.checkpoints.safetensors import SafetensorsFile
from bandweave.checkpoints.source import CheckpointError, narrowed
from bandweave.checkpoints.stored import DTYPES, Stored, find_tensors
from bandweave.models.config import ConfigError
from bandweave.models.registry import hugging_face_name, spec_from_config
from bandweave.models.spec import ModelSpec
from bandweave.ranges import Range
from bandweave.shown import printable, shown

_SAMPLES, _SAMPLE_BYTES = 256, 4096  # of a fingerprint


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
    """

    def __init__(
        self,
        *,
        path: Path,
        spec: ModelSpec,
        config: Mapping[str, Any],
        config_bytes: bytes,
        files: Mapping[str, SafetensorsFile],
        tensors: Mapping[str, Stored],
        stack: ExitStack,
    ) -> None:
        """Takes what ``open`` has checked; call ``open``."""
        self.path, self.spec, self.config = path, spec, config
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
            files, tensors = {}, {}
            needed = weights or layout.has_weight_files(path)
            for name, promised in layout.weight_files(path).items() if needed else ():
                files[name] = file = SafetensorsFile.open(path / name)
                stack.callback(file.close)
                for tensor in promised:
                    if tensor not in file.tensors:
                        raise CheckpointError(
                            f"{printable(path / layout.INDEX)} says that tensor {shown(tensor)} is "
                            f"in {name}, but it is not; download both again"
                        )
            if needed:
                spec, tensors = find_tensors(path, spec, files.values())
            return cls(
                path=path,
                spec=spec,
                config=config,
                config_bytes=config_bytes,
                files=files,
                tensors=tensors,
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
        return DTYPES[self._tensors[name][1].dtype][0]

    def file_key(self, name: str) -> str:
        """Names the very file that holds the tensor, as it is now; empty where that cannot be
        told."""
        file, _ = self._tensors[name]
        return file.identity.key(file.header_sha256)

    def read(self, name: str, rows: Range, columns: Range | None = None) -> npt.NDArray[np.generic]:
        """The rectangle as stored, C order, reading its bytes and no others.

        ``[rows, columns]``, or ``[rows]`` of a vector: float32, float16, or uint16 holding bf16
        bits; float64 comes rounded to float32. ``ValueError`` for a range outside of the tensor.
        """
        if self._closed:
            raise ValueError(f"{self.path} has been closed")
        file, entry = self._tensors[name]
        dtype = DTYPES[entry.dtype][1]
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
            return narrowed(result)
        target = result.reshape(-1).view(np.uint8).data
        item, stride = result.itemsize, width * result.itemsize
        start = entry.start + rows.start * stride + columns.start * item
        if len(columns) == width:
            file.read_into(target, start)
            return narrowed(result)
        step = len(columns) * item
        for row in range(len(rows)):
            file.read_into(target[row * step : (row + 1) * step], start + row * stride)
        return narrowed(result)

    def read_rows(self, name: str, rows: Sequence[int]) -> npt.NDArray[np.generic]:
        """Rows of a matrix from anywhere in it, as ``read`` gives them: ``[rows, width]``.
        ``ValueError`` for a row that it does not have."""
        if self._closed:
            raise ValueError(f"{self.path} has been closed")
        file, entry = self._tensors[name]
        count, width = entry.shape
        result = np.empty((len(rows), width), DTYPES[entry.dtype][1])
        target, stride = result.reshape(-1).view(np.uint8).data, width * result.itemsize
        for place, row in enumerate(rows):
            if not 0 <= row < count:
                raise ValueError(f"row {row} of {name}, which has {count}")
            at = place * stride
            file.read_into(target[at : at + stride], entry.start + row * stride)
        return narrowed(result)

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
        """What a tensor is called in its file, or would be in one of Hugging Face's."""
        if name in self._tensors:
            return self._tensors[name][1].name
        return hugging_face_name(self.spec.family, name)

    def item_bytes(self, name: str) -> int:
        """Stored bytes of one element of a tensor."""
        return np.dtype(DTYPES[self._tensors[name][1].dtype][1]).itemsize

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

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_range(name: str, what: str, asked: Range, size: int) -> None:
    if not 0 <= asked.start <= asked.stop <= size:
        raise ValueError(f"{what} {asked} of {name} were asked for, but it has {size}")


def _spec(path: Path, config: Mapping[str, Any]) -> ModelSpec:
    try:
        return spec_from_config(config)
    except ConfigError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error
