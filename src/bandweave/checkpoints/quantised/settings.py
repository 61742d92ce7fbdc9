"""Settings: what a config says of how its weights are quantised (``quantization_config``).

Which tensors are quantised is told by the tensors themselves; here is what they do not tell. A
method that is not read is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bandweave.checkpoints.source import CheckpointError
from bandweave.shown import shown

#: What the refusal of another method recommends.
READ_INSTEAD = (
    "download the original model, or a version in FP8, MXFP4, compressed-tensors, AWQ or GPTQ: "
    "bandweave quantises while loading"
)

_FIELDS = ("quantization_config", "compression_config")  # the second is compressed-tensors' old one
_MOST_GROUP = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``method``: as the config names it, empty where it names none. ``block``: rows and columns
    that share an FP8 scale, None where none do. ``bits`` of a code. ``group_size``: inputs that
    share a scale, 0 for all of them; ``group_sizes``: those that occur, none where nothing tells.
    ``zero_less``: what stored zero points lack. ``act_order``: the tensors say which group an input
    belongs to. ``zero_points``: all matrices have them. For messages ``said_by``: what sizes are
    said by; ``doubt``: of tensors that do not fit them."""

    method: str = ""
    block: tuple[int, int] | None = (128, 128)
    bits: int = 0
    group_size: int = 0
    group_sizes: tuple[int, ...] = ()
    zero_less: int = 0
    act_order: bool = False
    zero_points: bool = False
    said_by: str = "config.json"
    doubt: str = "is it the config of these weights?"


def settings_from(config: Mapping[str, Any]) -> Settings:
    """Of a parsed config.json. ``CheckpointError`` for a method, or a variant of one, that is not
    read."""
    fields = _fields(config)
    if fields is None:
        return Settings()
    method = fields.get("quant_method")
    if method is None and "config_groups" in fields:
        method = "compressed-tensors"
    read = _METHODS.get(method) if isinstance(method, str) else None
    if read is None:
        what = shown(method)[1:-1] if isinstance(method, str) and method else "an unknown method"
        raise CheckpointError(
            f"the model is quantised by {what}, which is not read (quantization_config in "
            f"config.json); {READ_INSTEAD}"
        )
    return read(fields)


def _fields(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    inner = config.get("text_config")
    for one in (config, inner if isinstance(inner, Mapping) else {}):
        for name in _FIELDS:
            value = one.get(name)
            if value is None or value == {}:
                continue
            if not isinstance(value, Mapping):
                raise CheckpointError(
                    f"config.json: {name} is {shown(value)}; it must be an object"
                )
            return value
    return None


def _fp8(fields: Mapping[str, Any]) -> Settings:
    _require(fields, "fmt", (None, "e4m3", "float8_e4m3fn"))
    block = fields.get("weight_block_size", (128, 128))
    return Settings(method="fp8", block=None if block is None else _block(block))


def _row_fp8(fields: Mapping[str, Any]) -> Settings:
    del fields
    return Settings(method="fbgemm_fp8", block=None)


def _mxfp4(fields: Mapping[str, Any]) -> Settings:
    del fields
    return Settings(method="mxfp4")


def _awq(fields: Mapping[str, Any]) -> Settings:
    layout = fields.get("version", fields.get("format"))
    layout = layout.lower() if isinstance(layout, str) else layout
    _require({"version": layout}, "version", (None, "gemm"))
    _require(fields, "bits", (4,), fields.get("w_bit"))
    return Settings(method="awq", bits=4, group_size=_group(fields, "q_group_size"))


def _gptq(fields: Mapping[str, Any]) -> Settings:
    layout = fields.get("checkpoint_format", fields.get("format"))
    layout = layout.lower() if isinstance(layout, str) else layout
    _require({"checkpoint_format": layout}, "checkpoint_format", (None, "gptq", "gptq_v2"))
    _require(fields, "bits", (2, 4, 8))
    return Settings(
        method="gptq",
        bits=fields["bits"],
        group_size=_group(fields),
        zero_less=0 if layout == "gptq_v2" else 1,
        act_order=bool(fields.get("desc_act")),
    )


def _compressed(fields: Mapping[str, Any]) -> Settings:
    groups = fields.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise CheckpointError(
            "config.json: quantization_config has no 'config_groups', which say how weights are "
            "compressed; download it again"
        )
    sparsity = fields.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format") not in (None, "dense"):
        raise CheckpointError(
            f"the model's weights are sparse ({shown(sparsity.get('format'))} in "
            f"quantization_config of config.json), which is not read; {READ_INSTEAD}"
        )
    block, sizes = None, set()
    for name, group in groups.items():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping):
            raise CheckpointError(
                f"config.json: config_groups of quantization_config say nothing of the weights of "
                f"{shown(name)}; {READ_INSTEAD}"
            )
        kinds = _COMPRESSED.get(str(group.get("format") or fields.get("format")), ())
        kind = weights.get("type", "int"), weights.get("num_bits")
        if kind not in kinds:
            raise CheckpointError(
                f"the model's weights are compressed as {shown(kind[0])[1:-1]} of {shown(kind[1])} "
                f"bits in the format {shown(group.get('format') or fields.get('format'))}, which "
                f"is not read (quantization_config in config.json); {READ_INSTEAD}"
            )
        sizes.add(0 if weights.get("group_size") is None else _group(weights))
        if weights.get("block_structure") is not None:
            block = _block(weights["block_structure"])
    weights = [group["weights"] for group in groups.values()]
    return Settings(
        method="compressed-tensors",
        block=block,
        bits=weights[0]["num_bits"],
        group_sizes=tuple(sorted(sizes)),
        zero_points=all(one.get("symmetric") is False for one in weights),
    )


#: Types and bits of weights, by the formats of compressed-tensors that are read.
_COMPRESSED: Mapping[str, Sequence[tuple[Any, Any]]] = {
    "pack-quantized": (("int", 4), ("int", 8)),
    "int-quantized": (("int", 8),),
    "float-quantized": (("float", 8),),
    "naive-quantized": (("float", 8), ("int", 8)),
}

_METHODS = {
    "fp8": _fp8,
    "fbgemm_fp8": _row_fp8,
    "mxfp4": _mxfp4,
    "compressed-tensors": _compressed,
    "awq": _awq,
    "gptq": _gptq,
}


def _require(
    fields: Mapping[str, Any], name: str, values: Sequence[Any], default: Any = None
) -> None:
    value = fields.get(name)
    value = default if value is None else value
    if value not in values or isinstance(value, bool):
        known = " or ".join(str(one) for one in values if one is not None)
        raise CheckpointError(
            f"config.json: {name} of quantization_config is {shown(value)}, but only {known} is "
            f"read; {READ_INSTEAD}"
        )


def _group(fields: Mapping[str, Any], other: str = "") -> int:
    """Inputs of a group; 0 for all."""
    value = fields.get("group_size", fields.get(other, 128))
    if value == -1:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MOST_GROUP:
        raise CheckpointError(
            f"config.json: group_size of quantization_config is {shown(value)}; it must be a "
            "positive number, or -1 for whole columns"
        )
    return value


def _block(value: Any) -> tuple[int, int]:
    sizes = list(value) if isinstance(value, list | tuple) else []
    if len(sizes) != 2 or not all(type(size) is int and 0 < size <= _MOST_GROUP for size in sizes):
        raise CheckpointError(
            f"config.json: the block size of quantization_config is {shown(value)}; it must be two "
            "positive numbers"
        )
    return sizes[0], sizes[1]
