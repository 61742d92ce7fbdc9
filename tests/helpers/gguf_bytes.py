"""GGUF files byte by byte, sound or not: what no library would write."""

from __future__ import annotations

import math
import struct
from typing import Any

F32, Q4_0, Q6_K = 0, 2, 14
UINT, FLOAT, FLAG, STRING, ARRAY, INT = 4, 6, 7, 8, 9, 11
BLOCKS = {F32: (1, 4), Q4_0: (32, 18), Q6_K: (256, 210)}


def text(value: str) -> bytes:
    try:
        content = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        content = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(content)) + content


def field(key: str, value: Any) -> bytes:
    """A field of metadata: a text, a number, a flag, or a list of these, whose first item tells
    the type."""
    if not isinstance(value, list):
        kind, content = _scalar(value)
        return text(key) + struct.pack("<I", kind) + content
    kind = _scalar(value[0])[0] if value else STRING
    items = b"".join(_as(kind, item) for item in value)
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(value)) + items


def _scalar(value: Any) -> tuple[int, bytes]:
    if isinstance(value, str):
        return STRING, text(value)
    if isinstance(value, bool):
        return FLAG, struct.pack("<B", value)
    if isinstance(value, float):
        return FLOAT, struct.pack("<f", value)
    return (UINT, struct.pack("<I", value)) if 0 <= value < 1 << 32 else (INT, _as(INT, value))


def _as(kind: int, value: Any) -> bytes:
    if kind == INT:
        return struct.pack("<q", max(-(1 << 63), min(value, (1 << 63) - 1)))
    found, content = _scalar(value)
    return (
        content if found == kind else _scalar({STRING: "x", FLAG: True, FLOAT: 0.0}.get(kind, 0))[1]
    )


def gguf(
    fields: dict[str, Any],
    tensors: dict[str, tuple[int, tuple[int, ...]]],
    *,
    most: int = 1 << 30,
    written: tuple[int, bytes] = (0, b""),
) -> bytes:
    """A file with these fields and tensors (type, shape with the inputs last), full of zeros: not
    more than ``most``. ``written``: so many fields besides, as bytes."""
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields) + written[0])
    header += written[1] + b"".join(field(key, value) for key, value in fields.items())
    offset = 0
    for name, (kind, shape) in tensors.items():
        header += text(name) + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", size) for size in reversed(shape))
        header += struct.pack("<IQ", kind, offset % (1 << 64))
        block, size = BLOCKS[kind]
        offset += -(-math.prod(shape) // block * size // 32) * 32
    header += bytes(-len(header) % 32)
    return header + bytes(min(offset, most))


def small_llama(
    *, layers: int = 2, experts: int = 0, vocabulary: int = 5000
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields and the tensors of a model of 32-blocks."""
    fields: dict[str, Any] = {
        "general.architecture": "llama", "llama.block_count": layers,
        "llama.embedding_length": 256, "llama.feed_forward_length": 512,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.context_length": 4096, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.tokens": [f"t{n}" for n in range(vocabulary)],
    }  # fmt: skip
    tensors: dict[str, Any] = {
        "token_embd.weight": (Q4_0, (vocabulary, 256)), "output.weight": (Q6_K, (vocabulary, 256)),
        "output_norm.weight": (F32, (256,)),
    }  # fmt: skip
    for layer in range(layers):
        for name, shape in {
            "attn_q": (256, 256), "attn_k": (128, 256), "attn_v": (128, 256),
            "attn_output": (256, 256),
        }.items():  # fmt: skip
            tensors[f"blk.{layer}.{name}.weight"] = (Q4_0, shape)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = (F32, (256,))
        suffix, lead = ("_exps", (experts,)) if experts else ("", ())
        for name, shape in {"gate": (512, 256), "up": (512, 256), "down": (256, 512)}.items():
            tensors[f"blk.{layer}.ffn_{name}{suffix}.weight"] = (Q4_0, (*lead, *shape))
        if experts:
            tensors[f"blk.{layer}.ffn_gate_inp.weight"] = (F32, (experts, 256))
    if experts:
        fields |= {"llama.expert_count": experts, "llama.expert_used_count": 2}
    return fields, tensors
