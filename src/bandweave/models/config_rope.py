"""Reads the rope fields of a Hugging Face ``config.json`` as transformers does.

They have an older spelling (``rope_theta``, ``rope_scaling``, ``type``) and a newer one
(``rope_parameters``, ``rope_type``), which configs mix. Reference: transformers'
``modeling_rope_utils``. Knows no family and no files.
"""

from __future__ import annotations

from bandweave.models.config import Config, ConfigError, head_dim, integer, number, table
from bandweave.models.rope import RopeScaling, RopeSpec
from bandweave.shown import shown

_THETA = 10000.0


def rope(config: Config) -> RopeSpec:
    """The rope of a config whose heads are rotated whole; ``ConfigError`` names what is wrong."""
    name, parameters = _parameters(config)
    for field, value in parameters.items():
        if isinstance(value, dict):
            raise ConfigError(
                f"config.json: {name} has parameters of their own for {shown(field)}; only one "
                "rope for all layers is supported"
            )
    for holder in (config, parameters):
        factor = number(holder, "partial_rotary_factor", 1.0)
        if factor != 1.0:
            raise ConfigError(
                f"config.json: partial_rotary_factor is {factor}; models of this family rotate "
                "whole heads"
            )
    theta = number(parameters, "rope_theta", number(config, "rope_theta", _THETA))
    return RopeSpec(
        theta=theta, rotary_dim=head_dim(config), scaling=_scaling(name, parameters, config)
    )


def _parameters(config: Config) -> tuple[str, Config]:
    """The object that has the parameters, and its name: ``rope_scaling`` hides the other."""
    scaling = table(config, "rope_scaling")
    parameters = table(config, "rope_parameters")
    return ("rope_scaling", scaling) if scaling else ("rope_parameters", parameters)


def _scaling(name: str, parameters: Config, config: Config) -> RopeScaling | None:
    kind = parameters.get("rope_type")
    if kind is None:
        kind = parameters.get("type")
    if kind is None or kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=_needed(name, parameters, "factor"))
    if kind == "llama3":
        low = _needed(name, parameters, "low_freq_factor")
        high = _needed(name, parameters, "high_freq_factor")
        if high <= low:
            raise ConfigError(
                f"config.json: {name} has a high_freq_factor of {high} and a low_freq_factor of "
                f"{low}; the first must be the larger one"
            )
        # A field of its own outweighs the parameter; without either nothing was stretched.
        original = "original_max_position_embeddings"
        holder = config if config.get(original) is not None else parameters
        return RopeScaling(
            kind="llama3",
            factor=_needed(name, parameters, "factor"),
            low_freq_factor=low,
            high_freq_factor=high,
            original_context_length=integer(
                holder, original, integer(config, "max_position_embeddings")
            ),
        )
    raise ConfigError(
        f"config.json: {name} asks for the rope type {shown(kind)}, which is not supported; "
        "supported are 'default', 'linear' and 'llama3'"
    )


def _needed(name: str, parameters: Config, field: str) -> float:
    if parameters.get(field) is None:
        raise ConfigError(f"config.json: {name} has no {field!r}, which its rope type needs")
    return number(parameters, field)
