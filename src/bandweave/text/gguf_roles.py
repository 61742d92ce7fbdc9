"""GgufRoles: which tokens of a GGUF file end an answer, which are never text, and which are cut
out of a text before all else.

Files name few end tokens by id, so llama.cpp goes by their texts too (``llama-vocab.cpp``), and so
does this. Knows tokens; knows no texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bandweave.text.files import TextError
from bandweave.text.gguf_vocabulary import (
    CONTROL,
    PIECES,
    RAW_PAIRS,
    UNKNOWN,
    USER_DEFINED,
    GgufVocabulary,
)

#: What ends a turn or a text in some model: of these all that there are do.
_ENDS = (
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>",
    "<|flush|>", "<end_of_turn>", "<turn|>", "<|tool_response>", "<|endoftext|>",
    "<|end_of_text|>", "<end_of_utterance>", "</s>", "<eos>", "[EOS]", "<EOT>", "_<EOT>", "[EOT]",
    "[e~[", "<｜end▁of▁sentence｜>",
)  # fmt: skip

#: What pads or parts files in code: a chat's answer is over where one comes.
_FILE_ENDS = (
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>",
    "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
)  # fmt: skip

#: What stands around a gap in code: never text, whatever its type says.
_GAP_MARKS = (
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
    "<|code_prefix|>", "<|prefix|>", "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",
    "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>", "<|fim_middle|>",
    "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
    "<|middle|>",
)  # fmt: skip

#: Texts that end nothing where all of some others end an answer.
_UNLESS = (
    ("<|end|>", ("<|return|>", "<|call|>")),  # Harmony's messages end with it, not its answers
    ("<|end|>", ("<|flush|>", "<|calls|>")),
    ("<|end|>", ("<|flush|>", "<|call|>")),
    ("</s>", ("<|tool_response>",)),  # a tag of HTML to Gemma 4
)

#: Tokens that chat templates know by name.
_NAMES = {
    "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "sep_token": "seperator",
    "pad_token": "padding", "mask_token": "mask",
}  # fmt: skip

#: The ids of a kind's usual tokens where a file gives none.
_USUAL_PIECES = {"bos": 1, "eos": 2, "unknown": 0}
_USUAL_PAIRS = {"bos": 11, "eos": 11}  # Falcon's

#: Phi 3's tokens behind which white space counts, unlike behind its others.
_KEEP_SPACE_BEHIND = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True, kw_only=True)
class GgufRoles:
    """``bos``, ``eos``, ``unknown``: ids, or None. ``adds_bos``, ``adds_eos``: whether the two
    stand around a text. ``ends``: ids that end an answer. ``control``: ids that are never text,
    those included. ``cut``: ids of all tokens that are cut out of texts, the longest first.
    ``strips``: those behind which white space is dropped. ``named``: ``bos_token`` and the like, as
    text."""

    bos: int | None
    eos: int | None
    unknown: int | None
    adds_bos: bool
    adds_eos: bool
    ends: tuple[int, ...]
    control: frozenset[int]
    cut: tuple[int, ...]
    strips: frozenset[int]
    named: Mapping[str, str]

    @classmethod
    def of(cls, vocabulary: GgufVocabulary, *, adds_bos: bool) -> GgufRoles:
        """``adds_bos``: where the file says nothing. ``TextError`` where a token shall stand
        before or behind every text that the file does not name."""
        types = vocabulary.types
        named = _named(vocabulary)
        # Gemma 4's files say false, and its models want it nevertheless.
        add_bos = True if vocabulary.kind == RAW_PAIRS else vocabulary.add_bos
        ends = _ends(vocabulary, named)
        typed = {number for number, kind in enumerate(types) if kind in (CONTROL, UNKNOWN)}
        marks = {vocabulary.ids[text] for text in _GAP_MARKS if text in vocabulary.ids}
        control = frozenset(typed | marks | ends)
        own = {number for number, kind in enumerate(types) if kind == USER_DEFINED}
        cut = sorted(own | control, key=lambda token: (-len(vocabulary.bytes_of(token)), token))
        texts = {
            name: vocabulary.name_of(named[key]) for name, key in _NAMES.items() if key in named
        }
        return cls(
            bos=named.get("bos"),
            eos=named.get("eos"),
            unknown=named.get("unknown"),
            adds_bos=_adds(vocabulary, "bos", named, said=add_bos, usual=adds_bos),
            adds_eos=_adds(vocabulary, "eos", named, said=vocabulary.add_eos, usual=False),
            ends=tuple(sorted(ends)),
            control=control,
            cut=tuple(cut),
            strips=_strips(vocabulary, cut) if vocabulary.strips_behind_special else frozenset(),
            named=texts,
        )


def _named(vocabulary: GgufVocabulary) -> dict[str, int]:
    """Ids by name, with a kind's usual ones where those are control tokens here."""
    usual = _USUAL_PIECES if vocabulary.kind == PIECES else _USUAL_PAIRS
    result = {
        name: number
        for name, number in usual.items()
        if number < len(vocabulary.tokens) and vocabulary.types[number] in (CONTROL, UNKNOWN)
    }
    return {**result, **vocabulary.named}


def _ends(vocabulary: GgufVocabulary, named: Mapping[str, int]) -> set[int]:
    texts = {text for text in (*_ENDS, *_FILE_ENDS) if text in vocabulary.ids}
    kept = texts - {text for text, others in _UNLESS if texts.issuperset(others)}
    result = {vocabulary.ids[text] for text in kept}
    for name in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"):
        if name in named:
            result.add(named[name])
    return result


def _adds(
    vocabulary: GgufVocabulary,
    name: str,
    named: Mapping[str, int],
    *,
    said: bool | None,
    usual: bool,
) -> bool:
    if said and name not in named:
        raise TextError(
            f"{vocabulary.where}: tokenizer.ggml.add_{name}_token is true, but no "
            f"{name}_token_id is given; convert the model again"
        )
    return name in named and (usual if said is None else said)


def _strips(vocabulary: GgufVocabulary, cut: list[int]) -> frozenset[int]:
    kept = {vocabulary.ids[text] for text in _KEEP_SPACE_BEHIND if text in vocabulary.ids}
    return frozenset({*cut} - kept)
