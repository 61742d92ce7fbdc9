"""Which stored tensors are the model's: names, prefixes, shapes and dtypes, as transformers has it.

Knows what other tools write in the place of weights that can be read, so that a folder is refused
with its cause. Reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bandweave.checkpoints.find import Finder
from bandweave.checkpoints.quantised.settings import Settings
from bandweave.checkpoints.safetensors import SafetensorsFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.checkpoints.tensor import Found, Stored
from bandweave.checkpoints.view import View
from bandweave.models.graph_op import WeightSpec
from bandweave.models.registry import build_graph
from bandweave.models.spec import ModelSpec
from bandweave.models.tensor_names import Names, named
from bandweave.shown import printable, shown

#: The prefix that weights saved without their head's class lack, and what it stands before.
_BASE, _IN_BASE, _HEAD = "model.", ("layers.", "embed_tokens.", "norm."), "lm_head."
#: The prefixes of the text part of a multimodal model; its own follows or is left out.
_TEXT_PARTS = ("model.language_model.", "language_model.")
_ORIGINAL = "download the original model, bandweave quantises while loading"

#: Names that other tools give tensors: a pattern, what such a folder is, and what to do instead.
_OTHER_TOOLS = tuple(
    (re.compile(pattern), what, remedy)
    for pattern, what, remedy in (
        (r"\.(absmax|quant_map|SCB|weight_format)$", "weights of bitsandbytes", _ORIGINAL),
        (r"\.weight_scale_2$", "weights of NVIDIA's Model Optimizer", _ORIGINAL),
        (r"\.(qweight|qzeros|g_idx)$", "weights quantised by GPTQ or AWQ",
         "config.json must say how in 'quantization_config', so download it again"),
        (r"\.scales$", "quantised weights", _ORIGINAL),
        (r"\.lora_(A|B)\.|^base_model\.", "an adapter", "merge it into its base model first"),
        (r"(^|\.)attention\.wq\.weight$|^tok_embeddings\.", "weights in the layout of their maker",
         "use the version in Hugging Face layout"),
    )
)  # fmt: skip


def find_tensors(
    path: Path,
    spec: ModelSpec,
    found: dict[str, Stored],
    names: Names,
    settings: Settings,
) -> tuple[ModelSpec, dict[str, View]]:
    """The model's tensors by bandweave's names, and the spec, tied only if the files agree.

    ``found``: all stored ones by name; ``names`` lead there. A head that is stored beside the
    embedding is used, whatever the config says of ties; one that is stored alone is the embedding
    too. The spec has a further layer only if the files do; its copies of the embedding and the head
    are ignored, as other tensors are. ``CheckpointError`` names the tensor that is missing or
    misshapen.
    """
    head = found.get(stored_name(names, "lm_head"))
    if spec.tied_embeddings and head is not None:
        table = stored_name(names, "embed_tokens")
        if table in found:
            spec = replace(spec, tied_embeddings=False)
        else:
            found[table] = head
    if spec.further is not None and not _holds_layer(found, names, spec.num_layers):
        spec = replace(spec, further=None)
    wanted = build_graph(spec, further=spec.further is not None).weights()
    behind = f"layers.{spec.num_layers}."  # the further layer's
    needed = [weight for weight in wanted if not weight.name.startswith(behind)]
    finder = Finder(found, spec, wanted, names, settings)
    result: dict[str, View] = {}
    missing: list[str] = []
    for weight in needed:
        view = finder.find(weight)
        if view is None:
            missing.append(stored_name(names, weight.name))
        else:
            result[weight.name] = view
    if missing:
        raise CheckpointError(
            f"{printable(path)} lacks {len(missing)} of the {len(needed)} tensors that its "
            f"{settings.said_by} asks for, the first is {missing[0]!r}; {_instead(found, settings)}"
        )
    further = _find_further(finder, [weight for weight in wanted if weight.name not in result])
    if further is None:
        return replace(spec, further=None), result
    return spec, {**result, **further}


def _holds_layer(found: Found, names: Names, layer: int) -> bool:
    """Whether the joint of a layer that predicts further tokens is there."""
    return named(names, f"layers.{layer}.eh_proj") in found


def _find_further(finder: Finder, weights: list[WeightSpec]) -> dict[str, View] | None:
    """The tensors of the layer that predicts further tokens; None where one is missing or cannot be
    read: many copies leave the layer out, and a model runs without it."""
    try:
        views = {weight.name: finder.find(weight) for weight in weights}
    except CheckpointError:
        return None
    found = {name: view for name, view in views.items() if view is not None}
    return found if len(found) == len(views) else None


def stored_name(names: Names, name: str) -> str:
    """What the tensor that bandweave calls ``name`` is called in files. ``ValueError`` where the
    family has no such tensor."""
    found = named(names, name)
    if found is None:
        raise ValueError(f"the family has no stored tensor for {name!r}")
    return found


def by_plain_name(path: Path, files: Iterable[SafetensorsFile]) -> dict[str, Stored]:
    """The stored tensors by the names that Hugging Face gives a model with its head. Names may lack
    ``model.`` or have it twice, or be those of a multimodal model's text part. ``CheckpointError``
    for one that is there twice."""
    found: dict[str, Stored] = {}
    for file in files:
        for stored, entry in file.tensors.items():
            name = plain_name(stored)
            if name in found:
                raise _double(path, found[name], (file, entry))
            found[name] = (file, entry)
    return found


def plain_name(name: str) -> str:
    """A name whose prefix of the base model is missing, or too many, put right."""
    if name.startswith("model.layers."):
        return name  # nearly all of them
    for prefix in _TEXT_PARTS:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
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


def _instead(found: Found, settings: Settings) -> str:
    for pattern, what, remedy in _OTHER_TOOLS:
        name = next((name for name in found if pattern.search(name)), None)
        if name is not None:
            return f"it holds {what}, as {shown(name)} shows: {remedy}"
    return settings.doubt
