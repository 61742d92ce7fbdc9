"""Writes a checkpoint of random weights in Hugging Face layout, so that nothing needs a download.

The same shape, seed and dtype give the same bytes on every machine: a weight is a quantile of the
normal distribution picked by 16 raw bits of a generator keyed by the seed and the tensor's name.
Knows shapes and files; knows no nodes and no formats.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.random import PCG64

from bandweave.checkpoints import layout
from bandweave.checkpoints.safetensors import encode_header
from bandweave.checkpoints.source import CheckpointError
from bandweave.models.graph_op import WeightSpec
from bandweave.models.places import Places
from bandweave.models.registry import build_graph, tensor_names
from bandweave.models.spec import ModelSpec
from bandweave.synth import tokenizer as text
from bandweave.synth.shapes import Shape
from bandweave.synth.spread import Spread, spread_of

SHARD_BYTES = 1_000_000_000  # a tensor larger than that has a shard of its own
_PANEL_WEIGHTS = 1 << 20  # made at a time: the memory used is a few times this
_QUANTILES = 1 << 16

# By bandweave's name of the dtype: the format's name, config.json's name, bytes a weight.
_DTYPES = {"bf16": ("BF16", "bfloat16", 2), "f16": ("F16", "float16", 2),
           "f32": ("F32", "float32", 4)}  # fmt: skip

_TOKENIZER_CONFIG = "tokenizer_config.json"
_FILES = (
    layout.TOKENIZER,
    _TOKENIZER_CONFIG,
    layout.GENERATION_CONFIG,
    layout.CONFIG,
)  # beside the shards

Progress = Callable[[int, int], None]
"""Called with the bytes of weights written so far and in all."""


def synthesise(
    shape: Shape,
    directory: str | Path,
    seed: int = 0,
    dtype: str = "bf16",
    on_progress: Progress | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes the checkpoint into ``directory``, new or empty, and returns its path.

    Weights are spread as ``spread_of`` says, so that activations stay near 1. ``config.json`` is
    written last: a folder without it was not finished. What was written is removed where anything
    ends the work before, an interrupt included. ``CheckpointError`` for a directory that is not
    empty, too little disk space or a failed write; ``ValueError`` for a bad shape, seed or dtype.
    """
    spec = shape.spec()
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(_DTYPES)}")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed is {seed}; it must be from 0 to 2^64 - 1")
    if spec.vocab_size < text.MIN_VOCAB:
        raise ValueError(
            f"a vocabulary of {spec.vocab_size} tokens is too small: bytes and special tokens need "
            f"{text.MIN_VOCAB}"
        )
    directory = Path(directory)
    weights = build_graph(spec).weights()
    total = sum(math.prod(weight.shape) for weight in weights) * _DTYPES[dtype][2]
    made = not directory.exists()
    try:
        _prepare(directory, total)
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        writer = _Writer(spec, seed, dtype, total, on_progress or (lambda done, total: None))
        stored = _stored(spec, weights)
        writer.write_shards(directory, _shards(stored, shard_bytes, _DTYPES[dtype][2]))
        _write_json(directory / layout.TOKENIZER, text.tokenizer_json(spec.vocab_size), indent=None)
        _write_json(directory / _TOKENIZER_CONFIG, text.tokenizer_config(spec.context_length))
        ids = {"bos_token_id": text.BEGIN_ID, "eos_token_id": text.END_ID}
        _write_json(directory / layout.GENERATION_CONFIG, ids)
        config = {**shape.config(), **ids, "torch_dtype": _DTYPES[dtype][1]}
        _write_json(directory / layout.CONFIG, config)
    except BaseException as error:
        _remove(directory, made)
        if isinstance(error, OSError):
            raise _unwritable(directory, error) from error
        raise
    return directory


def _prepare(directory: Path, total: int) -> None:
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory} is a file; name a new or an empty directory")
    if directory.is_dir() and any(directory.iterdir()):
        raise CheckpointError(f"{directory} is not empty; name a new directory, or empty it")
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < total:
        raise CheckpointError(
            f"{directory} has {free / 1e9:.1f} GB of free space, but the weights need "
            f"{total / 1e9:.1f} GB; name another directory or make the shape smaller"
        )


def _remove(directory: Path, made: bool) -> None:
    """Leaves nothing of an unfinished checkpoint in a directory that was empty or not there."""
    for path in directory.iterdir():
        if path.name in _FILES or path.name.startswith("model"):
            path.unlink(missing_ok=True)
    if made:
        with contextlib.suppress(OSError):  # something of somebody else's is in it
            directory.rmdir()


def _unwritable(directory: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{directory} cannot be written: {error.strerror}")


class _Stored(NamedTuple):
    """A tensor of the checkpoint, and those of the model that it holds."""

    name: str
    shape: tuple[int, ...]
    weights: list[WeightSpec]


def _stored(spec: ModelSpec, weights: Sequence[WeightSpec]) -> list[_Stored]:
    """The first of the places that the family has for each tensor. Where one is stored for several,
    their weights follow each other in it: which is whose does not matter, random as they are."""
    places = Places(spec, weights, tensor_names(spec.family))
    stored: dict[str, _Stored] = {}
    for weight in weights:
        placed = next(places.of(weight))
        empty = _Stored(placed.name, placed.shape, [])
        stored.setdefault(placed.name, empty).weights.append(weight)
    return list(stored.values())


def _shards(tensors: Sequence[_Stored], shard_bytes: int, itemsize: int) -> list[list[_Stored]]:
    shards: list[list[_Stored]] = [[]]
    size = 0
    for tensor in tensors:
        own = math.prod(tensor.shape) * itemsize
        if shards[-1] and size + own > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += own
    return shards


class _Writer:
    """Writes shards of random weights and counts the bytes."""

    def __init__(
        self, spec: ModelSpec, seed: int, dtype: str, total: int, progress: Progress
    ) -> None:
        self.spec, self.seed, self.dtype, self.total = spec, seed, dtype, total
        self.progress = progress
        self.done = 0
        self.tables: dict[Spread, npt.NDArray[np.generic]] = {}  # many tensors share few spreads
        normal = NormalDist()
        upper = [normal.inv_cdf((i + 0.5) / _QUANTILES)
                 for i in range(_QUANTILES // 2, _QUANTILES)]  # fmt: skip
        half = np.array(upper)
        self.quantiles = np.concatenate([-half[::-1], half])  # of the standard normal, float64

    def write_shards(self, directory: Path, shards: Sequence[Sequence[_Stored]]) -> None:
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            if len(shards) == 1:
                file = layout.SINGLE
            weight_map.update(dict.fromkeys((tensor.name for tensor in shard), file))
            dtype = _DTYPES[self.dtype][0]
            entries = [(tensor.name, dtype, tensor.shape) for tensor in shard]
            # A half-written file must never be taken for a model's.
            partial = directory / f"{file}.partial"
            with partial.open("wb") as output:
                output.write(encode_header(entries))
                for weight in (weight for tensor in shard for weight in tensor.weights):
                    self._write_tensor(output, weight)
            partial.replace(directory / file)
        if len(shards) > 1:
            index = {"metadata": {"total_size": self.total}, "weight_map": weight_map}
            _write_json(directory / layout.INDEX, index)

    def _write_tensor(self, output: BinaryIO, weight: WeightSpec) -> None:
        table = self._table(weight)
        key = hashlib.sha256(f"{self.seed}:{weight.name}".encode()).digest()
        # The raw stream of PCG64 is the same in every version of numpy; that of its normals isn't.
        generator = PCG64(int.from_bytes(key[:16], "little"))
        left = math.prod(weight.shape)
        while left:
            count = min(left, _PANEL_WEIGHTS)
            raw = generator.random_raw(-(-count // 4))
            indices = np.asarray(raw, "<u8").view("<u2")[:count]
            output.write(table[indices].data)
            left -= count
            self.done += count * table.itemsize
            self.progress(self.done, self.total)

    def _table(self, weight: WeightSpec) -> npt.NDArray[np.generic]:
        """The tensor's 65,536 possible weights, as stored."""
        spread = spread_of(self.spec, weight)
        table = self.tables.get(spread)
        if table is None:
            table = self.tables[spread] = self._stored(spread)
        return table

    def _stored(self, spread: Spread) -> npt.NDArray[np.generic]:
        values = spread.center + self.quantiles * spread.deviation
        if self.dtype == "f16":
            return values.astype("<f2")
        floats = values.astype("<f4")
        return floats if self.dtype == "f32" else round_to_bf16(floats)


def round_to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bf16 of finite values, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype(np.uint16)


def _write_json(path: Path, content: dict[str, Any], *, indent: int | None = 2) -> None:
    encoded = json.dumps(content, indent=indent, ensure_ascii=False)
    path.write_text(encoded + "\n", encoding="utf-8")
