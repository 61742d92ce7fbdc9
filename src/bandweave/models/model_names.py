"""What people call models: the makers' names, the hub's, Ollama's. Pure but for packaged data.

Most spellings follow from a name, of which the size of what a token reads (``a22b``) may be left
out; others are in ``data/model_names.csv``, with sizes that families have only one of and those
that are meant where none is said.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

from bandweave.matching import Matcher, Named

#: Who publishes models and copies of them, and words that change nothing that counts.
_PASSED_OVER = (
    "instruct chat it hf base gguf mlx pt preview latest model models bf16 "
    "meta qwen ai deepseek openai google mistralai mistral microsoft moonshotai moonshot zai org "
    "thudm minimaxai nvidia tencent baidu xiaomimimo xiaomi stepfun allenai ibm granite "
    "huggingfacetb bytedance cohere unsloth bartowski lmstudio community ggml mit awq thinking "
    "non a3b the ud fp8 safetensors original"
)
#: Whose names of the hub mean what they say; anybody else's may be something else.
MAKERS = frozenset(
    {"meta-llama", "qwen", "deepseek-ai", "openai", "google", "mistralai", "microsoft",
     "moonshotai", "zai-org", "thudm", "minimaxai", "nvidia", "tencent", "baidu", "xiaomimimo",
     "stepfun-ai", "allenai", "ibm-granite", "huggingfacetb", "bytedance-seed", "tinyllama"}
)  # fmt: skip
_ACTIVE = re.compile(r"a\d+(\.\d+)?b")
_FORMAT = re.compile(
    r"(?:^|[-_:. ])(?:ud[-_])?(q[2-8]_k(?:_[sml]|_xl)?|q[458]_[01]|fp8|bf16|f16|mxfp4|nvfp4|"
    r"awq|gptq|int4|int8|w4a16|4-?bits?|8-?bits?)(?=$|[-_:. ])",
    re.IGNORECASE,
)
_FORMATS = {
    "awq": "q4", "gptq": "q4", "int4": "q4", "w4a16": "q4", "4bit": "q4", "4bits": "q4",
    "int8": "q8", "8bit": "q8", "8bits": "q8", "fp8": "fp8", "bf16": "bf16", "f16": "bf16",
    "mxfp4": "mxfp4-experts", "nvfp4": "nvfp4",
}  # fmt: skip


def matcher_of(keys: Iterable[str]) -> Matcher:
    """A matcher of models by these names."""
    own = _spelt()
    names = [Named(key=key, spellings=(_derived(key), *own.get(key, ()))) for key in keys]
    return Matcher(names, passed_over=_PASSED_OVER.split())


def without_format(text: str) -> tuple[str, str | None]:
    """A name without the format of the weights that it ends in, and that format's name, None where
    it has none: ``llama3.1:70b-instruct-q4_K_M`` is in ``gguf-q4_k_m``."""
    found = _FORMAT.search(text)
    if found is None:
        return text, None
    word = found[1].lower()
    name = _FORMATS.get(word.replace("-", ""), f"gguf-{word.removesuffix('_xl')}")
    return text[: found.start()] + " " + text[found.end() :], name


def is_makers(text: str) -> bool:
    """Whether a name of the hub is that of the model's maker."""
    return text.partition("/")[0].strip().lower() in MAKERS


def _derived(key: str) -> str:
    return " ".join(f"({word})" if _ACTIVE.fullmatch(word) else word for word in key.split("-"))


@lru_cache(maxsize=1)
def _spelt() -> dict[str, list[str]]:
    file = resources.files("bandweave.models").joinpath("data/model_names.csv")
    result: dict[str, list[str]] = {}
    for row in csv.DictReader(io.StringIO(file.read_text("utf-8"))):
        texts = [text.strip() for text in row["spellings"].split(";")]
        result.setdefault(row["name"], []).extend(texts)
    return result
