"""llama.cpp's architectures, one entry each: the family, its fields and its tensors' names.

Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bandweave.models.config import ConfigError
from bandweave.models.gguf import fields, names
from bandweave.models.gguf.deepseek import DEEPSEEK_NAMES, deepseek2, indexed
from bandweave.models.gguf.fields import Fields
from bandweave.models.gguf.hybrids import (
    QWEN3_5_NAMES,
    QWEN3_NEXT_NAMES,
    qwen3_5,
    qwen3_5_moe,
    qwen3_next,
)
from bandweave.models.gguf.metadata import Metadata
from bandweave.models.tensor_names import Names
from bandweave.shown import shown


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """``model_type`` and ``name`` are transformers'; ``fields`` makes a config.json's of the
    metadata; ``norm_offset``: norms' weights are stored with what the family adds to them."""

    model_type: str
    name: str
    fields: Callable[[Metadata], Fields]
    names: Names = field(default_factory=lambda: names.COMMON)
    norm_offset: bool = False

    def config(self, data: Metadata) -> Fields:
        """The fields of a config.json that says what the metadata say. ``ConfigError`` names the
        field that is missing or wrong."""
        known = {"model_type": self.model_type, "architectures": [self.name]}
        return {**known, **self.fields(data)}


def find_architecture(data: Metadata) -> Architecture:
    """``ConfigError`` lists those that can be run where the file's cannot."""
    found = _ARCHITECTURES.get(data.architecture)
    if found is None:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise ConfigError(
            f"architecture {shown(data.architecture)} is not supported in GGUF files, but may be "
            f"in the model's safetensors version; supported are {known}"
        )
    if data.architecture == "llama" and data.size("expert_count", 0):
        return _MIXTRAL
    return found


_DENSE_NORMED: Names = {**names.COMMON, **names.QK_NORMS}
_MIXTRAL = Architecture(
    model_type="mixtral",
    name="MixtralForCausalLM",
    fields=fields.mixtral,
    names={**names.COMMON, **names.PAIRS, **names.MIXTURE},
)

_ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(
        model_type="llama",
        name="LlamaForCausalLM",
        fields=fields.llama,
        names={**names.COMMON, **names.PAIRS},
    ),
    "qwen2": Architecture(model_type="qwen2", name="Qwen2ForCausalLM", fields=fields.qwen2),
    "qwen2moe": Architecture(
        model_type="qwen2_moe",
        name="Qwen2MoeForCausalLM",
        fields=fields.qwen2_moe,
        names={**names.COMMON, **names.MIXTURE},
    ),
    "qwen3": Architecture(
        model_type="qwen3", name="Qwen3ForCausalLM", fields=fields.qwen3, names=_DENSE_NORMED
    ),
    "qwen3moe": Architecture(
        model_type="qwen3_moe",
        name="Qwen3MoeForCausalLM",
        fields=fields.qwen3_moe,
        names={**_DENSE_NORMED, **names.MIXTURE},
    ),
    "qwen3next": Architecture(
        model_type="qwen3_next",
        name="Qwen3NextForCausalLM",
        fields=qwen3_next,
        names=QWEN3_NEXT_NAMES,
        norm_offset=True,
    ),
    "qwen35": Architecture(
        model_type="qwen3_5_text",
        name="Qwen3_5ForCausalLM",
        fields=qwen3_5,
        names=QWEN3_5_NAMES,
        norm_offset=True,
    ),
    "qwen35moe": Architecture(
        model_type="qwen3_5_moe_text",
        name="Qwen3_5MoeForCausalLM",
        fields=qwen3_5_moe,
        names=QWEN3_5_NAMES,
        norm_offset=True,
    ),
    "gemma2": Architecture(
        model_type="gemma2",
        name="Gemma2ForCausalLM",
        fields=lambda data: fields.gemma(data, third=False),
        names={**names.COMMON, **names.BOTH_NORMS},
        norm_offset=True,
    ),
    "gemma3": Architecture(
        model_type="gemma3_text",
        name="Gemma3ForCausalLM",
        fields=lambda data: fields.gemma(data, third=True),
        names={**_DENSE_NORMED, **names.BOTH_NORMS},
        norm_offset=True,
    ),
    "phi3": Architecture(
        model_type="phi3",
        name="Phi3ForCausalLM",
        fields=fields.phi3,
        names={**names.COMMON, **names.FUSED_QKV, **names.FUSED_GATE_UP},
    ),
    "glm4": Architecture(
        model_type="glm4",
        name="Glm4ForCausalLM",
        fields=fields.glm4,
        names={**names.COMMON, **names.BOTH_NORMS, **names.FUSED_GATE_UP},
    ),
    "glm4moe": Architecture(
        model_type="glm4_moe",
        name="Glm4MoeForCausalLM",
        fields=fields.glm4_moe,
        names={**_DENSE_NORMED, **names.MIXTURE, **names.POST_NORM, **names.FURTHER},
    ),
    "gpt-oss": Architecture(
        model_type="gpt_oss",
        name="GptOssForCausalLM",
        fields=fields.gpt_oss,
        names={
            **names.COMMON,
            **names.MIXTURE,
            **names.POST_NORM,
            "layers.{}.sinks": "blk.{}.attn_sinks.weight",
        },
    ),
    "minimax-m2": Architecture(
        model_type="minimax_m2",
        name="MiniMaxM2ForCausalLM",
        fields=fields.minimax,
        names={**_DENSE_NORMED, **names.MIXTURE},
    ),
    "granite": Architecture(
        model_type="granite",
        name="GraniteForCausalLM",
        fields=fields.granite,
        names={**names.COMMON, **names.PAIRS},
    ),
    "smollm3": Architecture(
        model_type="smollm3",
        name="SmolLM3ForCausalLM",
        fields=fields.smollm3,
        names={**names.COMMON, **names.PAIRS},
    ),
    "olmo2": Architecture(
        model_type="olmo2",
        name="Olmo2ForCausalLM",
        fields=fields.olmo2,
        names={**_DENSE_NORMED, **names.BOTH_NORMS},
    ),
    "seed_oss": Architecture(
        model_type="seed_oss",
        name="SeedOssForCausalLM",
        fields=fields.seed_oss,
        names={**names.COMMON, **names.POST_NORM},
    ),
    "cohere2": Architecture(model_type="cohere2", name="Cohere2ForCausalLM", fields=fields.cohere2),
    "ernie4_5": Architecture(
        model_type="ernie4_5", name="Ernie4_5ForCausalLM", fields=fields.ernie
    ),
    "ernie4_5-moe": Architecture(
        model_type="ernie4_5_moe",
        name="Ernie4_5_MoeForCausalLM",
        fields=fields.ernie_moe,
        names={**names.COMMON, **names.MIXTURE},
    ),
    "deepseek32": Architecture(
        model_type="deepseek_v32",
        name="DeepseekV32ForCausalLM",
        fields=indexed,
        names=DEEPSEEK_NAMES,
    ),
    "glm-dsa": Architecture(
        model_type="glm_moe_dsa",
        name="GlmMoeDsaForCausalLM",
        fields=indexed,
        names=DEEPSEEK_NAMES,
    ),
    "deepseek2": Architecture(
        model_type="deepseek_v3",
        name="DeepseekV3ForCausalLM",
        fields=deepseek2,
        names=DEEPSEEK_NAMES,
    ),
}
