"""Folder: a checkpoint in Hugging Face layout or a GGUF file, as a source of slices of tensors.

Reads exactly the byte ranges asked for; knows no nodes and no formats.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.byte_file import ByteFile
from bandweave.checkpoints.contents import Contents
from bandweave.checkpoints.gguf_model import is_gguf, open_gguf
from bandweave.checkpoints.hugging_face import open_folder
from bandweave.checkpoints.partial_file import PartialFile
from bandweave.checkpoints.source import READ_BITS, FileRows, widen
from bandweave.checkpoints.stored import stored_name
from bandweave.checkpoints.view import View
from bandweave.collection import no_collection
from bandweave.ranges import Range

_SAMPLES, _SAMPLE_BYTES = 256, 4096  # of a fingerprint


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What checkpoints are told apart by before they are loaded: SHA-256 in hexadecimal of
    config.json or a GGUF file's header, of all weight files' names, sizes and headers, and of
    samples of tensors; empty where it is not known."""

    config: str
    headers: str = ""
    sample: str = ""

    def fits(self, other: Fingerprint) -> bool:
        """Whether nothing that both know tells them apart."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(not own or not theirs or own == theirs for own, theirs in pairs)


class Folder:
    """An open checkpoint, a ``TensorSource``. Threads may read at once; use ``with`` or ``close``.

    ``path``: the folder, or the GGUF file. ``spec``: its model. ``config``: the parsed config.json,
    or what one would say. ``fields``: a GGUF file's metadata, but of long arrays their lengths;
    none of a folder. ``remarks``: sentences on what the files leave out.
    """

    def __init__(self, path: Path, contents: Contents, stack: ExitStack) -> None:
        """Takes what ``open`` has checked; call ``open``."""
        self.path, self.spec, self.config = path, contents.spec, contents.config
        self._metadata, self.fields = contents.metadata, contents.fields
        self.remarks = contents.remarks
        self._config_bytes, self._names = contents.config_bytes, contents.names
        self._files, self._tensors = contents.files, contents.tensors
        self._file_keys = {name: file.key for name, file in contents.files.items()}
        self._read_keys: dict[tuple[str, ...], str] = {}  # by how tensors are read, and of what
        self._stack = stack
        self._closed = False

    @classmethod
    def open(cls, path: str | Path, *, weights: bool = True) -> Folder:
        """Opens a folder or a GGUF file and checks config, files, and every tensor's presence,
        shape and dtype.

        Reads headers only. With ``weights`` off a folder without any weight file will do, which
        has the config of a model that other machines hold. ``CheckpointError`` says what is wrong
        and what to do.
        """
        path = Path(path)
        with ExitStack() as stack, no_collection():
            if is_gguf(path):
                contents = open_gguf(path, stack)
            else:
                contents = open_folder(path, stack, weights=weights)
            return cls(path, contents, stack.pop_all())

    # --- TensorSource ---

    def names(self) -> Collection[str]:
        """bandweave's names of all tensors that the model needs."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """``(outputs, inputs)``, or ``(size,)``; ``KeyError`` for an unknown name."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """``"f32"``, ``"bf16"`` or ``"f16"``, or the type of blocks."""
        return self._tensors[name].dtype

    def stored_as(self, name: str) -> str:
        """How a weight of it is stored, as ``checkpoints.tensor.Matrix`` names it."""
        return self._tensors[name].stored_as

    def item_bits(self, name: str) -> float:
        """Stored bits of one element, its share of scales and the like included."""
        return self._tensors[name].bits

    def file_key(self, name: str) -> str:
        """Names the very files that hold the tensor, as they are now, and how it is read from
        them; empty where that cannot be told."""
        view = self._tensors[name]
        key = self._read_keys.get(files := (view.recipe, *self._keys(name)))
        if key is None:
            key = self._read_keys[files] = _read_key(view.recipe, sorted(set(files[1:])))
        return key

    def read(self, name: str, rows: Range, columns: Range | None = None) -> npt.NDArray[np.generic]:
        """The rectangle as stored, C order, reading its bytes and no others but short gaps.

        ``[rows, columns]``, or ``[rows]`` of a vector: float32, float16, or uint16 holding bf16
        bits; float64 comes rounded to float32, quantised weights as the float32 that they stand
        for, but blocks of a GGUF file as they are: ``[rows, bytes]`` of uint8. ``ValueError`` for a
        range outside of the tensor, or one that cuts a block; ``CheckpointError`` where what is
        stored there makes no sense.
        """
        view, columns = self._rectangle(name, rows, columns)
        values = view.read(rows, columns)
        return values.reshape(-1) if len(view.shape) == 1 else values

    def rows_in_file(self, name: str, rows: Range, columns: Range | None = None) -> FileRows | None:
        """Where the rows lie that ``read`` would give, if they are stored so, in a file that is on
        this machine; else None. ``ValueError`` as ``read``."""
        view, columns = self._rectangle(name, rows, columns)
        return view.rows_in_file(rows, columns)

    def read_rows(self, name: str, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Rows of a matrix from anywhere in it, widened: ``[rows, width]``.
        ``ValueError`` for a row that it does not have."""
        if self._closed:
            raise ValueError(f"{self.path} has been closed")
        view = self._tensors[name]
        count, width = view.shape
        for row in rows:
            if not 0 <= row < count:
                raise ValueError(f"row {row} of {name}, which has {count}")
        columns = Range(start=0, stop=width)
        if not rows:
            return np.empty((0, width), np.float32)
        read = [view.read(Range(start=row, stop=row + 1), columns) for row in rows]
        return widen(np.concatenate(read), view.dtype)

    # --- the rest of the folder ---

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file, which has the tokenizer as well."""
        return self._metadata is not None

    def metadata(self) -> Mapping[str, Any]:
        """All metadata of a GGUF file, none of a folder."""
        return {} if self._metadata is None else self._metadata()

    @property
    def has_weights(self) -> bool:
        """Whether the model's tensors are here, and not its config alone."""
        return bool(self._tensors)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors that the model needs, as stored."""
        return sum(self.tensor_bytes(name) for name in self._tensors)

    def is_in(self, name: str, file_keys: Collection[str]) -> bool:
        """Whether all of a tensor is in files with these keys."""
        return all(key in file_keys for key in self._keys(name))

    @property
    def file_keys(self) -> frozenset[str]:
        """The keys of all weight files as they are now; a file that cannot be told has none."""
        return frozenset(self._file_keys.values()) - {""}

    @property
    def files(self) -> Mapping[str, int]:
        """The sizes of all weight files, by name."""
        return {name: file.size for name, file in self._files.items()}

    @property
    def file_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(file.size for file in self._files.values())

    @property
    def byte_files(self) -> Mapping[str, ByteFile]:
        """The weight files, by name, as bytes."""
        return {name: file.file for name, file in self._files.items()}

    def places(self, name: str) -> list[tuple[str, int, int]]:
        """Where the tensors lie that a tensor is made of: files' names, first bytes and ends."""
        stored = self._tensors[name].matrix.stored
        return [(file.path.name, entry.start, entry.stop) for file, entry in stored]

    @property
    def whole(self) -> bool:
        """Whether all bytes of the weight files are on this machine."""
        return all(file.file.whole for file in self._files.values())

    @property
    def fetched_bytes(self) -> int:
        """How much of them has come from elsewhere since the folder was opened."""
        return sum(file.file.fetched_bytes for file in self._files.values())

    @property
    def moved(self) -> int:
        """Grows while bytes come from elsewhere, or what has come is compared."""
        return sum(file.file.moved for file in self._files.values())

    def interrupt(self, over: bool = True) -> None:
        """Ends whatever is being fetched of them, with ``CheckpointError`` for who waits for it,
        and lets nothing be fetched, until it is called again with False."""
        for file in self._files.values():
            if isinstance(file.file, PartialFile):
                if over:
                    file.file.interrupted.set()
                else:
                    file.file.interrupted.clear()

    def read_bytes(self, file: str, target: memoryview, offset: int) -> None:
        """Fills ``target`` from a weight file, whatever is there."""
        self._files[file].read_into(target, offset)

    def tensor_bytes(self, name: str) -> int:
        """Stored bytes of a tensor, rounded."""
        view = self._tensors[name]
        return round(math.prod(view.shape) * view.bits / 8)

    def file_name(self, name: str) -> str:
        """The name of the file that holds a tensor, or its codes where scales are elsewhere."""
        file, _ = self._tensors[name].matrix.stored[0]
        return file.path.name

    def stored_name(self, name: str) -> str:
        """What the tensor that holds it is called in its file, or would be in one of Hugging
        Face's."""
        if name in self._tensors:
            return self._tensors[name].matrix.name
        return stored_name(self._names, name)

    def read_bits(self, name: str) -> float:
        """Bits of one element as ``read`` gives it, which is what copies are compared by."""
        return READ_BITS.get(self.dtype(name)) or self._tensors[name].bits

    def _rectangle(self, name: str, rows: Range, columns: Range | None) -> tuple[View, Range]:
        """A tensor, and the columns of a rectangle that it has."""
        if self._closed:
            raise ValueError(f"{self.path} has been closed")
        view = self._tensors[name]
        is_vector = len(view.shape) == 1
        if is_vector and columns is not None:
            raise ValueError(f"{name} is a vector, but columns {columns} were asked for")
        width = 1 if is_vector else view.shape[1]
        if columns is None:  # not "or": an empty range is false
            columns = Range(start=0, stop=width)
        _check_range(name, "rows", rows, view.shape[0])
        _check_range(name, "columns", columns, width)
        return view, columns

    def _keys(self, name: str) -> list[str]:
        """The keys of the files that hold a tensor, or parts of it."""
        stored = self._tensors[name].matrix.stored
        return [self._file_keys[file.path.name] for file, _ in stored]

    def layout_fingerprint(self) -> Fingerprint:
        """``fingerprint`` without a sample, which nothing is read for."""
        return self._layout

    @cached_property
    def _layout(self) -> Fingerprint:
        headers = hashlib.sha256()
        for name, file in sorted(self._files.items()):
            encoded = name.encode()
            headers.update(struct.pack("<QQ", len(encoded), file.size))
            headers.update(encoded + file.header_sha256)
        config = hashlib.sha256(self._config_bytes).hexdigest()
        return Fingerprint(config=config, headers=headers.hexdigest() if self._files else "")

    def fingerprint(self) -> Fingerprint:
        """Tells this checkpoint from others by a few hundred reads of 4 KiB. What it cannot tell
        is for the comparison of all that is loaded. Of a folder that is still being filled nothing
        is sampled: that would fetch what nobody needs here."""
        if not self._tensors or not self.whole:
            return self.layout_fingerprint()
        digest = hashlib.sha256()
        tensors = sorted(self._tensors.items())
        for _, view in tensors[:: -(-len(tensors) // _SAMPLES) or 1]:
            for file, entry in view.matrix.stored:
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


def _read_key(recipe: str, keys: Sequence[str]) -> str:
    """Names tensors that are read so from files with these keys."""
    if "" in keys or (len(keys) == 1 and not recipe):
        return keys[0]
    return hashlib.sha256(json.dumps([recipe, *keys]).encode()).hexdigest()


def _check_range(name: str, what: str, asked: Range, size: int) -> None:
    if not 0 <= asked.start <= asked.stop <= size:
        raise ValueError(f"{what} {asked} of {name} were asked for, but it has {size}")
