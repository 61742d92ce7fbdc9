"""Writes a GGUF file with the very weights that bandweave computes with: the same integers, the
same scales.

Knows bandweave's folders and formats, GGUF's names and blocks, and the order in which llama.cpp
wants the rows of queries and keys. The vocabulary is left out (``no_vocab``): benchmarks speak in
token ids.

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
from bandweave.models.spec import ModelSpec
from bandweave.ranges import Range

Bytes = npt.NDArray[np.uint8]
_PANEL_WEIGHTS = 16 << 20  # quantised at a time: bounds the memory

_TYPES = {"q4": gguf.GGMLQuantizationType.Q4_0, "q8": gguf.GGMLQuantizationType.Q8_0}
_FILE_TYPES = {"q4": gguf.LlamaFileType.MOSTLY_Q4_0, "q8": gguf.LlamaFileType.MOSTLY_Q8_0}
_NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
    "input_norm": "attn_norm", "post_norm": "ffn_norm", "q_proj": "attn_q", "k_proj": "attn_k",
    "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}  # fmt: skip


def export(folder_path: Path, target: Path, weight_format: str) -> Path:
    """Writes ``target``, whole or not at all, and returns it.

    All products are Q4_0 (``"q4"``) or Q8_0 (``"q8"``), the output tensor included; embeddings
    are as stored; norms are float32. ``ValueError`` for a model that is no plain Llama, and for
    sizes that GGUF's blocks of 32 cannot hold.
    """
    with Folder.open(folder_path) as folder:
        _check(folder.spec)
        partial = target.with_name(f"{target.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(partial, "llama", use_temp_file=True)
        _write_header(writer, folder.spec, folder_path.name, weight_format)
        for name in folder.names():
            _add(writer, folder, name, weight_format)
        if folder.spec.tied_embeddings:
            _add(writer, folder, "embed_tokens", weight_format, stored_name="output.weight")
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


def gguf_name(name: str) -> str:
    """GGUF's name of the tensor that bandweave calls ``name``; ``ValueError`` for a bias."""
    first, *rest = name.split(".")
    stem = rest[1] if first == "layers" and len(rest) == 2 else name
    if stem not in _NAMES:
        raise ValueError(f"tensor {name} has no place in a plain Llama's GGUF file")
    block = f"blk.{rest[0]}." if first == "layers" else ""
    return f"{block}{_NAMES[stem]}.weight"


def _check(spec: ModelSpec) -> None:
    rope = spec.heads.rope
    if spec.family != "llama" or spec.heads.window or rope is None:
        raise ValueError(f"only plain Llama models can be exported, not {spec.family}")
    if rope.scaling is not None:
        raise ValueError(f"rope scaling {rope.scaling.kind} cannot be exported yet")


def _write_header(writer: gguf.GGUFWriter, spec: ModelSpec, name: str, format: str) -> None:
    writer.add_name(name)
    writer.add_context_length(spec.context_length)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_block_count(spec.num_layers)
    writer.add_feed_forward_length(spec.intermediate_size)
    writer.add_head_count(spec.num_heads)
    writer.add_head_count_kv(spec.num_kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    assert spec.heads.rope is not None
    writer.add_rope_freq_base(spec.heads.rope.theta)
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    writer.add_vocab_size(spec.vocab_size)
    writer.add_file_type(_FILE_TYPES[format])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_tokenizer_model("no_vocab")


def _add(
    writer: gguf.GGUFWriter,
    folder: Folder,
    name: str,
    weight_format: str,
    *,
    stored_name: str = "",
) -> None:
    shape = folder.shape(name)
    target = stored_name or gguf_name(name)
    if len(shape) == 1:
        writer.add_tensor(target, widen(folder.read(name, Range(start=0, stop=shape[0]))))
        return
    if target == "token_embd.weight":
        _add_embeddings(writer, folder, name, target)
        return
    unit = folder.spec.head_dim if name.endswith("o_proj") else 64
    if not name.endswith(("o_proj", "down_proj")):
        unit = shape[1]
    data_NX = np.concatenate(
        [_quantised(folder, name, rows, weight_format, unit) for rows in _pieces(shape)]
    )
    if name.endswith(("q_proj", "k_proj")):
        data_NX = data_NX[rope_order(shape[0], folder.spec.head_dim)]
    writer.add_tensor(target, np.ascontiguousarray(data_NX), raw_dtype=_TYPES[weight_format])


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
