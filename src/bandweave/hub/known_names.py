"""What people call models, and what the hub calls them.

Names as other programs have them (``llama3.2``, ``qwen3:8b``, ``deepseek-r1``): a table, since what
is meant by them does not follow from how they are spelt. Asks nobody.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

#: The hub's names by family, then by size, the one that is meant without a size first.
_FAMILIES: Mapping[str, Mapping[str, str]] = {
    "llama3.3": {"70b": "meta-llama/Llama-3.3-70B-Instruct"},
    "llama3.2": {
        "3b": "meta-llama/Llama-3.2-3B-Instruct",
        "1b": "meta-llama/Llama-3.2-1B-Instruct",
    },
    "llama3.1": {
        "8b": "meta-llama/Llama-3.1-8B-Instruct",
        "70b": "meta-llama/Llama-3.1-70B-Instruct",
        "405b": "meta-llama/Llama-3.1-405B-Instruct",
    },
    "llama3": {
        "8b": "meta-llama/Meta-Llama-3-8B-Instruct",
        "70b": "meta-llama/Meta-Llama-3-70B-Instruct",
    },
    "llama2": {
        "7b": "meta-llama/Llama-2-7b-chat-hf",
        "13b": "meta-llama/Llama-2-13b-chat-hf",
        "70b": "meta-llama/Llama-2-70b-chat-hf",
    },
    "tinyllama": {"1.1b": "TinyLlama/TinyLlama-1.1B-Chat-v1.0"},
    "qwen3": {
        "8b": "Qwen/Qwen3-8B",
        "0.6b": "Qwen/Qwen3-0.6B",
        "1.7b": "Qwen/Qwen3-1.7B",
        "4b": "Qwen/Qwen3-4B",
        "14b": "Qwen/Qwen3-14B",
        "30b": "Qwen/Qwen3-30B-A3B",
        "32b": "Qwen/Qwen3-32B",
        "235b": "Qwen/Qwen3-235B-A22B",
    },
    "qwen3-coder": {
        "30b": "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "480b": "Qwen/Qwen3-Coder-480B-A35B-Instruct",
    },
    "qwen3-next": {"80b": "Qwen/Qwen3-Next-80B-A3B-Instruct"},
    "qwen2.5": {
        "7b": "Qwen/Qwen2.5-7B-Instruct",
        "0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
        "1.5b": "Qwen/Qwen2.5-1.5B-Instruct",
        "3b": "Qwen/Qwen2.5-3B-Instruct",
        "14b": "Qwen/Qwen2.5-14B-Instruct",
        "32b": "Qwen/Qwen2.5-32B-Instruct",
        "72b": "Qwen/Qwen2.5-72B-Instruct",
    },
    "qwen2.5-coder": {
        "7b": "Qwen/Qwen2.5-Coder-7B-Instruct",
        "1.5b": "Qwen/Qwen2.5-Coder-1.5B-Instruct",
        "3b": "Qwen/Qwen2.5-Coder-3B-Instruct",
        "14b": "Qwen/Qwen2.5-Coder-14B-Instruct",
        "32b": "Qwen/Qwen2.5-Coder-32B-Instruct",
    },
    "qwq": {"32b": "Qwen/QwQ-32B"},
    "deepseek-r1": {
        "671b": "deepseek-ai/DeepSeek-R1",
        "1.5b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "7b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "8b": "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B",
        "14b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
        "32b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        "70b": "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
    },
    "deepseek-v3": {"671b": "deepseek-ai/DeepSeek-V3"},
    "deepseek-v3.1": {"671b": "deepseek-ai/DeepSeek-V3.1"},
    "deepseek-v2": {
        "16b": "deepseek-ai/DeepSeek-V2-Lite-Chat",
        "236b": "deepseek-ai/DeepSeek-V2-Chat",
    },
    "deepseek-coder-v2": {
        "16b": "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct",
        "236b": "deepseek-ai/DeepSeek-Coder-V2-Instruct",
    },
    "gpt-oss": {"20b": "openai/gpt-oss-20b", "120b": "openai/gpt-oss-120b"},
    "gemma3": {
        "4b": "google/gemma-3-4b-it",
        "270m": "google/gemma-3-270m-it",
        "1b": "google/gemma-3-1b-it",
        "12b": "google/gemma-3-12b-it",
        "27b": "google/gemma-3-27b-it",
    },
    "gemma2": {
        "9b": "google/gemma-2-9b-it",
        "2b": "google/gemma-2-2b-it",
        "27b": "google/gemma-2-27b-it",
    },
    "mistral": {"7b": "mistralai/Mistral-7B-Instruct-v0.3"},
    "mistral-nemo": {"12b": "mistralai/Mistral-Nemo-Instruct-2407"},
    "mixtral": {
        "8x7b": "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "8x22b": "mistralai/Mixtral-8x22B-Instruct-v0.1",
    },
    "phi3": {
        "3.8b": "microsoft/Phi-3-mini-4k-instruct",
        "14b": "microsoft/Phi-3-medium-4k-instruct",
    },
    "phi3.5": {"3.8b": "microsoft/Phi-3.5-mini-instruct"},
    "phi4": {"14b": "microsoft/phi-4"},
    "phi4-mini": {"3.8b": "microsoft/Phi-4-mini-instruct"},
    "smollm2": {
        "1.7b": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        "135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    },
    "smollm3": {"3b": "HuggingFaceTB/SmolLM3-3B"},
    "olmo2": {
        "7b": "allenai/OLMo-2-1124-7B-Instruct",
        "13b": "allenai/OLMo-2-1124-13B-Instruct",
    },
    "kimi-k2": {"1t": "moonshotai/Kimi-K2-Instruct"},
    "minimax-m2": {"230b": "MiniMaxAI/MiniMax-M2"},
    "glm4": {"9b": "zai-org/GLM-4-9B-0414", "32b": "zai-org/GLM-4-32B-0414"},
    "glm-4.5": {"355b": "zai-org/GLM-4.5"},
    "glm-4.5-air": {"106b": "zai-org/GLM-4.5-Air"},
    "glm-4.6": {"355b": "zai-org/GLM-4.6"},
    "glm-4.7": {"355b": "zai-org/GLM-4.7"},
    "glm-4.7-flash": {"30b": "zai-org/GLM-4.7-Flash"},
    "command-r": {"35b": "CohereLabs/c4ai-command-r-08-2024"},
    "command-r7b": {"7b": "CohereLabs/c4ai-command-r7b-12-2024"},
    "seed-oss": {"36b": "ByteDance-Seed/Seed-OSS-36B-Instruct"},
    "ernie-4.5": {
        "21b": "baidu/ERNIE-4.5-21B-A3B-PT",
        "0.3b": "baidu/ERNIE-4.5-0.3B-PT",
    },
}  # fmt: skip
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]*(:[a-z0-9._-]+)?", re.ASCII)
_MOST_SHOWN = 4


def known_as(text: str) -> list[str]:
    """The hub's names for what people call ``text``, the most likely first; none for a name that
    nobody has told us of, or that is the hub's own already."""
    word = text.strip().lower()
    if not _WORD.fullmatch(word):
        return []
    family, _, size = word.partition(":")
    sizes = _find(family)
    if sizes is None:
        return []
    if size and size != "latest":
        named = [one for key, one in sizes.items() if size.startswith(key)]
        return named or list(sizes.values())[:_MOST_SHOWN]
    return list(sizes.values())[:_MOST_SHOWN]


def _find(family: str) -> Mapping[str, str] | None:
    if family in _FAMILIES:
        return _FAMILIES[family]
    plain = {_plain(name): name for name in _FAMILIES}
    if _plain(family) in plain:
        return _FAMILIES[plain[_plain(family)]]
    own = {_plain(one.partition("/")[2]): one for of in _FAMILIES.values() for one in of.values()}
    if _plain(family) in own:  # the hub's name without whose it is
        return {"": own[_plain(family)]}
    close = difflib.get_close_matches(_plain(family), plain, n=1, cutoff=0.85)
    return _FAMILIES[plain[close[0]]] if close else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
