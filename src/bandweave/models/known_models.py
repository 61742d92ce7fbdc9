"""The known models by name: the one home of their configs. Reads one packaged file.

The values are those of the config.json that the models' makers publish, without the fields that
neither a count nor a run needs. ``synth`` makes random checkpoints of those that the engine runs.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from bandweave.models.config_shape import shape_from_config
from bandweave.models.model_shape import ModelShape

_ALIASES = {
    "deepseek-v3-671b": "deepseek-v3",
    "deepseek-r1-671b": "deepseek-r1",
    "kimi-k2-instruct": "kimi-k2",
    "llama-7b": "llama-2-7b",
    "llama-3.3-70b": "llama-3.1-70b",
    "qwen3-coder-480b": "qwen3-coder-480b-a35b",
    "qwen3-235b": "qwen3-235b-a22b",
    "qwen3-30b": "qwen3-30b-a3b",
    "qwen3-coder-30b-a3b": "qwen3-30b-a3b",
    "qwen3-coder-next": "qwen3-next-80b-a3b",
    "glm-4.7": "glm-4.6",
    "glm-5.1": "glm-5",
    "kimi-k2.6": "kimi-k2.5",
    "minimax-m2.1": "minimax-m2",
    "minimax-m2.5": "minimax-m2",
    "mistral-7b-v0.3": "mistral-7b",
    "mistral-large-2411": "mistral-large-2",
    "qwen3.6-27b": "qwen3.5-27b",
    "qwen3.6-35b-a3b": "qwen3.5-35b-a3b",
}


def model_names() -> tuple[str, ...]:
    """All names, aliases left out, in the file's order: by family and size."""
    return tuple(_configs())


def known_config(name: str) -> dict[str, Any]:
    """A copy of the config of that name; ``ValueError`` with near names for an unknown one."""
    configs = _configs()
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    if key not in configs:
        near = difflib.get_close_matches(key, [*configs, *_ALIASES], n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no model is called {name!r}{hint}")
    return json.loads(json.dumps(configs[key]))


def known_model(name: str) -> ModelShape:
    """The shape of the model of that name; ``ValueError`` as ``known_config``."""
    return shape_from_config(known_config(name), name=name.strip().lower())


@lru_cache(maxsize=1)
def _configs() -> Mapping[str, Any]:
    text = resources.files("bandweave.models").joinpath("data/models.json").read_text("utf-8")
    return json.loads(text)
