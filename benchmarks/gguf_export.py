"""Writes a GGUF file with the very weights that bandweave computes with: the same integers, the
same scales.

Knows bandweave's folders and formats, GGUF's blocks, and the order in which llama.cpp wants the
rows of queries and keys; ``gguf_header`` knows architectures, ``gguf_mixture`` the tensors that
plain Llamas don't have, and ``gguf_tokens`` tokenizers.

Suffixes: N outputs, K inputs, G groups of 32 inputs, 32 the elements of a group, X bytes.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import widen
from bandweave.formats.groups import GROUP
from bandweave.formats.matrix import QuantisedMatrix
from bandweave.formats.registry import get_format
from bandweave.models.attention_spec import Attention, HeadsSpec, LatentSpec
from bandweave.ranges import Range
from benchmarks import gguf_header, gguf_mixture, gguf_tokens

Bytes = npt.NDArray[np.uint8]
_PANEL_WEIGHTS = 16 << 20  # quantised at a time: bounds the memory

_TYPES = {"q4": gguf.GGMLQuantizationType.Q4_0, "q8": gguf.GGMLQuantizationType.Q8_0}


def export(folder_path: Path, target: Path, weight_format: str) -> Path:
    """Writes ``target``, whole or not at all, and returns it.

    All products are Q4_0 (``"q4"``) or Q8_0 (``"q8"``), the output tensor included; embeddings
    are as stored; norms, biases and routers are float32. ``ValueError`` for a family that has no
    place in a GGUF file here, and for sizes that GGUF's blocks of 32 cannot hold.
    """
    with Folder.open(folder_path) as folder:
        architecture = gguf_header.architecture_of(folder.spec)
        partial = target.with_name(f"{target.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(partial, architecture, use_temp_file=True)
        gguf_header.write(writer, folder.spec, folder_path.name, weight_format)
        gguf_tokens.write(writer, folder_path, folder.spec.vocab_size)
        for name in folder.names():
            if not gguf_mixture.is_part(name):
                _add(writer, folder, name, weight_format)
        if folder.spec.tied_embeddings:
            _add(writer, folder, "embed_tokens", weight_format, stored_name="output.weight")
        for whole in gguf_mixture.wholes(folder):
            _add_whole(writer, whole, weight_format)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    partial.replace(target)
    return target


def blocks(matrix: QuantisedMatrix) -> Bytes:
    """The matrix as GGUF's blocks, ``[N, X]``: a float16 scale, then 16 or 32 bytes, a group."""
    inputs = matrix.q_NK.shape[1]
    if inputs % GROUP or (matrix.unit % GROUP and matrix.unit < inputs):
        raise ValueError(f"{inputs} inputs in units of {matrix.unit} are no whole groups of 32")
    body_NGX: Bytes = matrix.q_NK.reshape(len(matrix.q_NK), -1, GROUP).view(np.uint8)
    if matrix.format == "q4":  # elements 0..15 in the low nibbles, 16..31 in the high ones
        body_NGX = body_NGX[..., :16] | np.left_shift(body_NGX[..., 16:], 4, dtype=np.uint8)
    scales_NG2 = np.ascontiguousarray(matrix.d_NG[..., None], "<f2").view(np.uint8)
    return np.concatenate([scales_NG2, body_NGX], axis=2).reshape(len(matrix.q_NK), -1)


def rope_order(rows: int, head_dim: int) -> npt.NDArray[np.intp]:
    """Where llama.cpp's row i of queries or keys comes from: it turns neighbours (2j, 2j + 1) of a
    head, where Hugging Face folders have j and j + half."""
    half = head_dim // 2
    order = np.arange(rows).reshape(-1, 2, half)  # head, half, j
    return order.swapaxes(1, 2).reshape(-1)


def _add(
    writer: gguf.GGUFWriter,
    folder: Folder,
    name: str,
    weight_format: str,
    *,
    stored_name: str = "",
) -> None:
    shape = folder.shape(name)
    target = stored_name or gguf_header.tensor_name(name, folder.spec)
    if len(shape) == 1 or name.endswith(".router"):
        writer.add_tensor(target, widen(folder.read(name, Range(start=0, stop=shape[0]))))
        return
    if target == "token_embd.weight":
        _add_embeddings(writer, folder, name, target)
        return
    data_NX = _matrix(folder, name, weight_format)
    if name.endswith(("q_proj", "k_proj")) and folder.spec.family == "llama":
        data_NX = data_NX[rope_order(shape[0], folder.spec.head_dim)]
    writer.add_tensor(target, np.ascontiguousarray(data_NX), raw_dtype=_TYPES[weight_format])


def _add_whole(writer: gguf.GGUFWriter, whole: gguf_mixture.Whole, weight_format: str) -> None:
    """A tensor of three dimensions, or of the biases of all experts."""
    parts = []
    for part in whole.parts():
        if part.ndim == 1:
            parts.append(part)
        else:
            matrix = get_format(weight_format).quantise(part, part.shape[1])
            assert isinstance(matrix, QuantisedMatrix)
            parts.append(blocks(matrix))
    raw = None if parts[0].dtype == np.float32 else _TYPES[weight_format]
    writer.add_tensor(whole.name, np.stack(parts), raw_dtype=raw)


def _matrix(folder: Folder, name: str, weight_format: str) -> Bytes:
    """A product's matrix as blocks ``[N, X]``."""
    shape = folder.shape(name)
    unit = shape[1]
    if name.endswith(".o_proj"):
        unit = _head_width(folder.spec.layers[0].attention)
    elif name.endswith("down_proj"):
        unit = 64
    return np.concatenate(
        [_quantised(folder, name, rows, weight_format, unit) for rows in _pieces(shape)]
    )


def _head_width(attention: Attention) -> int:
    """Columns of the output projection that belong together."""
    assert isinstance(attention, HeadsSpec | LatentSpec)
    return attention.head_dim if isinstance(attention, HeadsSpec) else attention.v_dim


def _quantised(folder: Folder, name: str, rows: Range, weight_format: str, unit: int) -> Bytes:
    matrix = get_format(weight_format).quantise(widen(folder.read(name, rows)), unit)
    assert isinstance(matrix, QuantisedMatrix)
    return blocks(matrix)


def _pieces(shape: tuple[int, ...]) -> list[Range]:
    count = max(1, _PANEL_WEIGHTS // shape[1])
    return [
        Range(start=start, stop=min(start + count, shape[0])) for start in range(0, shape[0], count)
    ]


def _add_embeddings(writer: gguf.GGUFWriter, folder: Folder, name: str, target: str) -> None:
    stored = folder.read(name, Range(start=0, stop=folder.shape(name)[0]))
    if stored.dtype == np.uint16:  # bf16 as it is
        bf16 = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(target, stored.view(np.uint8), raw_dtype=bf16)
    else:
        writer.add_tensor(target, stored)
