"""WeightBytes: what a weight costs in memory, by format and role. Knows no models' sizes.

bandweave's own formats cost what ``formats/registry.py`` says; the others are those of published
files. Sources: GGUF block sizes (q4_0 18/32, q8_0 34/32, q6_K 210/256, q4_K 144/256 bytes a
weight, ggml's ggml-common.h); mixes from published file sizes (DeepSeek R1 Q4_K_M 404.4 GB of
671.03 B, Llama 3.1 8B Q4_K_M 4.90 bits); MXFP4 is 4.25 bits (OCP MX specification 1.0); MLX 4 and
8 bits carry an f16 scale and an f16 bias for 64 weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from bandweave.models.model_shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class WeightBytes:
    """A format: bytes a weight, and the roles that differ from it."""

    name: str
    default: float
    by_role: Mapping[str, float] = field(default_factory=dict)

    def of(self, role: str) -> float:
        return self.by_role.get(role, self.default)

    def total(self, parameters: Mapping[str, int]) -> float:
        """Bytes of parameters by role."""
        return sum(self.of(role) * count for role, count in parameters.items())


def _format(name: str, bits: float, **role_bits: float) -> WeightBytes:
    roles = {"norm": 32.0, "router": 32.0} | role_bits
    return WeightBytes(
        name=name, default=bits / 8, by_role={role: value / 8 for role, value in roles.items()}
    )


_K_QUANTS = {"head": 6.5625}

_FORMATS: Mapping[str, WeightBytes] = {
    entry.name: entry
    for entry in (
        # bandweave's own: norms and embedding rows stay f32 (docs/numerics.md, section 2).
        _format("q4", 4.5, embedding=32.0),
        _format("q8", 8.5, embedding=32.0),
        _format("mxfp4", 4.25, embedding=32.0),
        _format("nf4", 4.5, embedding=32.0),
        _format("ulaw4", 4.5, embedding=32.0),
        _format("bf16", 16.0, norm=16.0, router=16.0),
        _format("f32", 32.0),
        # Published files.
        _format("f16", 16.0),
        _format("fp8", 8.0, embedding=16.0, head=16.0, router=16.0, norm=16.0),
        _format(
            "mxfp4-experts",
            4.25,
            attention=16.0,
            embedding=16.0,
            head=16.0,
            router=16.0,
            norm=16.0,
        ),
        _format("nvfp4", 4.5, attention=16.0, embedding=16.0, head=16.0, router=16.0, norm=16.0),
        _format("int8", 8.0, embedding=16.0, head=8.0),
        _format("int4-g32", 4.5, embedding=16.0),
        _format("int4-g128", 4.25, embedding=16.0, head=16.0),  # AWQ, GPTQ, AutoRound
        _format("gguf-q8_0", 8.5),
        _format("gguf-q6_k", 6.5625),
        _format("gguf-q5_k_m", 5.65, **_K_QUANTS),
        _format("gguf-q4_k_m", 4.83, embedding=4.5, **_K_QUANTS),
        _format("gguf-q4_k_s", 4.55, embedding=4.5, **_K_QUANTS),
        _format("gguf-q4_0", 4.5, **_K_QUANTS),
        _format("gguf-q3_k_m", 3.9, embedding=3.4375, **_K_QUANTS),
        _format("gguf-q2_k", 2.95, **_K_QUANTS),
        # R1 in 130 GB: experts in 1.5 bits, what every token reads in about 5.
        _format(
            "gguf-iq1_s", 1.5, attention=5.0, shared=5.0, dense=5.0, embedding=4.5, **_K_QUANTS
        ),
        # gpt-oss as llama.cpp's makers publish it: experts as they are, the rest q8_0.
        _format("gguf-mxfp4", 8.5, expert=4.25),
        # Kimi K2 in 3.33 bits on average: experts in 3, what every token reads in 8.
        _format("mlx-3bit", 3.25, attention=8.5, shared=8.5, dense=8.5, embedding=8.5, head=8.5),
        _format("mlx-4bit", 4.5),
        _format("mlx-5bit", 5.5),
        _format("mlx-6bit", 6.5),
        _format("mlx-8bit", 8.5),
    )
}


def format_names() -> tuple[str, ...]:
    return tuple(_FORMATS)


def find_format(name: str) -> WeightBytes:
    """The format of that name; ``ValueError`` with near ones."""
    found = _FORMATS.get(name.lower())
    if found is None:
        close = difflib.get_close_matches(name.lower(), _FORMATS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"no weight format is called {name!r}; {hint}known: {', '.join(_FORMATS)}")
    return found


def stored_format(model: ModelShape) -> WeightBytes:
    """A model as its file stores it: exact bytes where the file was read, else its makers' format.

    Bytes a weight are averages over a role's tensors."""
    if not model.stored_bytes_by_role:
        return find_format(model.stored_format)
    parameters = model.parameters_by_role()
    by_role = {
        role: size / parameters[role]
        for role, size in model.stored_bytes_by_role.items()
        if parameters.get(role)
    }
    total = sum(parameters[role] for role in by_role)
    default = sum(model.stored_bytes_by_role[role] for role in by_role) / max(total, 1)
    return WeightBytes(name=model.stored_format, default=default, by_role=by_role)
