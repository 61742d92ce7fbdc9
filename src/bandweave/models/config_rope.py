"""Reads the rope fields of a Hugging Face ``config.json`` as transformers does.

They have an older spelling (``rope_theta``, ``rope_scaling``, ``type``) and a newer one
(``rope_parameters``, ``rope_type``), which configs mix; either may have an object for each kind of
layer. Reference: transformers' ``modeling_rope_utils``. Knows no family and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bandweave.models.config import Config, ConfigError, flag, head_dim, integer, number, table
from bandweave.models.rope import MOST_ROTARY, RopeScaling, RopeSpec, rope_table
from bandweave.shown import shown

_THETA = 10000.0
_MOST_FACTOR = 1024.0  # of cosines and sines


def rope(
    config: Config,
    *,
    dim: int | None = None,
    layer_type: str = "",
    theta: float = _THETA,
    partial: float | None = None,
    interleaved: bool = False,
) -> RopeSpec:
    """The rope of a config, or of its layers of ``layer_type``; ``ConfigError`` names what is
    wrong.

    ``dim``: elements of what is rotated, a head's where None; ``theta`` and ``partial``: what the
    family takes where the config is silent, and ``partial`` None where heads are rotated whole.
    """
    name, parameters = _parameters(config, layer_type)
    whole = head_dim(config) if dim is None else dim
    rotary = int(whole * _rotated(config, parameters, partial))
    if rotary < 2:
        raise ConfigError(
            f"config.json: partial_rotary_factor leaves {rotary} elements of {whole} to rotate; "
            "at least 2 are needed"
        )
    if rotary > MOST_ROTARY:
        raise ConfigError(
            f"config.json: {rotary} elements of a head are to be rotated; more than {MOST_ROTARY} "
            "is not believed"
        )
    if rotary % 2:
        raise ConfigError(
            f"config.json: {rotary} elements of {whole} are to be rotated; they are rotated in "
            "pairs, so an even number is needed"
        )
    spec = RopeSpec(
        theta=number(parameters, "rope_theta", number(config, "rope_theta", theta)),
        rotary_dim=rotary,
        interleaved=interleaved,
        scaling=_scaling(name, parameters, config, rotary),
    )
    if spec.scaling is not None and spec.scaling.kind == "yarn" and spec.theta <= 1:
        raise ConfigError(f"config.json: rope_theta is {spec.theta}; yarn needs more than 1")
    if rope_table(spec).factor > _MOST_FACTOR:
        raise ConfigError(
            f"config.json: {name} multiplies cosines and sines by {rope_table(spec).factor:g}; "
            f"more than {_MOST_FACTOR:g} is not believed"
        )
    if spec.softmax_factor > _MOST_FACTOR:
        raise ConfigError(
            f"config.json: {name} multiplies attention's scores by {spec.softmax_factor:g} "
            f"(mscale_all_dim); more than {_MOST_FACTOR:g} is not believed"
        )
    return spec


def rope_of_kind(
    config: Config, kind: str, *, theta: float, field: str | None, scaled: bool = False
) -> RopeSpec:
    """The rope of layers of a kind, in families where each kind has its own: the newer spelling's
    parameters of that kind, to which the older one adds its scaling where the kind is ``scaled``.
    ``field`` has the older one's theta, if it has one; ``theta`` is meant where neither has. There
    transformers does not read ``truncate``, so a false one is refused."""
    new = table(config, "rope_parameters")
    if new and not any(isinstance(one, Mapping) for one in new.values()):
        raise ConfigError(
            f"config.json: rope_parameters have none for {kind!r}; models of this family have "
            "parameters for each kind of layer"
        )
    own = {**table(new, kind), **(table(config, "rope_scaling") if scaled else {})}
    if own.get("truncate") not in (None, True):
        raise ConfigError(
            f"config.json: truncate is {shown(own['truncate'])} in the rope of {kind!r}; models of "
            "this family always truncate"
        )
    older = None if field is None else config.get(field)
    given = {"rope_scaling": None, "rope_parameters": own, "rope_theta": older}
    return rope({**config, **given}, theta=theta)


def _chosen(config: Config) -> tuple[str, Config]:
    """The object that has the parameters, and its name: ``rope_scaling`` hides the other."""
    scaling = table(config, "rope_scaling")
    parameters = table(config, "rope_parameters")
    return ("rope_scaling", scaling) if scaling else ("rope_parameters", parameters)


def _parameters(config: Config, layer_type: str) -> tuple[str, Config]:
    name, parameters = _chosen(config)
    nested = [field for field, value in parameters.items() if isinstance(value, Mapping)]
    if layer_type and nested:
        return f"{name}.{layer_type}", table(parameters, layer_type)
    if nested:
        raise ConfigError(
            f"config.json: {name} has parameters of their own for {shown(nested[0])}; only one "
            "rope for all layers is supported"
        )
    return name, parameters


def _rotated(config: Config, parameters: Config, partial: float | None) -> float:
    """Which part of a head is rotated: the parameters' word goes before the config's."""
    if partial is None:
        for holder in (config, parameters):
            factor = number(holder, "partial_rotary_factor", 1.0)
            if factor != 1.0:
                raise ConfigError(
                    f"config.json: partial_rotary_factor is {factor}; models of this family "
                    "rotate whole heads"
                )
        return 1.0
    outer = number(config, "partial_rotary_factor", partial)
    factor = number(parameters, "partial_rotary_factor", outer)
    if factor > 1:
        raise ConfigError(f"config.json: partial_rotary_factor is {factor}; 1 is a whole head")
    return factor


def _scaling(name: str, parameters: Config, config: Config, rotary: int) -> RopeScaling | None:
    kind = parameters.get("rope_type")
    if kind is None:
        kind = parameters.get("type")
    if kind is None or kind == "default":
        return None
    if kind == "dynamic":
        raise ConfigError(
            f"config.json: {name} asks for the rope type 'dynamic', whose frequencies change as a "
            "text grows; answers would depend on how it is read, so it cannot be run"
        )
    if not isinstance(kind, str) or kind not in _KINDS:
        *others, last = map(repr, ("default", *_KINDS))
        raise ConfigError(
            f"config.json: {name} asks for the rope type {shown(kind)}, which is not supported; "
            f"supported are {', '.join(others)} and {last}"
        )
    return _KINDS[kind](name, parameters, config, rotary)


def _linear(name: str, parameters: Config, config: Config, rotary: int) -> RopeScaling:
    return RopeScaling(kind="linear", factor=_needed(name, parameters, "factor"))


def _llama3(name: str, parameters: Config, config: Config, rotary: int) -> RopeScaling:
    low = _needed(name, parameters, "low_freq_factor")
    high = _needed(name, parameters, "high_freq_factor")
    if high <= low:
        raise ConfigError(
            f"config.json: {name} has a high_freq_factor of {high} and a low_freq_factor of "
            f"{low}; the first must be the larger one"
        )
    return RopeScaling(
        kind="llama3",
        factor=_needed(name, parameters, "factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context_length=original_length(parameters, config),
    )


def _yarn(name: str, parameters: Config, config: Config, rotary: int) -> RopeScaling:
    """A factor of null says that the longest context is as many times the first training's."""
    original = original_length(parameters, config)
    if "factor" in parameters and parameters["factor"] is None:
        factor = integer(config, "max_position_embeddings") / original
    else:
        factor = _needed(name, parameters, "factor")
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_context_length=original,
        beta_fast=number(parameters, "beta_fast", 32.0),
        beta_slow=number(parameters, "beta_slow", 1.0),
        mscale=_number_or_0(parameters, "mscale"),
        mscale_all_dim=_number_or_0(parameters, "mscale_all_dim"),
        truncate=flag(parameters, "truncate", True),
        attention_factor=_number_or_0(parameters, "attention_factor") or None,
    )


def _longrope(name: str, parameters: Config, config: Config, rotary: int) -> RopeScaling:
    """The long divisors where the longest context exceeds the first training's, else the short
    ones. transformers changes over as a text grows beyond that length, so that keys of both kinds
    meet; one kind for all positions leaves answers independent of how a text is read."""
    original = original_length(parameters, config)
    longest = integer(config, "max_position_embeddings")
    if original < 2:
        raise ConfigError(
            f"config.json: original_max_position_embeddings is {original}; longrope needs 2 or more"
        )
    field = "long_factor" if longest > original else "short_factor"
    divisors = parameters.get(field)
    if not isinstance(divisors, list) or len(divisors) != rotary // 2:
        raise ConfigError(
            f"config.json: {name} needs a {field} of {rotary // 2} numbers, one for every two "
            "elements that are rotated"
        )
    return RopeScaling(
        kind="longrope",
        factor=number(parameters, "factor", longest / original),
        original_context_length=original,
        attention_factor=_number_or_0(parameters, "attention_factor") or None,
        divisors=tuple(number({field: one}, field) for one in divisors),
    )


_KINDS: Mapping[str, Callable[[str, Config, Config, int], RopeScaling]] = {
    "linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope,
}  # fmt: skip


def original_length(parameters: Config, config: Config) -> int:
    """The context of the first training: a field of the config's own outweighs the parameter;
    without either nothing was stretched."""
    field = "original_max_position_embeddings"
    holder = config if config.get(field) is not None else parameters
    return integer(holder, field, integer(config, "max_position_embeddings"))


def _number_or_0(parameters: Config, field: str) -> float:
    return 0.0 if parameters.get(field) in (None, 0) else number(parameters, field)


def _needed(name: str, parameters: Config, field: str) -> float:
    if parameters.get(field) is None:
        raise ConfigError(f"config.json: {name} has no {field!r}, which its rope type needs")
    return number(parameters, field)
