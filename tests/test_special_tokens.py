"""Which tokens there are, which end an answer, and which are never text, by all files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bandweave.synth.tokenizer import tokenizer_json
from bandweave.text.chat_template import ChatTemplate
from bandweave.text.end_tokens import end_token_ids
from bandweave.text.files import TextError
from bandweave.text.tokenizer import Tokenizer
from tests.transformers_reference import token_cases

END, USER = 257, 258  # "<|end|>", "<|user|>"
ANSWER = [*b"Yes", END]


def make_folder(path: Path, files: Mapping[str, Any], *, special: bool = True) -> Path:
    """A byte-level tokenizer of 300 tokens, whose end token tokenizer.json calls special or not,
    with other files."""
    content = tokenizer_json(300)
    content["added_tokens"][1]["special"] = special
    for name, value in {"tokenizer.json": content, **files}.items():
        (path / name).write_text(json.dumps(value))
    return path


def shown(tokenizer: Tokenizer, tokens: list[int], stop: tuple[str, ...] = ()) -> str:
    stream = tokenizer.stream(stop)
    return "".join(stream.push(token) for token in tokens) + stream.flush()


# --- transformers' own ---


@pytest.mark.parametrize("number", range(token_cases.COUNT))
def test_tokens_are_those_of_transformers(tmp_path: Path, number: int) -> None:
    case = token_cases.stored()[number]
    config, result = case["files"].get("tokenizer_config.json", {}), case["result"]
    if result["class"] != "TokenizersBackend" and "added_tokens_decoder" in config:
        # Classes that build their tokenizer anew forget what this list lacks of tokenizer.json.
        listed = {token["content"] for token in config["added_tokens_decoder"].values()}
        assert not listed >= set(token_cases.OWN)
        return
    token_cases.write(tmp_path, case)
    tokenizer = Tokenizer.from_folder(tmp_path)
    for identifier, text in result["added"].items():
        assert tokenizer.id_to_token(int(identifier)) == text
    assert tokenizer.size == 1 + max(*map(int, result["added"]), 255 + 7 + 3)
    assert tokenizer.named_tokens == result["named"]
    assert tokenizer.bos_token_id == result["bos"]
    ends = {*result["ends"], result["eos"]} - {None}
    if ends == {2, result["eos"]}:  # the family's default: here only where nobody names another
        ends = {result["eos"]} - {None} or {2}
    assert ends <= set(tokenizer.eos_token_ids)
    for text, tokens in zip(token_cases.ENCODED, result["encoded"], strict=True):
        assert tokenizer.encode(text, special_tokens=False) == tokens
    for tokens, text in zip(token_cases.DECODED, result["decoded"], strict=True):
        assert tokenizer.decode(tokens) == text
        if "\ufffd" not in text:  # of bytes that are no text a stream may show more
            assert shown(tokenizer, tokens) == text


# --- tokens that end an answer ---


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": {"eos_token": "<|end|>"}},
        {"tokenizer_config.json": {"eos_token": {"__type": "AddedToken", "content": "<|end|>"}}},
        {"tokenizer_config.json": {"eos_token": {"content": "<|end|>", "lstrip": False}}},
        {"tokenizer_config.json": {"eos_token": "<|end|>", "added_tokens_decoder": {}}},
        {"special_tokens_map.json": {"eos_token": "<|end|>"}},
        {"special_tokens_map.json": {"eos_token": {"content": "<|end|>", "normalized": False}}},
        {"config.json": {"eos_token_id": END}},
        {"config.json": {"eos_token_id": [3, END]}},
        {"generation_config.json": {"eos_token_id": END}},
        {"generation_config.json": {"eos_token_id": [END]}, "config.json": {"eos_token_id": 4}},
    ],
)
@pytest.mark.parametrize("special", [True, False])
def test_whoever_names_an_end_token_it_is_never_text(
    tmp_path: Path, files: Mapping[str, Any], special: bool
) -> None:
    tokenizer = Tokenizer.from_folder(make_folder(tmp_path, files, special=special))
    assert END in tokenizer.eos_token_ids
    assert shown(tokenizer, ANSWER) == "Yes"
    assert tokenizer.decode(ANSWER) == "Yes"
    assert tokenizer.decode(ANSWER, skip_special_tokens=False) == "Yes<|end|>"


def test_a_token_that_nobody_calls_special_is_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(make_folder(tmp_path, {}, special=False))
    assert shown(tokenizer, ANSWER) == "Yes<|end|>"
    assert tokenizer.eos_token_ids == ()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ()),
        ({"config.json": {"eos_token_id": 5}}, (5,)),
        ({"config.json": {"eos_token_id": None}}, ()),
        ({"config.json": {"eos_token_id": [7, 5, 300, -1]}}, (5, 7)),  # no token of the model
        ({"config.json": {"eos_token_id": 3}, "generation_config.json": {"eos_token_id": [5]}},
         (3, 5)),
        # The classes of these families have an end token of their own.
        ({"config.json": {"model_type": "llama"}}, (2,)),
        ({"config.json": {"architectures": ["MistralForCausalLM"]}}, (2,)),
        ({"config.json": {"model_type": "llama", "eos_token_id": None}}, ()),
        ({"config.json": {"model_type": "llama"}, "generation_config.json": {}}, ()),
        ({"config.json": {"model_type": "qwen3"}}, ()),
        ({"config.json": {"model_type": "llama"},
          "tokenizer_config.json": {"eos_token": "<|end|>"}}, (END,)),
    ],
)  # fmt: skip
def test_end_tokens_of_the_configs(
    tmp_path: Path, files: Mapping[str, Any], expected: tuple[int, ...]
) -> None:
    folder = make_folder(tmp_path, files)
    if "tokenizer_config.json" not in files:
        assert end_token_ids(folder, 300) == expected
    assert Tokenizer.from_folder(folder, vocab_size=300).eos_token_ids == expected


def test_older_files_and_newer_ones(tmp_path: Path) -> None:
    """special_tokens_map.json outweighs the names in tokenizer_config.json, unless that lists the
    added tokens."""
    files: dict[str, Any] = {
        "tokenizer_config.json": {"eos_token": "<|end|>", "pad_token": "<|begin|>"},
        "special_tokens_map.json": {"eos_token": "<|user|>"},
    }
    tokenizer = Tokenizer.from_folder(make_folder(tmp_path, files))
    assert tokenizer.eos_token_ids == (USER,)
    assert tokenizer.named_tokens == {"eos_token": "<|user|>", "pad_token": "<|begin|>"}
    files["tokenizer_config.json"]["added_tokens_decoder"] = {}
    assert Tokenizer.from_folder(make_folder(tmp_path, files)).eos_token_ids == (END,)


# --- tokens that only one file names ---


@pytest.mark.parametrize(
    ("files", "special"),
    [
        ({"tokenizer_config.json": {"pad_token": "<new>"}}, True),
        ({"tokenizer_config.json": {"think_token": "<new>"}}, True),
        ({"tokenizer_config.json": {"additional_special_tokens": ["<new>"]}}, True),
        ({"tokenizer_config.json": {"extra_special_tokens": ["<new>"]}}, True),
        ({"tokenizer_config.json": {"extra_special_tokens": {"image": "<new>"}}}, True),
        ({"tokenizer_config.json": {
            "added_tokens_decoder": {"300": {"content": "<new>", "special": True}}}}, True),
        ({"tokenizer_config.json": {
            "added_tokens_decoder": {"300": {"content": "<new>", "special": False}}}}, False),
        ({"special_tokens_map.json": {"additional_special_tokens": ["<new>"]}}, True),
        ({"special_tokens_map.json": {"unk_token": "<new>"}}, True),
        ({"added_tokens.json": {"<new>": 300}}, False),
        ({"added_tokens.json": {"<new>": 300},
          "special_tokens_map.json": {"pad_token": "<new>"}}, True),
    ],
)  # fmt: skip
def test_tokens_that_only_one_file_names(
    tmp_path: Path, files: Mapping[str, Any], special: bool
) -> None:
    folder = make_folder(tmp_path, files)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=310)
    assert tokenizer.encode("a<new>b", special_tokens=False) == [97, 300, 98]
    assert shown(tokenizer, [97, 300, 98]) == ("ab" if special else "a<new>b")
    assert shown(tokenizer, [97, 300, 98], ("<new>",)) == "a"
    # A model without a row for it never chooses it, and a prompt must not have it.
    small = Tokenizer.from_folder(folder, vocab_size=300)
    assert small.encode("a<new>b", special_tokens=False) == [*b"a<new>b"]


def test_class_tokens(tmp_path: Path) -> None:
    """A class of tokenizers names tokens itself, where the files do not and the tokenizer has
    them."""
    content = tokenizer_json(300)
    content["added_tokens"][1]["content"] = "<|endoftext|>"
    content["added_tokens"][1]["special"] = False
    content["model"]["vocab"]["<|endoftext|>"] = content["model"]["vocab"].pop("<|end|>")
    files = {"tokenizer_config.json": {"tokenizer_class": "Qwen2TokenizerFast"}}
    folder = make_folder(tmp_path, {**files, "tokenizer.json": content})
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.eos_token_ids == (END,)
    assert shown(tokenizer, ANSWER) == "Yes"
    folder = make_folder(tmp_path, files)  # which lacks that token
    assert Tokenizer.from_folder(folder).eos_token_ids == ()
    assert Tokenizer.from_folder(folder).size == 300


def test_templates_know_the_same_tokens(tmp_path: Path) -> None:
    template = "{{ bos_token }}|{{ eos_token }}|{{ image_token }}|{{ unk_token }}"
    files = {
        "tokenizer_config.json": {
            "bos_token": "<|begin|>", "image_token": "<|user|>", "chat_template": template,
        },
        "special_tokens_map.json": {"eos_token": {"content": "<|end|>"}},
    }  # fmt: skip
    folder = make_folder(tmp_path, files)
    tokens = Tokenizer.from_folder(folder).named_tokens
    for chat in (ChatTemplate.from_folder(folder), ChatTemplate.from_folder(folder, tokens=tokens)):
        assert chat.render([{"role": "user", "content": "x"}]) == "<|begin|>|<|end|>|<|user|>|"


# --- stop strings ---


@pytest.mark.parametrize(
    ("stop", "expected"),
    [("<|user|>", "Yes"), ("s<|user|>", "Ye"), ("s<|user|>N", "Ye"), ("<|user|>No", "Yes"),
     ("user", "YesNo"), ("<|end|>", "YesNo"), ("sN", "Ye")],
)  # fmt: skip
def test_stop_strings_may_name_special_tokens(tmp_path: Path, stop: str, expected: str) -> None:
    tokenizer = Tokenizer.from_folder(make_folder(tmp_path, {}))
    tokens = [*b"Yes", USER, *b"No"]
    stream = tokenizer.stream([stop])
    text = ""
    for token in tokens:
        text += stream.push(token)
        if token == USER and stop == "<|user|>":
            assert stream.finished  # with that very token
    assert text + stream.flush() == expected
    assert stream.stopped_by == (None if expected == "YesNo" else stop)


# --- files that are refused ---


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("tokenizer_config.json", {"eos_token": 3}, "eos_token"),
        ("tokenizer_config.json", {"eos_token": ["<|end|>"]}, "eos_token"),
        ("tokenizer_config.json", {"eos_token": {"text": "x"}}, "eos_token"),
        ("tokenizer_config.json", {"eos_token": "\ud800"}, "eos_token"),
        ("tokenizer_config.json", {"image_token": {"content": 3}}, "image_token"),
        ("tokenizer_config.json", {"additional_special_tokens": "x"}, "special_tokens"),
        ("tokenizer_config.json", {"extra_special_tokens": [3]}, "extra_special_tokens"),
        ("tokenizer_config.json", {"extra_special_tokens": {"x": None}}, "x"),
        ("tokenizer_config.json", {"added_tokens_decoder": []}, "added_tokens_decoder"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": "x"}}, "added_tokens_decoder"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9" * 50: {}}}, "added_tokens"),
        ("special_tokens_map.json", {"bos_token": 3}, "bos_token"),
        ("special_tokens_map.json", ["x"], "must be a JSON object"),
        ("added_tokens.json", {"<x>": "3"}, "<x>"),
        ("added_tokens.json", {"<x>": -1}, "<x>"),
        ("config.json", {"eos_token_id": "</s>"}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": [True]}, "eos_token_id"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: Any, part: str) -> None:
    folder = make_folder(tmp_path, {name: content})
    with pytest.raises(TextError) as caught:
        Tokenizer.from_folder(folder)
    assert name in str(caught.value) and part in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_panics_of_the_library_are_sentences(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tokenizer_json(300)
    broken["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    folder = make_folder(tmp_path, {"tokenizer.json": broken})
    with pytest.raises(TextError, match=r"tokenizer.json cannot be used: .*charsmap"):
        Tokenizer.from_folder(folder)
    late = tokenizer_json(300)
    late["post_processor"]["single"].append({"SpecialToken": {"id": "<none>", "type_id": 0}})
    with pytest.raises(TextError, match=r"tokenizer.json cannot be used: .*download"):
        Tokenizer.from_folder(make_folder(tmp_path, {"tokenizer.json": late}))
    assert capfd.readouterr().err == ""


def test_a_vocabulary_of_a_few_words(tmp_path: Path) -> None:
    """Without a token for unknown words, texts of others are refused one by one."""
    words = {"yes": 0, "no": 1, "</s>": 2}
    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }  # fmt: skip
    tokenizer = Tokenizer.from_folder(make_folder(tmp_path, {"tokenizer.json": content}))
    assert tokenizer.encode("yes no") == [0, 1]
    with pytest.raises(TextError, match="cannot be encoded"):
        tokenizer.encode("maybe")
