"""Names of a model's tensors in a Hugging Face folder, and where they lie in what is stored there.

A table leads from bandweave's name to a stored tensor, to a ``Slice`` of one, or to several of
these, of which a folder has one. In names ``{}`` stands for the number of the layer, and in those
of experts a second ``{}`` for the number of the expert. Families take the tables over, and add or
change what is their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from bandweave.models.spec import LayerSpec

#: Rows of a part of a stored tensor: those of another tensor by bandweave's name, or a number.
Rows = str | int | Callable[[LayerSpec], int]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Where a tensor lies within a stored one.

    ``tensor``: the stored name. ``parts``: what the rows of the stored matrix are, in their order;
    none where they are this tensor's alone. ``index``: which part is meant. ``groups``: the parts
    are cut into so many pieces each, which take turns: 1 for part after part, as many as there are
    rows for parts that take turns row by row. ``entry``: the stored tensor is a stack with an entry
    for each expert. ``middle``: an axis of one stands between rows and columns, as convolutions
    have it. ``transposed``: what is stored is ``[inputs, outputs]``; rows are still those
    of the outputs. ``pairs``: rows come in heads of so many, each of which is stored in pairs: row
    ``i`` of its first half, then row ``i`` of its second. ``turned``: of each of the ``groups``,
    what is stored is the transposed, ``parts`` being stored rows. ``heads``: rows are stored as a
    stack with an entry for each head. ``tiles``: rows come in heads, groups of so many of them one
    after the other, and what is stored has first heads of all groups first: ``(groups, heads of
    each)``; with ``tiled_columns`` so do columns, and rows do not. ``log``: what is stored is minus
    the exponential of what is meant. ``further``: it is a place of the layer alone that predicts
    further tokens, whose stored name has no number of a layer. All of it also holds for vectors,
    whose elements are rows.
    """

    tensor: str
    parts: tuple[Rows, ...] = ()
    index: int = 0
    groups: int | Callable[[LayerSpec], int] = 1
    entry: bool = False
    transposed: bool = False
    middle: bool = False
    pairs: Callable[[LayerSpec], int] | None = None
    turned: bool = False
    heads: Callable[[LayerSpec], int] | None = None
    tiles: Callable[[LayerSpec], tuple[int, int]] | None = None
    tiled_columns: bool = False
    log: bool = False
    further: bool = False

    @cached_property
    def whole(self) -> bool:
        """Whether it is just the stored tensor."""
        other = self.parts or self.entry or self.transposed or self.middle
        return not (other or self.pairs or self.heads or self.tiles or self.log)


Place = str | Slice
Names = Mapping[str, Place | tuple[Place, ...]]


def shared_expert(stored: str) -> dict[str, str]:
    """A table for the products of a shared expert, which lie in ``stored``."""
    return {
        f"layers.{{}}.shared_expert.{part}": f"{stored}.{part}.weight"
        for part in ("gate_proj", "up_proj", "down_proj")
    }


def fused(
    tensor: str,
    *parts: str,
    groups: int | Callable[[LayerSpec], int] = 1,
    entry: bool = False,
    transposed: bool = False,
    middle: bool = False,
) -> dict[str, Slice]:
    """A table for tensors that are stored as one: bandweave's names of its rows, in their order.

    ``fused("model.layers.{}.mlp.gate_up_proj.weight", "layers.{}.gate_proj", "layers.{}.up_proj")``
    """
    one = Slice(
        tensor=tensor, parts=parts, groups=groups, entry=entry, transposed=transposed,
        middle=middle,
    )  # fmt: skip
    return {part: replace(one, index=index) for index, part in enumerate(parts)}


def either(*tables: Names) -> dict[str, tuple[Place, ...]]:
    """A table with the places of all tables; of those that fit, an earlier one is taken."""
    result: dict[str, tuple[Place, ...]] = {}
    for table in tables:
        for name, places in table.items():
            result[name] = result.get(name, ()) + _several(places)
    return result


def experts(stored: str = "model.layers.{}.mlp.experts") -> dict[str, tuple[Place, ...]]:
    """The gated MLPs of a mixture: each on its own, or all in stacks of gate rows over up rows,
    ``[E, 2 I, H]`` and ``[E, H, I]``, or in stacks of the transposed."""
    gate, up, down = (f"layers.{{}}.experts.{{}}.{name}_proj" for name in ("gate", "up", "down"))
    both, second = f"{stored}.gate_up_proj", f"{stored}.down_proj"
    return either(
        {name: f"{stored}.{{}}.{name.rsplit('.', 1)[1]}.weight" for name in (gate, up, down)},
        {**fused(both, gate, up, entry=True), down: Slice(tensor=second, entry=True)},
        {
            **fused(both, gate, up, entry=True, transposed=True),
            down: Slice(tensor=second, entry=True, transposed=True),
        },
    )


def further_layer(names: Names, prefix: str) -> dict[str, tuple[Place, ...]]:
    """The table, and for each tensor of a layer the places of the layer that predicts further
    tokens, which lie under a prefix of their own in the place of ``model.layers.{}``."""
    layer = "model.layers.{}."
    own = {
        name: tuple(
            replace(one, tensor=one.tensor.replace(layer, prefix, 1), further=True)
            for one in places(names, name)
            if one.tensor.startswith(layer)
        )
        for name in names
        if name.startswith("layers.{}.")
    }
    return either(names, own)


DECODER: Mapping[str, str] = {
    "embed_tokens": "model.embed_tokens.weight",
    "lm_head": "lm_head.weight",
    "norm": "model.norm.weight",
    "layers.{}.input_norm": "model.layers.{}.input_layernorm.weight",
    "layers.{}.post_norm": "model.layers.{}.post_attention_layernorm.weight",
    "layers.{}.q_proj": "model.layers.{}.self_attn.q_proj.weight",
    "layers.{}.q_proj.bias": "model.layers.{}.self_attn.q_proj.bias",
    "layers.{}.k_proj": "model.layers.{}.self_attn.k_proj.weight",
    "layers.{}.k_proj.bias": "model.layers.{}.self_attn.k_proj.bias",
    "layers.{}.v_proj": "model.layers.{}.self_attn.v_proj.weight",
    "layers.{}.v_proj.bias": "model.layers.{}.self_attn.v_proj.bias",
    "layers.{}.o_proj": "model.layers.{}.self_attn.o_proj.weight",
    "layers.{}.o_proj.bias": "model.layers.{}.self_attn.o_proj.bias",
    "layers.{}.gate_proj": "model.layers.{}.mlp.gate_proj.weight",
    "layers.{}.gate_proj.bias": "model.layers.{}.mlp.gate_proj.bias",
    "layers.{}.up_proj": "model.layers.{}.mlp.up_proj.weight",
    "layers.{}.up_proj.bias": "model.layers.{}.mlp.up_proj.bias",
    "layers.{}.down_proj": "model.layers.{}.mlp.down_proj.weight",
    "layers.{}.down_proj.bias": "model.layers.{}.mlp.down_proj.bias",
}


QK_NORMS: Mapping[str, str] = {
    "layers.{}.q_norm": "model.layers.{}.self_attn.q_norm.weight",
    "layers.{}.k_norm": "model.layers.{}.self_attn.k_norm.weight",
}

FUSED_GATE_UP: Names = fused(
    "model.layers.{}.mlp.gate_up_proj.weight", "layers.{}.gate_proj", "layers.{}.up_proj"
)


def pattern_of(name: str) -> tuple[str, tuple[str, ...]]:
    """A name of bandweave's with ``{}`` in the place of its layer and its expert, and these."""
    words = name.split(".")
    if len(words) < 3 or words[0] != "layers" or not words[1].isdecimal():
        return name, ()
    numbers = [words[1]]
    words[1] = "{}"
    if len(words) > 4 and words[2] == "experts" and words[3].isdecimal():
        numbers.append(words[3])
        words[3] = "{}"
    return ".".join(words), tuple(numbers)


def filled(pattern: str, numbers: tuple[str, ...]) -> str:
    """A stored name with the numbers of its layer and its expert, as far as it has them."""
    for number in numbers:
        pattern = pattern.replace("{}", number, 1)
    return pattern


def places(names: Names, pattern: str) -> tuple[Slice, ...]:
    """The places that a family's table gives for a name with ``{}`` in it; none if it has none."""
    return tuple(
        Slice(tensor=place) if isinstance(place, str) else place
        for place in _several(names.get(pattern, ()))
    )


def named(names: Names, name: str) -> str | None:
    """The name of the stored tensor that holds the one that bandweave calls ``name``, in the first
    of its places; None if unknown."""
    pattern, numbers = pattern_of(name)
    found = places(names, pattern)
    return filled(found[0].tensor, numbers) if found else None


def _several(place: Place | tuple[Place, ...]) -> tuple[Place, ...]:
    return place if isinstance(place, tuple) else (place,)
