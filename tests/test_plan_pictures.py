"""Pictures and the page: what they hold, that they are whole files, and that nothing is fetched."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from benchmarks.published import TABLE, published_table

from bandweave.cli.plan.answer import answer_setups
from bandweave.cli.plan.pictures.figure import tokens_label
from bandweave.cli.plan.pictures.overview import speed_bars
from bandweave.cli.plan.pictures.sweeps import sweep_bars
from bandweave.cli.plan.setup import parse_machines, parse_model, question_of
from bandweave.cli.plan.sweep import sweep_series
from bandweave.planning.search.layout import Question
from bandweave.planning.search.published import published_for, published_sentence
from tests.helpers.plan_command import PlanCommand

pytest.importorskip("matplotlib")

PAIR = ("--on", "2x m4-max-128", "--link", "tb5-rdma")
VALUES = {"context": None, "prompt": None, "answer": 512, "streams": 1, "objective": "decode"}


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> PlanCommand:
    return PlanCommand(capsys)


def question(model: str, format_name: str = "q4") -> Question:
    return question_of(parse_model(model), format_name, VALUES)


@pytest.mark.parametrize(
    "arguments",
    [
        ("llama-3.1-8b", *PAIR),
        ("llama-3.1-8b", *PAIR, "--compare", "m4-16", "--compare", "rtx-4090"),
        ("llama-3.1-70b", *PAIR, "--compare", "m4-16", "--objective", "request"),
        ("llama-3.1-8b", *PAIR, "--sweep", "link"),
        ("llama-3.1-8b", *PAIR, "--sweep", "streams", "--compare", "rtx-4090"),
        ("llama-3.1-8b", *PAIR, "--users", "3", "--turns", "4", "--reuse"),
        ("llama-3.1-8b", *PAIR, "--simulate", "--requests", "3", "--answer", "20"),
        ("--on", "m4-16"),
    ],
)
def test_every_answer_can_be_drawn(
    plan: PlanCommand, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "picture.svg"
    plan(*arguments, "--chart", path)
    assert f"drew {path}" in plan.remarks
    root = ElementTree.fromstring(path.read_text("utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and len(list(root.iter())) > 100
    first = path.read_bytes()
    plan(*arguments, "--chart", path)
    assert path.read_bytes() == first


def test_kinds_of_files(plan: PlanCommand, tmp_path: Path) -> None:
    for suffix, begin in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")):
        path = tmp_path / f"picture{suffix}"
        plan("qwen3-4b", "--on", "m4-16", "--chart", path)
        assert path.read_bytes().startswith(begin)


def test_compared_setups_are_in_one_picture() -> None:
    machines = [parse_machines([on], [], {}) for on in ("2x m4-max-128", "m4-16", "rtx-5090")]
    bars = speed_bars(answer_setups(question("llama-3.1-70b"), machines))
    named = [bar for bar in bars if not bar.today]
    assert [bar.label[:2] for bar in named] == ["A:", "B:", "C:"]
    assert named[0].span is not None and named[1].span is None


def test_a_link_sweep_has_one_machine_as_its_line() -> None:
    there = parse_machines(["2x m4-max-128"], [], {})
    series = sweep_series("link", question("llama-3.1-70b"), there)
    assert series.alone is not None and series.alone.name == "m4-max-128"
    bars = {bar.label: bar for bar in sweep_bars(series)}
    wifi, cable = bars["wifi-6"].span, bars["thunderbolt-5-rdma"].span
    assert wifi is not None and cable is not None
    assert wifi.likely == pytest.approx(series.alone.value)
    assert cable.likely > series.alone.value


@pytest.mark.parametrize(
    ("count", "label"),
    [(512, "512"), (1024, "1k"), (32768, "32k"), (1 << 20, "1M"), (1500, "1500")],
)
def test_ticks(count: int, label: str) -> None:
    assert tokens_label(count) == label


def test_published_measurements_are_found() -> None:
    assert TABLE.read_text("utf-8") == published_table(), "make documents writes it"
    asked = question("llama-3.1-70b", "gguf-q4_k_m")
    pair = parse_machines(["2x rtx-3090"], [], {})
    found = published_for(asked.model, asked.weights, pair.hardware)
    assert any(row.machines == "2 x rtx-3090" for row in found)
    assert "tokens/s (" in published_sentence(found, 1, 4096)
    assert not published_for(asked.model, asked.weights, pair.hardware[:1] * 7)
    mixed = parse_machines(["rtx-3090 + rtx-4090"], [], {})
    assert not published_for(asked.model, asked.weights, mixed.hardware)


class _Page(HTMLParser):
    """Counts elements; keeps what would be fetched, and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.fetched.append(value)
            if name == "id" and value:
                self.ids.append(value)


def read(path: Path) -> tuple[str, _Page]:
    text = path.read_text("utf-8")
    page = _Page()
    page.feed(text)
    return text, page


def test_the_page_stands_alone(plan: PlanCommand, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    plan("llama-3.1-70b", *PAIR, "--compare", "m4-16", "--users", "2", "--turns", "3", "--reuse",
         "--html", path)  # fmt: skip
    text, page = read(path)
    assert page.tags["svg"] == 3 and page.tags["table"] >= 3 and page.tags["h1"] == 1
    assert not page.fetched and "@import" not in text and "<script" not in text
    assert len(page.ids) == len(set(page.ids))
    for words in ("What would help", "does not fit", "Predicted, not measured", "Turn by turn"):
        assert words in text


def test_names_in_the_page_are_text(plan: PlanCommand, tmp_path: Path) -> None:
    own, path = tmp_path / "own.toml", tmp_path / "page.html"
    own.write_text('["<b>&x"]\nbandwidth = "204GB/s"\nmemory = "256GB"\nflops = "4TFLOP/s"\n')
    plan("qwen3-4b", "--on", "<b>&x", "--hardware", own, "--html", path)
    text, page = read(path)
    assert "b" not in page.tags and "&lt;b&gt;&amp;x" in text


def test_a_sweep_is_in_the_page(plan: PlanCommand, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    plan("qwen3-4b", "--on", "m4-16", "--sweep", "context", "--html", path)
    text, page = read(path)
    assert "By context" in text and page.tags["svg"] == 2
