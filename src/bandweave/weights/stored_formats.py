"""Stored formats: the weight format of each matrix where all run in what is nearest to how their
checkpoint stores them: blocks of a GGUF file as they are. Reads no tensors.

The graph decides and not a node's share of it. Matrices that run together have one format: gate and
up of an expert, and all routed experts of a layer. Where theirs differ it is the nearest one that
all of them can be made into.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.formats.gguf_blocks import RUNS_AS
from bandweave.formats.names import BLOCK_FORMATS, STORED
from bandweave.models.graph import Graph
from bandweave.models.graph_op import GraphOp
from bandweave.programs.lowering import lower
from bandweave.programs.program import Program
from bandweave.programs.split import Split
from bandweave.shown import printable

#: What runs in the place of each kind of stored matrix.
NEAREST: Mapping[str, str] = {
    "f64": "f32", "f32": "f32", "f16": "f32", "bf16": "bf16", "fp8": "q8", "int8": "q8",
    "int4": "q4", "int2": "q4", **RUNS_AS,
}  # fmt: skip

# In the very bits of the file, and in formats that hold the same values.
_AS_STORED = {("f32", "f32"), ("bf16", "bf16"), *RUNS_AS.items()}
_EXACT = {*_AS_STORED, ("f16", "f32")}
_NARROWEST_FIRST = ("mxfp4", "q4", "q8", "bf16", "f32")
_SHARED = ".shared_expert."
_EXPERTS = ("expert_linear", "expert_add", "expert_sum")  # whose matrices run together
_NOT_PRODUCTS = ("embed", "route")  # rows that are read one by one; routers are always f32


def run_formats(folder: Folder, graph: Graph) -> dict[str, str]:
    """The weight format of every tensor that products read, by bandweave's names.
    ``CheckpointError`` where the folder has no weights to tell it by."""
    if not folder.has_weights:
        raise CheckpointError(
            f"{printable(folder.path)} has no weights, so nothing tells how they are stored; name "
            f"a --format other than {STORED!r}"
        )
    formats: dict[str, str] = {}
    for op in graph.ops:
        nearest = {name: NEAREST[folder.stored_as(name)] for name in _products(op)}
        if op.kind in _EXPERTS:
            for shared in (False, True):
                alike = [name for name in nearest if (_SHARED in name) is shared]
                if alike:
                    common = _common({nearest[name] for name in alike})
                    nearest |= dict.fromkeys(alike, common)
        formats |= nearest
    return formats


def _common(formats: set[str]) -> str:
    """One format for all of them: theirs where it is one, else the widest, but none that nothing
    can be made into."""
    if len(formats) == 1:
        return next(iter(formats))
    made = {"q8" if one in BLOCK_FORMATS else one for one in formats}
    return max(made, key=_NARROWEST_FIRST.index)


def node_program(
    folder: Folder, graph: Graph, split: Split, node: int, weight_format: str
) -> Program:
    """What a node computes, with the format of each of its matrices where ``weight_format`` is the
    stored one. ``CheckpointError`` as ``run_formats``."""
    if weight_format != STORED:
        return lower(graph, split, node)
    formats = run_formats(folder, graph)
    program = lower(graph, split, node, formats=formats)
    weights = {
        name: weight if weight.format else replace(weight, format=formats[weight.parts[0].tensor])
        for name, weight in program.weights.items()
    }
    return replace(program, weights=weights)


def told(folder: Folder, graph: Graph) -> str:
    """A sentence that says which stored weights run in which format."""
    formats = run_formats(folder, graph)
    runs: dict[str, set[str]] = defaultdict(set)
    for name, own in formats.items():
        runs[folder.stored_as(name)].add(own)
    if all((kind, own) in _AS_STORED for kind in runs for own in runs[kind]):
        return f"weights run as they are stored: {', '.join(sorted(runs))}"
    parts = []
    for kind in sorted(runs):
        places = " or ".join(sorted(runs[kind]))
        exactly = all((kind, own) in _EXACT for own in runs[kind])
        parts.append(f"{kind} in {places}{' exactly' if exactly else ''}")
    return f"weights run in the format nearest to the stored one: {', '.join(parts)}"


def _products(op: GraphOp) -> list[str]:
    if op.kind in _NOT_PRODUCTS:
        return []
    return [weight.name for weight in op.weights if len(weight.shape) == 2]
