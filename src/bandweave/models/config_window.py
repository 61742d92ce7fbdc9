"""Which layers see only a window of the positions, by the fields of a ``config.json``. Knows no
files."""

from __future__ import annotations

from bandweave.models.config import Config, ConfigError, flag, integer, texts
from bandweave.models.config import count as counted
from bandweave.shown import shown

FULL, SLIDING = "full_attention", "sliding_attention"
_OLDER_NAMES = {"attention": FULL}


def windows(config: Config, kinds: list[str]) -> list[int | None]:
    """The window of each layer, None where it sees everything; ``kinds`` says which slide.

    A window that the longest context does not exceed hides nothing and counts as none.
    """
    if SLIDING not in kinds:
        return [None] * len(kinds)
    size = integer(config, "sliding_window")
    hides = size < integer(config, "max_position_embeddings")
    return [size if hides and kind == SLIDING else None for kind in kinds]


def kinds_from_a_layer_on(config: Config) -> list[str]:
    """Where windows are used, ``layer_types`` say in which layers, else all from
    ``max_window_layers`` on have one (Qwen)."""
    count = integer(config, "num_hidden_layers")
    full = min(counted(config, "max_window_layers"), count)
    return _used_kinds(config, [FULL] * full + [SLIDING] * (count - full))


def kinds_up_to_a_layer(config: Config) -> list[str]:
    """The same where every second layer below ``max_window_layers`` has a window, the first one
    among them (Qwen2's mixtures)."""
    most = counted(config, "max_window_layers")
    layers = range(integer(config, "num_hidden_layers"))
    return _used_kinds(config, [SLIDING if n % 2 == 0 and n < most else FULL for n in layers])


def _used_kinds(config: Config, silent: list[str]) -> list[str]:
    """``layer_types`` where windows are used, or what holds where they are ``silent``."""
    kinds = listed_kinds(config)
    if not flag(config, "use_sliding_window", False) or config.get("sliding_window") is None:
        if SLIDING in kinds:
            raise ConfigError(
                f"config.json: layer_types has {SLIDING!r}, but use_sliding_window and "
                "sliding_window say that there is no window"
            )
        return [FULL] * len(silent)
    return kinds or silent


def kinds_by_turns(config: Config, every: int) -> list[str]:
    """``layer_types``, else one of ``sliding_window_pattern`` layers, or of ``every`` where the
    config is silent, sees everything: the last of them."""
    kinds = listed_kinds(config)
    step = integer(config, "sliding_window_pattern", every)
    count = integer(config, "num_hidden_layers")
    return kinds or [SLIDING if (index + 1) % step else FULL for index in range(count)]


def listed_kinds(config: Config) -> list[str]:
    """The kinds of ``layer_types``, one a layer; empty where the field is absent or null."""
    kinds = [_OLDER_NAMES.get(kind, kind) for kind in texts(config, "layer_types")]
    count = integer(config, "num_hidden_layers")
    if kinds:
        check_kinds(kinds, count, (FULL, SLIDING))
    return kinds


def check_kinds(kinds: list[str], count: int, known: tuple[str, str]) -> None:
    """``ConfigError`` where ``layer_types`` name another number of layers, or other kinds."""
    if len(kinds) != count:
        raise ConfigError(
            f"config.json: layer_types has {len(kinds)} entries for {count} layers "
            "(num_hidden_layers)"
        )
    for kind in kinds:
        if kind not in known:
            raise ConfigError(
                f"config.json: layer_types has {shown(kind)}; only {known[0]!r} and {known[1]!r} "
                "are supported"
            )


def refuse_other_kinds(config: Config, own: str) -> None:
    """Refuses ``layer_types`` that name another kind than ``own``, where the family's own class
    gives every layer that kind whatever the field says."""
    for kind in listed_kinds(config):
        if kind != own:
            raise ConfigError(
                f"config.json: layer_types has {shown(kind)}, but all layers of a model of this "
                f"family are {own!r}"
            )
