"""The fields of transformers' config classes, and what its models make of ``config_cases``:
written, or compared with what is stored. Needs torch and transformers; ``make`` calls it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

from tests.transformers_reference import config_cases

_LAYER = "model.layers.0."
_PLAIN = (bool, int, float, str, list, type(None))


def fields() -> dict[str, dict[str, Any]]:
    """Every field of every class with its default, by ``model_type``."""
    result = {}
    for model_type in config_cases.ARCHITECTURES:
        config_class = transformers.CONFIG_MAPPING[model_type]
        found = {}
        for field in dataclasses.fields(config_class):
            default = field.default
            assert isinstance(default, _PLAIN), (field.name, default)
            found[field.name] = default
        result[model_type] = dict(sorted(found.items()))
    return result


def results() -> list[dict[str, Any]]:
    """``config`` and ``result`` of every case."""
    transformers.logging.set_verbosity_error()
    found = []
    for config in config_cases.cases():
        written = json.loads(json.dumps(config))
        try:
            result = _result(config)
        except Exception as error:  # whatever it is, transformers does not run it
            result = {"error": f"{type(error).__name__}: {error}"[:120]}
        found.append({"config": written, "result": result})
    return found


def _result(given: dict[str, Any]) -> dict[str, Any]:
    """The sizes of the model, which past positions each layer's last row sees, its rope."""
    architecture = config_cases.ARCHITECTURES[given["model_type"]]
    model_class = getattr(transformers, architecture)
    config = model_class.config_class.from_dict(given)
    model = model_class._from_config(config, attn_implementation="eager").eval()
    length = config_cases.LONGEST
    with torch.no_grad():
        out = model(torch.arange(length)[None] % 7, output_attentions=True, use_cache=False)
    seen = [int((layer[0, 0, -1] > 0).sum()) for layer in out.attentions]
    ahead = any(bool((layer[0, 0, 0, 1:] > 0).any()) for layer in out.attentions)
    layer = model.model.layers[0]
    return {
        "biases": [name.removeprefix(_LAYER) for name in sorted(model.state_dict())
                   if name.startswith(_LAYER) and name.endswith(".bias")],
        "layers": len(model.model.layers),
        "heads": layer.self_attn.q_proj.out_features // layer.self_attn.head_dim,
        "kv_heads": layer.self_attn.k_proj.out_features // layer.self_attn.head_dim,
        "head_dim": layer.self_attn.head_dim,
        "norm_eps": layer.input_layernorm.variance_epsilon,
        "tied": config.tie_word_embeddings,
        "act_of_one": round(float(layer.mlp.act_fn(torch.tensor(1.0))), 4),
        "seen": seen,
        "ahead": ahead,
        "frequencies": [float(f"{float(one):.7g}") for one in model.model.rotary_emb.inv_freq],
        "scale": model.model.rotary_emb.attention_scaling,
    }  # fmt: skip


def write() -> None:
    config_cases.FIELDS.write_text(json.dumps(fields(), indent=1) + "\n")
    text = ",\n".join(json.dumps(one, separators=(",", ":")) for one in results())
    config_cases.STORED.write_text(f"[{text}]\n")


def problem() -> str | None:
    """What is stale about the stored files, or None."""
    if fields() != config_cases.stored_fields():
        return "config_fields.json has other fields"
    for now, before in zip(results(), config_cases.stored(), strict=True):
        if not _agree(now, before):
            return f"configs.json has another result for {json.dumps(now['config'])}"
    return None


def _agree(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether two results are one, but for the last bits of frequencies and words of errors."""
    a, b = dict(now["result"]), dict(before["result"])
    if "error" in a or "error" in b:
        return now["config"] == before["config"] and ("error" in a) == ("error" in b)
    pairs = zip(a.pop("frequencies"), b.pop("frequencies"), strict=True)
    close = all(abs(x - y) <= 1e-6 * abs(y) + 1e-9 for x, y in pairs)
    return now["config"] == before["config"] and a == b and close
