"""Names as people write them: a hundred spellings of machines and fifty of models.

``data/spellings.csv`` was written before the matcher. Its spellings called ``seen`` were looked at
while the matcher was made, those called ``unseen`` were not.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandweave.matching import Matcher, Named
from bandweave.models.known_models import (
    find_model,
    known_config,
    known_model,
    model_names,
    variant_names,
)
from bandweave.models.model_names import matcher_of, without_format
from bandweave.planning.machines.hardware import find_hardware, hardware_names
from bandweave.planning.machines.hardware_names import hardware_matcher
from bandweave.planning.machines.links import find_link, link_matches, link_names
from bandweave.planning.machines.tables import rows

_FILE = Path(__file__).parent / "data" / "spellings.csv"
SPELLINGS = list(csv.DictReader(_FILE.read_text("utf-8").splitlines()))


def found(row: dict[str, str]) -> str:
    try:
        if row["kind"] == "machine":
            return find_hardware(row["text"]).name
        return find_model(row["text"])
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["machine", "model"])
@pytest.mark.parametrize("half", ["seen", "unseen"])
def test_spellings_are_found(kind: str, half: str) -> None:
    asked = [row for row in SPELLINGS if row["kind"] == kind and row["half"] == half]
    assert len(asked) == {"machine": 50, "model": 25}[kind]
    wrong = {row["text"]: found(row) for row in asked if found(row) != row["name"]}
    print(f"{kind}, {half}: {len(asked) - len(wrong)} of {len(asked)}")
    assert not wrong


def test_every_name_and_title_means_itself() -> None:
    matcher = hardware_matcher()
    same = {row["name"]: row["title"] for row in rows("hardware")}
    for name, title in same.items():
        by_name = matcher.find(name)
        assert by_name is not None and same[by_name.key] == title, (name, by_name)
    for name in (*model_names(), *variant_names()):
        assert matcher_of((*model_names(), *variant_names())).find(name).key == name  # type: ignore[union-attr]
    for name in link_names():
        assert link_matches(name)[0] == name or name in link_matches(name)


def test_tables_of_names_are_of_what_is_known() -> None:
    machines = set(hardware_names())
    assert {row["name"] for row in rows("machine_names")} <= machines
    assert {row["name"] for row in rows("prices")} <= machines
    hosts = {row["host"] for row in rows("hardware")} - {""}
    assert hosts <= machines
    for row in rows("reported_memory"):
        assert find_hardware(row["name"]).name == row["name"]


@pytest.mark.parametrize(
    ("text", "near"),
    [("RTX 6000", "rtx-6000-ada"), ("rtx 3095", "rtx-309"), ("epyc 9756", "epyc-975"),
     ("strix hallo", "strix-halo"), ("M3 Ultro 512", "m3-ultra"), ("4090 mobile", "rtx-4090")],
)  # fmt: skip
def test_near_machines_are_offered(text: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no hardware is called.*did you mean.*{near}"):
        find_hardware(text)


@pytest.mark.parametrize(
    ("text", "near"),
    [("deepseek r2", "deepseek-r1"), ("lama 3.1 8b", "llama-3.1-8b"), ("qwen3 9b", "qwen3-"),
     ("gemma 4 3b", "gemma-")],
)  # fmt: skip
def test_near_models_are_offered(text: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no model is called.*did you mean.*{near}"):
        find_model(text)


@pytest.mark.parametrize(
    "text", ["", " ", "gpu", "the card", "12", "x" * 5000, "9" * 5000, "a b", "²", "m4 ²", "٣"]
)
def test_what_names_nothing_is_refused(text: str) -> None:
    for find in (find_hardware, find_model, find_link):
        with pytest.raises(ValueError, match="is called"):
            find(text)


def test_a_word_that_nobody_knows_is_never_passed_over() -> None:
    for text in ("rtx 4090 ultra", "m4 max plus", "RTX 3090 super", "strix halo 2"):
        with pytest.raises(ValueError):
            find_hardware(text)
    for text in ("llama 3.1 8b abliterated", "qwen3 8b 2606", "deepseek r1 zero"):
        with pytest.raises(ValueError):
            find_model(text)


@pytest.mark.parametrize(
    ("text", "gib"),
    [
        ("m3 ultra 512", 512), ("M3 Ultra, 512GB", 512), ("epyc 9755 1TB", 1024),
        ("9755 1.5 TB", 1536), ("epyc 9354 768 gb", 768), ("desktop ddr5 5600 48gb", 48),
        ("raspberry pi 5 4gb", 4),
    ],
)  # fmt: skip
def test_sizes(text: str, gib: int) -> None:
    found = find_hardware(text)
    assert found.memory_bytes == gib << 30
    assert found.name.endswith(f"-{gib}") or len(found.memory_options_bytes) == 1


@pytest.mark.parametrize("text", ["rtx 3090 25gb", "m4 max 512", "h100 96gb", "epyc 9354 99TB"])
def test_sizes_that_are_not_sold(text: str) -> None:
    with pytest.raises(ValueError, match="does not come with"):
        find_hardware(text)


def test_links_by_words() -> None:
    assert find_link("TB5 RDMA").name == "thunderbolt-5-rdma"
    assert find_link("Thunderbolt 5 RDMA").name == "thunderbolt-5-rdma"
    assert find_link("10 GbE").name == "ethernet-10g"
    assert find_link("10G Ethernet").name == "ethernet-10g"
    assert find_link("NVLink 4").name == "nvlink-4"
    assert find_link("InfiniBand NDR").name == "infiniband-400g"
    with pytest.raises(ValueError, match="did you mean"):
        find_link("thunderbold 5")


def test_formats_in_names() -> None:
    assert without_format("llama3.1:70b-instruct-q4_K_M")[1] == "gguf-q4_k_m"
    assert without_format("Qwen3-8B-FP8")[1] == "fp8"
    assert without_format("Qwen3-8B-4bit")[1] == "q4"
    assert without_format("qwen3-8b")[1] is None
    assert find_model("llama3.1:70b-instruct-q4_K_M") == "llama-3.1-70b"


def test_variants_have_fields_of_their_own() -> None:
    assert known_model("qwen3-30b-a3b").context_length == 40960
    for name in ("qwen3-coder-30b-a3b", "qwen3:30b-a3b-2507", "Qwen3-30B-A3B-Instruct-2507"):
        model = known_model(name)
        assert model.context_length == 262144
        assert model.layers == known_model("qwen3-30b-a3b").layers
    assert known_config("qwen3-30b-a3b")["max_position_embeddings"] == 40960
    assert known_model("kimi k2 thinking").name == "kimi-k2-thinking"


@given(st.text(max_size=60))
def test_any_text_is_found_or_refused(text: str) -> None:
    for find in (find_hardware, find_model):
        try:
            find(text)
        except ValueError as error:
            assert "\n" not in str(error)


@given(st.lists(st.sampled_from(["rtx", "3090", "ti", "nvidia", "24gb", "gpu"]), max_size=7),
       st.sampled_from([" ", "-", "_", ", ", "/"]))  # fmt: skip
def test_order_and_separators_do_not_matter(words: list[str], between: str) -> None:
    found = hardware_matcher().find(between.join(words))
    again = hardware_matcher().find(" ".join(reversed(words)))
    assert found == again
    if found is not None:
        assert found.key == ("rtx-3090-ti" if "ti" in words else "rtx-3090")
        assert "3090" in words


def test_numbers_are_never_cut_or_joined() -> None:
    matcher = Matcher(
        [Named(key="a", spellings=("gemma 3 1b",)), Named(key="b", spellings=("gemma 31b",))]
    )
    assert matcher.find("gemma 3 1b").key == "a"  # type: ignore[union-attr]
    assert matcher.find("gemma31b").key == "b"  # type: ignore[union-attr]
    assert matcher.find("gemma 3 31b") is None
    assert matcher.find("gemma 1b") is None


def test_lists_keep_to_the_maker() -> None:
    names = hardware_matcher().containing("epyc 95")
    assert names and all(name.startswith("epyc-95") for name in names)
