"""From a ``config.json`` to the family that computes it. Knows the families, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType

from bandweave.models import (
    cohere2,
    deepseek,
    ernie4_5,
    gemma,
    glm4,
    glm4_moe,
    gpt_oss,
    granite,
    llama,
    mixtral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_5,
    qwen3_next,
    qwen_moe,
    seed_oss,
    smollm3,
)
from bandweave.models import config as fields
from bandweave.models.config import Config, ConfigError
from bandweave.models.config_fields import check_fields
from bandweave.models.graph import Graph
from bandweave.models.spec import ModelSpec
from bandweave.models.tensor_names import Names, named
from bandweave.shown import shown

_FAMILIES: Mapping[str, ModuleType] = {
    "llama": llama, "qwen2": qwen2, "qwen3": qwen3, "gemma": gemma, "phi3": phi3, "glm4": glm4,
    "olmo2": olmo2, "granite": granite, "smollm3": smollm3, "seed_oss": seed_oss,
    "cohere2": cohere2, "qwen_moe": qwen_moe, "mixtral": mixtral, "deepseek": deepseek,
    "glm4_moe": glm4_moe, "gpt_oss": gpt_oss, "ernie4_5": ernie4_5, "qwen3_next": qwen3_next,
    "qwen3_5": qwen3_5,
}  # fmt: skip


_HEAD = "ForCausalLM"  # the ending of nearly all names of architectures


def supported_architectures() -> tuple[str, ...]:
    """The values of ``architectures`` in a config.json that can be run."""
    return tuple(name for family in _FAMILIES.values() for name in family.DEFAULTS)


def spec_from_config(config: Config) -> ModelSpec:
    """The spec of a model from its parsed ``config.json``; ``ConfigError`` if it cannot be run.

    Fields mean what they mean to transformers, absent ones its classes' defaults, and null is
    absent where it does not say something of its own.
    """
    architecture = architecture_of(config)
    family = next(one for one in _FAMILIES.values() if architecture in one.DEFAULTS)
    check_fields(config, family.OWN_FIELDS)
    try:
        return family.from_config(config, architecture)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"config.json: {error}") from error


def architecture_of(config: Config) -> str:
    """The supported architecture of a config, by ``model_type`` and ``architectures``, of which one
    is enough; ``ConfigError`` where neither names one, or where they disagree.

    transformers goes by ``model_type`` alone. Weights that were saved without the head's class
    (``LlamaModel``) are run with one.
    """
    types = {name: one for family in _FAMILIES.values() for name, one in family.MODEL_TYPES.items()}
    listed, model_type = fields.texts(config, "architectures"), fields.text(config, "model_type")
    if not listed and not model_type:
        raise ConfigError(
            "config.json has no 'architectures' and no 'model_type'; is this a model folder?"
        )
    by_type = types.get(model_type or "")
    named = _known_name(listed[0]) if listed else None
    if named is None and by_type is not None:
        return by_type
    if by_type is not None and named == by_type.replace(_HEAD, "Model"):
        return by_type
    if named in supported_architectures() and (not model_type or named == by_type):
        return str(named)
    if named in supported_architectures():
        raise ConfigError(
            f"config.json: model_type is {shown(model_type)}, but architectures names {named}; "
            "the two belong to different models, is it the original config?"
        )
    what = shown(named)[1:-1] if named is not None else f"model_type {shown(model_type)}"
    raise ConfigError(
        f"{what} is not supported; supported are {_listed(supported_architectures())}"
    )


def _known_name(name: str) -> str:
    """The name, or the supported one that it is but for underscores: transformers saves Kimi K2.5
    with one that its makers leave out."""
    plain = {known.replace("_", ""): known for known in supported_architectures()}
    return plain.get(name.replace("_", ""), name)


def _listed(architectures: Sequence[str]) -> str:
    """Names in a sentence, the ending that nearly all of them have only once."""
    heads = [one.removesuffix(_HEAD) for one in architectures if one.endswith(_HEAD)]
    others = [one for one in architectures if not one.endswith(_HEAD)]
    return f"{', '.join(heads)}, each with {_HEAD} behind it, and {', '.join(others)}"


def text_part(config: Config) -> Config:
    """The config of the model that reads and writes text within a multimodal one; the config itself
    where it is none."""
    text = fields.table(config, "text_config")
    if not text:
        return config
    kept = {name: config[name] for name in ("tie_word_embeddings",) if name in config}
    return {**text, **kept, "architectures": [architecture_of({**text, "architectures": None})]}


def default_end_token(config: Config) -> int | None:
    """The token that ends an answer of a model whose files name none; None where its family has no
    such default, or where it cannot be run."""
    try:
        architecture = architecture_of(config)
    except ConfigError:
        return None
    family = next(one for one in _FAMILIES.values() if architecture in one.DEFAULTS)
    return family.DEFAULTS[architecture]["eos_token_id"]


@lru_cache(8)
def build_graph(spec: ModelSpec, *, further: bool = False) -> Graph:
    """The operations of one step of the model; with ``further`` also of one in which its further
    layer drafts. Equal specs have one graph, which nobody changes: a large model's takes half a
    second to build."""
    if further:
        require_further(spec)
        return _FAMILIES[spec.family].build(spec, further=True)
    return _FAMILIES[spec.family].build(spec)


def require_further(spec: ModelSpec) -> None:
    """``ValueError`` for a model without a layer that predicts further tokens."""
    if spec.further is None:
        raise ValueError(
            "this model has no layer that predicts further tokens, or none that can be read, and "
            "--speculate mtp drafts with it; use --speculate ngram, or --draft with a smaller model"
        )


def tensor_names(family: str) -> Names:
    """Where the tensors of a family's models lie in a Hugging Face folder."""
    return _FAMILIES[family].TENSOR_NAMES


def hugging_face_name(family: str, name: str) -> str:
    """The name in a Hugging Face folder of the tensor that bandweave calls ``name``, or of the one
    that it lies in.

    ``ValueError`` where the family is unknown or has no such tensor.
    """
    found = named(_FAMILIES[family].TENSOR_NAMES, name) if family in _FAMILIES else None
    if found is None:
        raise ValueError(f"family {family!r} has no Hugging Face name for {name!r}")
    return found
