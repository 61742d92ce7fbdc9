"""End tokens, stop strings and first spaces, as users of the commands meet them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from bandweave.checkpoints.resolve import demo_folder
from tests.helpers.command import bandweave
from tests.test_checkpoints import CONFIG, random_tensors, write_folder
from tests.transformers_reference import token_cases

QUESTION = ("--prompt", "What is 17 + 25?", "--max-tokens", "60")
END, MARK = "<|end|>", "\N{LOWER ONE EIGHTH BLOCK}"


@pytest.fixture(scope="module")
def answer() -> Any:
    return bandweave("run", "demo", *QUESTION, "--json").json


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The demo, to be changed."""
    return Path(shutil.copytree(demo_folder(), tmp_path / "model"))


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def call_ordinary(model: Path) -> None:
    """Lets tokenizer.json call the end token no special one."""

    def change(content: Any) -> None:
        for token in content["added_tokens"]:
            token["special"] = token["special"] and token["content"] != END

    edit(model / "tokenizer.json", change)


def name_no_end(model: Path) -> None:
    """Lets no file name an end token."""
    for name in ("config.json", "generation_config.json"):
        edit(model / name, lambda content: content.update(eos_token_id=None))
    edit(model / "tokenizer_config.json", lambda content: content.pop("eos_token"))


def test_an_end_token_is_not_printed_whoever_names_it(model: Path, answer: Any) -> None:
    call_ordinary(model)
    edit(model / "tokenizer_config.json", lambda content: content.pop("added_tokens_decoder"))
    assert bandweave("run", model, *QUESTION, "--json").json["text"] == answer["text"]
    edit(model / "tokenizer_config.json", lambda content: content.pop("eos_token"))
    by_config = bandweave("run", model, *QUESTION, "--json").json
    assert (by_config["text"], by_config["tokens"]) == (answer["text"], answer["tokens"])
    questions = "What is 17 + 25?\nWhat is 3 + 4?\n"
    first, second = (bandweave("chat", one, text=questions) for one in ("demo", model))
    assert END not in second.out and second.out == first.out  # so the history was the same


def test_a_stop_string_may_be_a_special_token(model: Path, answer: Any) -> None:
    name_no_end(model)
    endless = bandweave("run", model, *QUESTION, "--json").json
    assert endless["finish_reason"] == "length" and len(endless["tokens"]) == 60
    for nodes in ("1", "2"):
        found = bandweave("run", model, *QUESTION, "--stop", END, "--nodes", nodes, "--json").json
        assert (found["text"], found["tokens"]) == (answer["text"], answer["tokens"])
        assert found["finish_reason"] == "stop"
        assert found["logits_digest"] == answer["logits_digest"]
    longer = answer["text"][-3:] + END
    found = bandweave("run", model, *QUESTION, "--stop", longer, "--json").json
    assert found["text"] == answer["text"][:-3] and found["tokens"] == answer["tokens"]


def test_a_completion_keeps_its_first_space(tmp_path: Path) -> None:
    """Of a model that marks spaces as Llama 2's does: prompt and answer are one text."""
    content = token_cases.tokenizer_json("marked", [True] * len(token_cases.OWN))
    vocab = content["model"]["vocab"]
    vocab.pop(MARK + "so")
    words = [MARK, *"abcdefghi", "ab", *(MARK + letter for letter in "abcd")]
    vocab |= {word: 265 + index for index, word in enumerate(words)}
    content["model"]["merges"] = [["a", "b"], *([MARK, letter] for letter in "abcd")]
    model = write_parrot(tmp_path / "model", len(vocab), vocab[MARK + "b"])
    (model / "tokenizer.json").write_text(json.dumps(content))
    (model / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    for prompt in ("a", "c d", "h"):
        given = ("--prompt", prompt, "--max-tokens", "3", "--json")
        assert bandweave("run", model, *given, "--raw").json["text"] == " b b b"
        assert bandweave("run", model, *given).json["text"] == "b b b"


def write_parrot(path: Path, vocab_size: int, token: int) -> Path:
    """A model that always says one token."""
    config = {**CONFIG, "vocab_size": vocab_size, "eos_token_id": None}
    tensors = random_tensors(config)
    for name, tensor in tensors.items():
        tensor[...] = 0 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
    tensors["lm_head.weight"][...] = 0
    tensors["lm_head.weight"][token] = 1
    return write_folder(path, config, tensors)


def test_a_folder_whose_name_is_not_utf_8(model: Path) -> None:
    named = model.with_name(os.fsdecode(b"m\xff\n"))
    model.rename(named)
    done = bandweave("run", named, *QUESTION, "--json")
    assert done.status == 0 and done.json["model"].endswith("m\\xff\\n")
    (named / "config.json").write_text("[")
    done = bandweave("run", named, *QUESTION)
    assert done.status == 2 and len(done.err.splitlines()) == 1
    assert "m\\xff\\n/config.json is no valid JSON" in done.err
