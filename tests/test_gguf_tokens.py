"""Tokenizers and chat templates out of GGUF metadata."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.checkpoints.resolve import demo_folder
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.files import TextError
from bandweave.text.gguf_codec import GgufCodec
from bandweave.text.gguf_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    GgufVocabulary,
)
from bandweave.text.pre_tokenizers import PRE_TOKENIZERS
from bandweave.text.score_merging import ScoreMerging
from bandweave.text.tokenizer import Tokenizer
from tests.vocabularies import small, stored
from tests.vocabularies.stored import Both, Stored
from tests.vocabularies.texts import TEXTS

WHERE = "model.gguf"
KEY = "tokenizer.ggml."


def codec_of(metadata: dict[str, Any]) -> GgufCodec:
    return GgufCodec(GgufVocabulary.read(metadata, vocab_size=None, where=WHERE))


def both(codec: GgufCodec, text: str, *, special_tokens: bool) -> Both:
    """Its ids with special tokens, and without any."""
    special = codec.encode(text, special_tokens=special_tokens, parse_special=True)
    plain = codec.encode(text, special_tokens=False, parse_special=False)
    return tuple(special), tuple(plain)


@cache
def expected() -> Stored:
    return Stored()


@cache
def byte_pairs(pre: str) -> dict[str, Any]:
    return small.of_bytes(expected().merges, pre)


# --- ids, against llama.cpp's ---


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_byte_pairs_are_llama_cpps(pre: str) -> None:
    codec = codec_of(byte_pairs(pre))
    found: set[str] = set()
    for text, groups in zip(TEXTS, expected().groups, strict=True):
        (ids,) = (ids for ids, names in groups.items() if pre in names)
        ours = both(codec, text, special_tokens=False)
        assert codec.decode(ours[0]) == codec.decode(ours[1]) == text
        if ours != ids:
            found.add(text)
    assert found == stored.different(pre)
    assert bool(codec.encode("", special_tokens=True)) == (pre in expected().starts)


def test_stored_ids_tell_pre_tokenizers_apart() -> None:
    """Else they would show no mistake."""
    by_pre: dict[str, list[Both]] = {pre: [] for pre in PRE_TOKENIZERS}
    for groups in expected().groups:
        for ids, names in groups.items():
            for pre in names:
                by_pre[pre].append(ids)
    kinds: dict[str, set[tuple[tuple[str, ...], bool]]] = {}
    for pre, ids in by_pre.items():
        known = PRE_TOKENIZERS[pre]
        kinds.setdefault(str(ids), set()).add((known.patterns, known.ignore_merges))
    assert [kind for kind in kinds.values() if len(kind) > 1] == []


def test_characters_are_llama_cpps() -> None:
    codec = codec_of(small.of_characters())
    for text, ids in zip(TEXTS, expected().characters, strict=True):
        assert both(codec, text, special_tokens=True) == ids, text


@pytest.mark.parametrize("case", range(4))
def test_pieces_are_llama_cpps(case: int) -> None:
    metadata, texts = list(stored.pieces_cases())[case]
    codec = codec_of(metadata)
    for text, ids in zip(texts, expected().pieces[case], strict=True):
        assert both(codec, text, special_tokens=True) == ids, text


@pytest.mark.parametrize("seed", range(3))
def test_words_merge_as_the_whole_does(seed: int) -> None:
    """Parting at spaces changes nothing, whichever pieces have one in their middle."""
    source = random.Random(seed)
    alphabet = "ab" + small.SPACE
    pieces = ["a", "b", small.SPACE]
    while len(pieces) < 14:
        pieces.append("".join(source.choice(alphabet) for _ in range(source.randrange(2, 5))))
    scores = {piece: float(-source.randrange(4)) for piece in pieces}
    ids = {piece: number for number, piece in enumerate(scores)}
    merging = ScoreMerging(scores, ids, [None] * 256, None)
    for _ in range(200):
        text = "".join(source.choice(alphabet) for _ in range(30))
        assert merging.encode(text) == [ids[piece] for piece in slowly(text, scores)]


def slowly(text: str, scores: dict[str, float]) -> list[str]:
    """The definition: the best of all neighbours that make a piece, the leftmost of several."""
    parts = list(text)
    while True:
        joined = [parts[at] + parts[at + 1] for at in range(len(parts) - 1)]
        found = [(-scores[piece], at) for at, piece in enumerate(joined) if piece in scores]
        if not found:
            return parts
        at = min(found)[1]
        parts[at : at + 2] = [joined[at]]


# --- special tokens ---


def special(**fields: Any) -> dict[str, Any]:
    """The small vocabulary with other fields; None removes one."""
    metadata = {**byte_pairs("qwen2"), **{KEY + name: value for name, value in fields.items()}}
    return {key: value for key, value in metadata.items() if value is not None}


def with_tokens(names: Sequence[str], kind: int = CONTROL, **fields: Any) -> dict[str, Any]:
    """The small vocabulary with further tokens."""
    metadata = byte_pairs("qwen2")
    return special(
        tokens=[*metadata[KEY + "tokens"], *names],
        token_type=[*metadata[KEY + "token_type"], *[kind] * len(names)],
        **fields,
    )


def tokenizer_of(metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_gguf(metadata, where=WHERE)


def names_of(tokenizer: Tokenizer, ids: Sequence[int]) -> set[str | None]:
    return {tokenizer.id_to_token(token) for token in ids}


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        ([], {"</s>", "<|im_end|>"}),
        (["<|eot_id|>", "<end_of_turn>"], {"</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>"}),
        (["<|end|>"], {"</s>", "<|im_end|>", "<|end|>"}),
        (["<|end|>", "<|return|>"], {"</s>", "<|im_end|>", "<|end|>", "<|return|>"}),
        (["<|end|>", "<|return|>", "<|call|>"], {"</s>", "<|im_end|>", "<|return|>", "<|call|>"}),
        (["<|tool_response>"], {"<|im_end|>", "<|tool_response>"}),
        (["<|fim_pad|>", "<reponame>"], {"</s>", "<|im_end|>", "<|fim_pad|>", "<reponame>"}),
    ],
)
def test_ends_by_name(names: list[str], ends: set[str]) -> None:
    tokenizer = tokenizer_of(with_tokens(names, eos_token_id=None))
    assert names_of(tokenizer, tokenizer.eos_token_ids) == ends
    assert tokenizer.hidden_token_ids.issuperset(tokenizer.eos_token_ids)


def test_ends_by_id() -> None:
    assert 65 in tokenizer_of(special(eot_token_id=65)).eos_token_ids
    assert 66 in tokenizer_of(special(eom_token_id=66)).eos_token_ids
    assert 67 in tokenizer_of(special(fim_pad_token_id=67)).eos_token_ids
    assert 65 in tokenizer_of(special(eot_token_id=65)).hidden_token_ids
    assert 68 not in tokenizer_of(special(padding_token_id=68)).eos_token_ids


def test_an_end_token_is_never_text_whatever_its_type() -> None:
    tokenizer = tokenizer_of(with_tokens(["<|eot_id|>"], NORMAL))
    (end,) = (token for token in tokenizer.eos_token_ids
              if tokenizer.id_to_token(token) == "<|eot_id|>")  # fmt: skip
    assert tokenizer.encode("a<|eot_id|>", special_tokens=False) == [*b"a", end]
    assert tokenizer.decode([*b"a", end]) == "a"
    assert tokenizer.decode([*b"a", end], skip_special_tokens=False) == "a<|eot_id|>"


def test_marks_of_a_gap_are_never_text() -> None:
    codec = codec_of(with_tokens(["<｜fim▁hole｜>", "<plain>"], USER_DEFINED))
    hole, plain = codec.size - 2, codec.size - 1
    text = "a<｜fim▁hole｜><plain>"
    assert codec.encode(text, special_tokens=False)[1:] == [hole, plain]
    assert hole not in codec.encode(text, special_tokens=False, parse_special=False)
    assert codec.encode(text, special_tokens=False, parse_special=False)[-1] == plain
    assert (hole in codec.special, plain in codec.special) == (True, False)


def test_tokens_around_a_text() -> None:
    bos, eos = (byte_pairs("qwen2")[f"{KEY}{name}_token_id"] for name in ("bos", "eos"))
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [*b"a"]),
        ({"add_bos_token": True}, [bos, *b"a"]),
        ({"add_eos_token": True}, [*b"a", eos]),
        ({"pre": "llama-bpe"}, [bos, *b"a"]),
        ({"pre": "llama-bpe", "add_bos_token": False}, [*b"a"]),
        ({"pre": "llama-bpe", "bos_token_id": None}, [*b"a"]),
    ]
    for fields, ids in cases:
        tokenizer = tokenizer_of(special(**fields))
        assert tokenizer.encode("a") == ids, fields
        assert tokenizer.encode("a", special_tokens=False) == [*b"a"], fields
    # A template that writes the token itself does not get it twice.
    tokenizer = tokenizer_of(special(add_bos_token=True))
    assert tokenizer.encode("<s>a", special_tokens=False) == [bos, *b"a"]
    assert tokenizer.bos_token_id == bos


def test_usual_ids_count_where_they_are_control_tokens() -> None:
    metadata = small.of_pieces(seed=0, kinds_of_scores=3)
    for name in ("bos", "eos", "unknown"):
        del metadata[f"{KEY}{name}_token_id"]
    tokenizer = tokenizer_of(metadata)
    assert tokenizer.named_tokens == {
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"
    }  # fmt: skip
    assert tokenizer.bos_token_id == 1
    assert tokenizer.eos_token_ids[0] == 2
    plain = tokenizer_of(special(bos_token_id=None, eos_token_id=None))  # token 11 is a comma
    assert plain.bos_token_id is None
    assert 11 not in plain.eos_token_ids


def test_phi3_drops_space_behind_most_special_tokens() -> None:
    metadata = small.of_pieces(seed=0, kinds_of_scores=3)
    plain = codec_of(metadata)
    phi3 = codec_of({**metadata, "general.architecture": "phi3"})
    ids = plain.encode("<|im_end|>a", special_tokens=False)
    assert phi3.encode("<|im_end|> \n a", special_tokens=False) == ids
    assert plain.encode("<|im_end|> \n a", special_tokens=False) != ids
    for codec in (plain, phi3):
        assert len(codec.encode("<s>  a", special_tokens=False)) > len(ids)


def test_a_missing_pre_tokenizer_is_the_default_one_and_remarked_on() -> None:
    tokenizer = tokenizer_of(special(pre=None))
    (remark,) = tokenizer.remarks
    assert remark.startswith("model.gguf does not name its pre-tokenizer")
    text = "it's 12345 x²"
    assert tokenizer.encode(text) == tokenizer_of(special(pre="default")).encode(text)
    assert tokenizer_of(special(pre="default")).remarks == ()


# --- text ---


@given(data=st.data())
def test_streams_equal_a_decode_of_the_whole(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["bytes", "pieces", "characters"]))
    tokenizer = streamed(kind)
    tokens = data.draw(st.lists(st.integers(0, tokenizer.size + 3)))
    for skip in (True, False):
        detokenizer = tokenizer.detokenizer(skip_special_tokens=skip)
        shown = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
        assert shown == tokenizer.decode(tokens, skip_special_tokens=skip)


@cache
def streamed(kind: str) -> Tokenizer:
    metadata = {
        "bytes": byte_pairs("qwen2"),
        "pieces": small.of_pieces(seed=1, kinds_of_scores=3),
        "characters": small.of_characters(),
    }
    return tokenizer_of(metadata[kind])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text: str) -> None:
    for kind in ("bytes", "pieces"):
        tokenizer = streamed(kind)
        for part in tokenizer.named_tokens.values():
            text = text.replace(part, "")
        tokens = tokenizer.encode(text)
        shown = tokenizer.decode(tokens, skip_special_tokens=False)
        bos = "<s>" if kind == "pieces" else ""
        assert shown.removeprefix(bos).removeprefix(" " if bos else "") == text.replace(
            small.SPACE, " " if kind == "pieces" else small.SPACE
        )


def test_bytes_over_token_boundaries() -> None:
    pieces = streamed("pieces")
    spelled = [pieces.token_to_id(f"<0x{byte:02X}>") for byte in "🎉".encode()]
    detokenizer = pieces.detokenizer()
    assert [detokenizer.push(token or 0) for token in spelled] == ["", "", "", "🎉"]


def test_an_answer_keeps_the_space_that_it_goes_on_with() -> None:
    pieces = streamed("pieces")
    prompt = pieces.encode("ab")
    space = pieces.encode(" a", special_tokens=False)
    first = "".join(map(pieces.detokenizer().push, space))
    later = "".join(map(pieces.detokenizer(prompt=prompt).push, space))
    assert (first, later) == (" a", "  a")  # of the two spaces one is the prefix
    assert pieces.detokenizer(prompt=[1]).push(space[0]) == pieces.detokenizer().push(space[0])


def test_tokens_may_be_bytes_that_are_no_text() -> None:
    names = ["\udcff\udcfe", "<|\udce9|>"]
    tokenizer = tokenizer_of(with_tokens(names, USER_DEFINED))
    first = tokenizer.size - 2
    assert tokenizer.decode([first]) == "\ufffd\ufffd"
    assert tokenizer.id_to_token(first + 1) == "<|\ufffd|>"
    assert tokenizer.encode("<|é|>") == tokenizer_of(special()).encode("<|é|>")


def test_unused_tokens_read_as_nothing() -> None:
    tokenizer = tokenizer_of(with_tokens(["[PAD1]"], UNUSED))
    assert tokenizer.decode([*b"a", tokenizer.size - 1, *b"a"], skip_special_tokens=False) == "aa"
    assert tokenizer.decode([*b"a", tokenizer.size + 5]) == "a"


# --- what is refused ---


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model": "t5"}, "the tokenizer 't5' is not known; known are llama, gpt2, gemma4"),
        ({"model": None}, "tokenizer.ggml.model is missing"),
        ({"model": 7}, "tokenizer.ggml.model must be a text, not: 7"),
        ({"model": "no_vocab"}, "has no tokenizer; give token ids instead"),
        ({"pre": "qwen9"}, "the pre-tokenizer 'qwen9' is not known; known are llama-bpe"),
        ({"pre": 3}, "tokenizer.ggml.pre must be a text"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokens": "abc"}, "tokenizer.ggml.tokens must be an array"),
        ({"tokens": ["a", 1]}, "tokens must be texts, but holds: 1"),
        ({"tokens": []}, "tokens has no tokens"),
        ({"tokens": ["a", "b", "a"]}, "tokens has a token twice: 'a'"),
        ({"token_type": [1, 2]}, "token_type has 2 values for"),
        ({"merges": None}, "merges is missing"),
        ({"merges": ["ab"]}, "merges must be pairs, but holds: 'ab'"),
        ({"merges": ["a \u4e16"]}, "cannot be used: a merge makes 'a世', which is no token"),
        ({"merges": ["Q Z"]}, "cannot be used: a merge makes 'QZ', which is no token"),
        ({"bos_token_id": 1 << 20}, "bos_token_id is 1048576; there are"),
        ({"eot_token_id": -1}, "eot_token_id is -1; there are"),
        ({"eos_token_id": True}, "eos_token_id must be a token's id, not: True"),
        ({"add_bos_token": 1}, "add_bos_token must be true or false, not: 1"),
        ({"add_bos_token": True, "bos_token_id": None}, "add_bos_token is true, but no bos"),
    ],
)
def test_wrong_fields_end_in_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TextError) as caught:
        tokenizer_of(special(**fields))
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(WHERE)


def test_wrong_types_scores_and_bytes() -> None:
    metadata = small.of_pieces(seed=0, kinds_of_scores=3)
    count = len(metadata[KEY + "tokens"])
    cases = {
        "scores has 1 values": {"scores": [0.0]},
        "scores holds what is no number": {"scores": [float("nan")] * count},
        "scores must be numbers, but holds: 'x'": {"scores": ["x"] * count},
        "scores is missing": {"scores": None},
        "token_type has an unknown type: 9": {"token_type": [9] * count},
        "token 0 is a byte, but is called '<unk>'": {"token_type": [BYTE] * count},
    }
    for sentence, fields in cases.items():
        changed = {**metadata, **{KEY + name: value for name, value in fields.items()}}
        with pytest.raises(TextError, match="model.gguf") as caught:
            tokenizer_of({key: value for key, value in changed.items() if value is not None})
        assert sentence in str(caught.value)


def test_a_vocabulary_that_the_model_has_no_rows_for() -> None:
    metadata = byte_pairs("qwen2")
    count = len(metadata[KEY + "tokens"])
    assert Tokenizer.from_gguf(metadata, vocab_size=count + 64, where=WHERE).size == count
    with pytest.raises(TextError, match=f"{count} tokens, but its model has only {count - 1}"):
        Tokenizer.from_gguf(metadata, vocab_size=count - 1, where=WHERE)


@given(data=st.data())
def test_whatever_the_metadata_holds_ends_in_a_sentence(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["bytes", "pieces", "characters"]))
    metadata = dict(
        {
            "bytes": byte_pairs("qwen2"),
            "pieces": small.of_pieces(seed=1, kinds_of_scores=3),
            "characters": small.of_characters(),
        }[kind]
    )
    name = data.draw(st.sampled_from([*metadata]))
    value = metadata[name]
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(-5, 2000), st.floats(), st.text(max_size=3)
    )
    if isinstance(value, list) and data.draw(st.booleans()):
        changed = list(value)
        changed[data.draw(st.integers(0, len(value) - 1))] = data.draw(scalars)
        metadata[name] = changed[: data.draw(st.integers(0, len(value)))]
    else:
        metadata[name] = data.draw(st.one_of(scalars, st.lists(scalars, max_size=3)))
    try:
        tokenizer = tokenizer_of(metadata)
        tokens = tokenizer.encode("a text 世 <|im_end|> 12")
    except TextError as error:
        assert "\n" not in str(error)
    else:
        assert all(0 <= token < tokenizer.size for token in tokens)
        tokenizer.decode(tokens)


# --- templates ---


def test_templates() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    plain = {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}"}
    tokens = {"bos_token": "<s>"}
    assert ChatTemplate.is_in_gguf(plain)
    assert ChatTemplate.from_gguf(plain, tokens=tokens).render(messages) == "<s>Hi"
    named = {"tokenizer.chat_template.default": "d", "tokenizer.chat_template.tool_use": "t"}
    assert ChatTemplate.from_gguf(named).render(messages) == "d"
    assert ChatTemplate.from_gguf({**named, **plain}).render(messages) == "Hi"
    refused: dict[str, dict[str, Any]] = {
        "model.gguf has no chat template": {},
        "templates called tool_use, but none": {"tokenizer.chat_template.tool_use": "t"},
        "tokenizer.chat_template is 7, no text": {"tokenizer.chat_template": 7},
        "tokenizer.chat_template is '\\\\udcff', no text": {"tokenizer.chat_template": "\udcff"},
        "cannot be read": {"tokenizer.chat_template": "{% if"},
    }
    for sentence, metadata in refused.items():
        assert ChatTemplate.is_in_gguf(metadata) == bool(metadata)
        with pytest.raises(TextError) as caught:
            ChatTemplate.from_gguf(metadata, where=WHERE)
        assert sentence.replace("\\\\", "\\") in str(caught.value)


# --- a whole model's ---


def test_the_demo_in_a_gguf_file_has_the_tokens_of_its_folder(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from benchmarks import gguf_tokens

    from tests.vocabularies.files import read_metadata

    folder = demo_folder("demo")
    theirs = Tokenizer.from_folder(folder)
    writer = gguf.GGUFWriter(tmp_path / "demo.gguf", "llama")
    gguf_tokens.write(writer, folder, theirs.size + 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = read_metadata(tmp_path / "demo.gguf")
    ours = Tokenizer.from_gguf(metadata, vocab_size=theirs.size + 3, where=WHERE)
    for text in (*TEXTS, "<|user|>Hi<|end|><|assistant|>"):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.eos_token_ids == theirs.eos_token_ids
    assert ours.hidden_token_ids == theirs.hidden_token_ids
    assert ours.bos_token_id == theirs.bos_token_id
    assert ours.named_tokens == theirs.named_tokens
    messages = [{"role": "user", "content": "What is 2+2?"}]
    template = ChatTemplate.from_gguf(metadata, tokens=ours.named_tokens)
    assert template.render(messages) == ChatTemplate.from_folder(folder).render(messages)
