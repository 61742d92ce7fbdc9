"""Changes of a config's sizes: the fields that say them, and what must follow them.

A layer more or less cuts lists of layers, fewer experts make fewer groups, fewer query heads share
fewer KV heads. Knows fields of config.json; knows no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]

_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")

#: Sizes that can be changed, and the fields of config.json that may say them: the first that there
#: is does.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers",),
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "intermediate": ("intermediate_size",),
    "experts": _EXPERTS,
    "experts_per_token": ("num_experts_per_tok", "moe_k"),
    "expert_intermediate": ("moe_intermediate_size", "intermediate_size"),
    "vocab": ("vocab_size",),
    "context": ("max_position_embeddings",),
}

SIZES = tuple(_NAMES)

#: Of a mixture alone.
_MIXTURE = ("experts", "experts_per_token", "expert_intermediate")
#: Lists with an entry for each layer.
_BY_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")


def size_of(fields: Fields, size: str) -> int | None:
    """What the config says of a size; None where it has none of the kind."""
    if size in _MIXTURE and not any(name in fields for name in _EXPERTS):
        return None
    if size in ("kv_heads", "head_dim") and "kv_lora_rank" in fields:
        return None
    return next((fields[name] for name in _NAMES[size] if name in fields), None)


def changed(fields: Fields, sizes: Mapping[str, int]) -> tuple[dict[str, Any], list[str]]:
    """The fields with these sizes, and what else changed for them, in words.

    ``ValueError`` for a size that such a model does not have.
    """
    result = dict(fields)
    for size, value in sizes.items():
        if size == "head_dim" and "kv_lora_rank" not in fields:
            result["head_dim"] = value  # which many configs leave to hidden_size and the heads
            continue
        if size_of(fields, size) is None:
            what = "has no experts" if size in _MIXTURE else "has latent attention"
            raise ValueError(f"{size} cannot be changed; the model {what}")
        result[next(name for name in _NAMES[size] if name in fields)] = value
    notes: list[str] = []
    if "layers" in sizes:
        _follow_layers(fields, result, notes)
    if "heads" in sizes and "kv_heads" not in sizes:
        _follow_heads(fields, result, notes)
    if "heads" in sizes and "linear_num_key_heads" in fields:
        _follow_states(fields, result, notes)
    if "experts" in sizes or "experts_per_token" in sizes:
        _follow_experts(result, notes)
    if "expert_intermediate" in sizes:
        _follow_width(fields, result, notes)
    return result, notes


def _set(fields: dict[str, Any], name: str, value: Any, notes: list[str]) -> None:
    if fields[name] != value:
        notes.append(f"{name} is {value} instead of {fields[name]}")
        fields[name] = value


def _follow_layers(old: Fields, fields: dict[str, Any], notes: list[str]) -> None:
    """Lists of layers go on as they began, and one layer at least stays a mixture."""
    count, before = fields["num_hidden_layers"], old["num_hidden_layers"]
    for name in _BY_LAYER:
        if fields.get(name):
            fields[name] = [fields[name][index % before] for index in range(count)]
    if fields.get("mlp_only_layers"):
        fields["mlp_only_layers"] = [one for one in fields["mlp_only_layers"] if one < count]
    if fields.get("first_k_dense_replace"):
        dense = min(fields["first_k_dense_replace"], count - 1)
        _set(fields, "first_k_dense_replace", dense, notes)


def _follow_heads(old: Fields, fields: dict[str, Any], notes: list[str]) -> None:
    """As many query heads share a KV head as before, or the next fewer that come out even."""
    heads, before = fields["num_attention_heads"], old.get("num_key_value_heads")
    if not before:
        return
    if "kv_lora_rank" in fields:
        fields["num_key_value_heads"] = heads  # which latent attention does not read
        return
    if heads % before == 0:
        return
    wanted = max(1, heads * before // old["num_attention_heads"])
    kept = next(count for count in range(wanted, 0, -1) if heads % count == 0)
    _set(fields, "num_key_value_heads", kept, notes)


def _follow_states(old: Fields, fields: dict[str, Any], notes: list[str]) -> None:
    """As many heads with states to a query head as before, each key head of as many values."""
    heads, before = fields["num_attention_heads"], old["num_attention_heads"]
    keys, values = old["linear_num_key_heads"], old["linear_num_value_heads"]
    count = max(1, keys * heads // before)
    _set(fields, "linear_num_key_heads", count, notes)
    _set(fields, "linear_num_value_heads", count * max(1, values // keys), notes)


def _follow_experts(fields: dict[str, Any], notes: list[str]) -> None:
    """As many groups as experts can be cut into, of which as large a part is chosen from."""
    groups, chosen = fields.get("n_group"), fields.get("topk_group")
    if not groups or not chosen or groups == 1:
        return
    experts, top_k = size_of(fields, "experts"), fields["num_experts_per_tok"]
    assert experts is not None
    for count in range(groups, 0, -1):
        part = -(-count * chosen // groups)
        each = experts // count
        if experts % count == 0 and part * each >= top_k and (each >= 2 or count == 1):
            _set(fields, "n_group", count, notes)
            _set(fields, "topk_group", part, notes)
            return


def _follow_width(old: Fields, fields: dict[str, Any], notes: list[str]) -> None:
    """A shared expert stays as many times as wide as the others."""
    shared = fields.get("shared_expert_intermediate_size")
    if shared:
        width = shared * fields["moe_intermediate_size"] // old["moe_intermediate_size"]
        _set(fields, "shared_expert_intermediate_size", max(1, width), notes)
