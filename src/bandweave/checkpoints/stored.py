"""Which stored tensors are the model's: names, prefixes, shapes and dtypes, as transformers has it.

Knows what other tools write in the place of plain weights, so that a folder is refused with its
cause. Reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bandweave.checkpoints.safetensors import SafetensorsFile, TensorEntry
from bandweave.checkpoints.source import CheckpointError
from bandweave.models.graph import WeightSpec
from bandweave.models.registry import build_graph, hugging_face_name
from bandweave.models.spec import ModelSpec
from bandweave.shown import printable, shown

Stored = tuple[SafetensorsFile, TensorEntry]

#: The stored dtypes that can be read: what a reader gets, and the array that holds them on disk.
DTYPES: Mapping[str, tuple[str, type[np.generic]]] = {
    "F32": ("f32", np.float32),
    "F16": ("f16", np.float16),
    "BF16": ("bf16", np.uint16),
    "F64": ("f32", np.float64),  # rounded to float32 as it is read
}

#: The prefix that weights saved without their head's class lack, and what it stands before.
_BASE, _IN_BASE, _HEAD = "model.", ("layers.", "embed_tokens.", "norm."), "lm_head."
_ORIGINAL = "download the original model, bandweave quantises while loading"

#: Names that other tools give tensors: a pattern, what such a folder is, and what to do instead.
_OTHER_TOOLS = tuple(
    (re.compile(pattern), what, remedy)
    for pattern, what, remedy in (
        (r"\.(qweight|qzeros|g_idx)$", "weights quantised by GPTQ or AWQ", _ORIGINAL),
        (r"\.(weight_packed|weight_shape)$", "weights of compressed-tensors", _ORIGINAL),
        (r"\.(absmax|quant_map|SCB|weight_format)$", "weights of bitsandbytes", _ORIGINAL),
        (r"\.(weight_scale|weight_scale_inv|input_scale)$", "8-bit weights with scales", _ORIGINAL),
        (r"\.scales$", "quantised weights", _ORIGINAL),
        (r"\.lora_(A|B)\.|^base_model\.", "an adapter", "merge it into its base model first"),
        (r"^(model\.)?language_model\.", "the text part of a multimodal model",
         "use a model for text alone"),
        (r"(^|\.)attention\.wq\.weight$|^tok_embeddings\.", "weights in the layout of their maker",
         "use the version in Hugging Face layout"),
    )
)  # fmt: skip


def find_tensors(
    path: Path, spec: ModelSpec, files: Iterable[SafetensorsFile]
) -> tuple[ModelSpec, dict[str, Stored]]:
    """The model's tensors by bandweave's names, and the spec, tied only if the files agree.

    Names may lack ``model.`` or have it twice. A head that is stored beside the embedding is used,
    whatever the config says of ties; one that is stored alone is the embedding too. Other tensors
    are ignored. ``CheckpointError`` names the tensor that is missing, double or misshapen.
    """
    found = _by_name(path, files)
    head = found.get(hugging_face_name(spec.family, "lm_head"))
    if spec.tied_embeddings and head is not None:
        table = hugging_face_name(spec.family, "embed_tokens")
        if table in found:
            spec = replace(spec, tied_embeddings=False)
        else:
            found[table] = head
    needed = build_graph(spec).weights()
    names = [hugging_face_name(spec.family, weight.name) for weight in needed]
    missing = [name for name in names if name not in found]
    if missing:
        raise CheckpointError(
            f"{printable(path)} lacks {len(missing)} of the {len(needed)} tensors that its "
            f"config.json asks for, the first is {missing[0]!r}; {_instead(found)}"
        )
    result = {weight.name: found[name] for weight, name in zip(needed, names, strict=True)}
    for weight in needed:
        _check(weight, *result[weight.name])
    return spec, result


def _by_name(path: Path, files: Iterable[SafetensorsFile]) -> dict[str, Stored]:
    """The stored tensors by the names that Hugging Face gives a model with its head."""
    found: dict[str, Stored] = {}
    for file in files:
        for stored, entry in file.tensors.items():
            name = _with_head(stored)
            if name in found:
                raise _double(path, found[name], (file, entry))
            found[name] = (file, entry)
    return found


def _with_head(name: str) -> str:
    """A name whose prefix of the base model is missing, or too many, put right."""
    if not name.startswith(_BASE):
        return _BASE + name if name.startswith(_IN_BASE) else name
    rest = name.removeprefix(_BASE)
    return rest if rest.startswith((_BASE, _HEAD)) else name


def _double(path: Path, one: Stored, other: Stored) -> CheckpointError:
    (first, entry), (second, same) = one, other
    if entry.name == same.name:
        return CheckpointError(
            f"{printable(path)}: tensor {shown(entry.name)} is in {first.path.name} and in "
            f"{second.path.name}; remove the file that does not belong"
        )
    return CheckpointError(
        f"{printable(path)} holds both {shown(entry.name)} and {shown(same.name)}, which are one "
        "tensor of the model; remove the one that does not belong"
    )


def _instead(found: Mapping[str, Stored]) -> str:
    for pattern, what, remedy in _OTHER_TOOLS:
        name = next((name for name in found if pattern.search(name)), None)
        if name is not None:
            return f"it holds {what}, as {shown(name)} shows: {remedy}"
    return "is it the config of these weights?"


def _check(weight: WeightSpec, file: SafetensorsFile, entry: TensorEntry) -> None:
    def wrong(how: str) -> CheckpointError:
        return CheckpointError(f"{printable(file.path)}: tensor {shown(entry.name)} {how}")

    if entry.dtype not in DTYPES:
        quantised = entry.dtype.startswith(("F8", "F6", "F4", "U", "I"))
        what = "quantised weights are not read" if quantised else "that cannot be read"
        raise wrong(f"is stored as {entry.dtype}; {what}, only {', '.join(DTYPES)}: {_ORIGINAL}")
    if entry.shape != weight.shape:
        hint = "is it the config of these weights?"
        if entry.shape == weight.shape[::-1]:
            hint = "it is stored transposed, so use the version in Hugging Face layout"
        raise wrong(
            f"has shape {shown(list(entry.shape))}, but config.json asks for "
            f"{list(weight.shape)}; {hint}"
        )
