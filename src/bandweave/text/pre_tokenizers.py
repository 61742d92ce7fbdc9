"""The pre-tokenizers that GGUF files name: how a text is parted before its bytes are paired.

The patterns are those of the models' own ``tokenizer.json`` (``pre_tokenizer``), or, for Kimi K2,
of its ``tokenization_kimi.py``; which name stands for which model is said by ``get_vocab_base_pre``
of llama.cpp's converter. Of several patterns each parts the pieces of the one before it.

Knows Oniguruma's regular expressions, which the ``tokenizers`` library uses; knows no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# --- alternatives that patterns are made of ---

_SUFFIX = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_SUFFIX = f"(?i:{_SUFFIX})"
_LINES = r"\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"  # the last of several spaces belongs to the word behind them
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_THREE_DIGITS = r"\p{N}{1,3}"
_DIGIT = r"\p{N}"

# A word by OpenAI's o200k: capitals, then small letters; one of the two may be missing.
_LARGE = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_SMALL = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_SLASHED_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

_HAN_AND_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
_WIDE = "[一-龥ࠀ-一가-\ud7ff]+"


def _either(*alternatives: str) -> str:
    return "|".join(alternatives)


def _cased(suffix: str, *, without: str = "") -> str:
    """Words whose letters are small behind the capitals."""
    large, small = f"[{_LARGE}{without}]", f"[{_SMALL}{without}]"
    return _either(
        f"{_LEAD}{large}*{small}+{suffix}",
        f"{_LEAD}{large}+{small}*{suffix}",
    )


_GPT2 = _either(_SUFFIX, r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", _SPACES)
_LLAMA3 = _either(_ANY_SUFFIX, _WORD, _THREE_DIGITS, _SIGNS, _LINES, _SPACES)
_QWEN2 = _either(_ANY_SUFFIX, _WORD, _DIGIT, _SIGNS, _LINES, _SPACES)
_QWEN35 = _either(
    _ANY_SUFFIX,
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    _DIGIT,
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    _LINES,
    _SPACES,
)
_O200K = _either(_cased(f"{_ANY_SUFFIX}?"), _THREE_DIGITS, _SLASHED_SIGNS, _LINES, _SPACES)
_TEKKEN = _either(_cased(""), _DIGIT, _SLASHED_SIGNS, _LINES, _SPACES)
_KIMI_K2 = _either(
    r"\p{Han}+",
    _cased(f"{_ANY_SUFFIX}?", without=r"&&[^\p{Han}]"),
    _THREE_DIGITS,
    _SIGNS,
    _LINES,
    _SPACES,
)
_DEEPSEEK_V3 = _either(
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    _LINES,
    _SPACES,
)
_SEED = _either(_ANY_SUFFIX, _WORD, _DIGIT, r" ?[^\s\p{L}\p{N}\r\n]+", _LINES, _SPACES)
_YOUTU = _either(_cased(f"{_ANY_SUFFIX}?"), _DIGIT, _SLASHED_SIGNS, _LINES, _SPACES)
_MINICPM = _either(_ANY_SUFFIX, _WORD, r"\p{N}+", _SIGNS, _LINES, _SPACES)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"

# --- patterns that part a text one after another ---

# DeepSeek LLM's letters: the cased ones of an older Unicode, as its file lists them.
_CASED = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚ"
    "Ḁ-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffcℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_LLM_STEPS = (
    "[\r\n]",
    rf"\s?[{_CASED}]+",
    "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
    r"\s+$",
    _WIDE,
    r"\p{N}+",
)
_DEEPSEEK_CODER_STEPS = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _WIDE, _DIGIT)
_DEEPSEEK_V3_STEPS = (_THREE_DIGITS, _HAN_AND_KANA, _DEEPSEEK_V3)
_YOUTU_STEPS = (
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _HAN_AND_KANA,
    _YOUTU,
)
_FALCON_STEPS = (r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]")
_DEFAULT_STEPS = (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
_AYA_STEPS = (r"\d{1,3}(?=(?:\d{3})*\b)", _O200K)


@dataclass(frozen=True, kw_only=True)
class PreTokenizer:
    """``patterns``: each parts what the one before it left, matches and what lies between them
    alike. ``ignore_merges``: whether a part that is a token as it stands becomes that token.
    ``adds_bos``: whether a text starts with the token for that unless the file says otherwise."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    adds_bos: bool = False


_Group = tuple[PreTokenizer, str]
_GROUPS: tuple[_Group, ...] = (
    (
        PreTokenizer(patterns=(_LLAMA3,), ignore_merges=True, adds_bos=True),
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
    ),
    (PreTokenizer(patterns=(_LLAMA3,), ignore_merges=True), "glm4 glm5"),
    (PreTokenizer(patterns=(_LLAMA3,)), "chatglm-bpe dbrx smaug-bpe"),
    (
        # Bailing's pattern is written in another way, and parts texts in the same.
        PreTokenizer(patterns=(_QWEN2,)),
        "qwen2 deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open bailingmoe bailingmoe2 "
        "llada-moe",
    ),
    (PreTokenizer(patterns=(_QWEN35,)), "qwen35"),
    (PreTokenizer(patterns=(_O200K,)), "gpt-4o llama4 kanana2 minimax-m2"),
    (PreTokenizer(patterns=(_TEKKEN,), ignore_merges=True, adds_bos=True), "tekken"),
    (PreTokenizer(patterns=(_KIMI_K2,)), "kimi-k2"),
    (PreTokenizer(patterns=_DEEPSEEK_LLM_STEPS), "deepseek-llm"),
    (PreTokenizer(patterns=_DEEPSEEK_CODER_STEPS), "deepseek-coder"),
    (PreTokenizer(patterns=_DEEPSEEK_V3_STEPS), "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (PreTokenizer(patterns=_YOUTU_STEPS, ignore_merges=True), "youtu"),
    (PreTokenizer(patterns=(_THREE_DIGITS, _MINICPM), ignore_merges=True), "minicpm5"),
    (PreTokenizer(patterns=(_SEED,)), "seed-coder"),
    (PreTokenizer(patterns=_AYA_STEPS), "tiny_aya cohere2moe"),
    (
        PreTokenizer(patterns=(_DIGIT, _GPT2)),
        "smollm starcoder refact command-r exaone minerva-7b codeshell mellum2",
    ),
    (
        PreTokenizer(patterns=(_GPT2,)),
        "gpt-2 mpt olmo phi-2 exaone4 gigachat a.x-4.0 mellum trillion granite-docling",
    ),
    (PreTokenizer(patterns=_FALCON_STEPS), "falcon"),
    (PreTokenizer(patterns=(_BLOOM,)), "poro-chat bloom gpt3-finnish"),
    (PreTokenizer(patterns=(_BLOOM, _DIGIT)), "viking"),
    (PreTokenizer(patterns=_DEFAULT_STEPS), "default"),
)  # fmt: skip

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    name: group for group, names in _GROUPS for name in names.split()
}
"""By the name that GGUF files give."""

LINES = PreTokenizer(patterns=(r"[^\n]+|\n+",), adds_bos=True)
"""Gemma 4's: only lines are parted."""
