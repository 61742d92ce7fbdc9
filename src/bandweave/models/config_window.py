"""Which layers see only a window of the positions, by the fields of a ``config.json``.

The engine gives all layers one window or none, so configs whose layers differ are refused. Knows no
files.
"""

from __future__ import annotations

from bandweave.models.config import Config, ConfigError, integer, texts
from bandweave.shown import shown

FULL, SLIDING = "full_attention", "sliding_attention"
_OLDER_NAMES = {"attention": FULL}


def window(config: Config, kinds: list[str]) -> int | None:
    """The window of all layers, None where they see everything; ``kinds`` says which slide.

    A window that the longest context does not exceed hides nothing and counts as none.
    ``ConfigError`` where layers differ, and names the fields.
    """
    if SLIDING not in kinds:
        return None
    size = integer(config, "sliding_window")
    if size >= integer(config, "max_position_embeddings"):
        return None
    if FULL in kinds:
        names = "layer_types" if texts(config, "layer_types") else "max_window_layers"
        raise ConfigError(
            f"config.json: by {names} some layers see a sliding_window of {size} and others "
            "everything; only one window for all layers is supported"
        )
    return size


def listed_kinds(config: Config) -> list[str]:
    """The kinds of ``layer_types``, one a layer; empty where the field is absent or null."""
    kinds = [_OLDER_NAMES.get(kind, kind) for kind in texts(config, "layer_types")]
    count = integer(config, "num_hidden_layers")
    if kinds and len(kinds) != count:
        raise ConfigError(f"config.json: layer_types has {len(kinds)} entries for {count} layers")
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            raise ConfigError(
                f"config.json: layer_types has {shown(kind)}; only {FULL!r} and {SLIDING!r} are "
                "supported"
            )
    return kinds


def refuse_other_kinds(config: Config, own: str) -> None:
    """Refuses ``layer_types`` that name another kind than ``own``, where the family's own class
    gives every layer that kind whatever the field says."""
    for kind in listed_kinds(config):
        if kind != own:
            raise ConfigError(
                f"config.json: layer_types has {shown(kind)}, but all layers of a model of this "
                f"family are {own!r}"
            )
