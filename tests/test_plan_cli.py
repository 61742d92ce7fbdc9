"""``bandweave plan`` as users call it: reports, JSON, sweeps, charts, mistakes, claims."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bandweave.cli.main import cli, explain
from bandweave.cli.plan.claims import claims_document
from bandweave.planning.claims.claims import check_claims, link_effects
from bandweave.planning.costs.software import BANDWEAVE_NAME, software_names
from bandweave.planning.profile.profile import SCHEMA_VERSION
from tests.helpers.command import bandweave

DOCS = Path(__file__).resolve().parents[1] / "docs"
ULTRAS = ("--on", "2x m3-ultra-512", "--link", "tb5-rdma")


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``plan`` in this process; what it wrote to standard output."""

    def call(*arguments: str | Path) -> str:
        capsys.readouterr()
        words = ["plan", *map(str, arguments)]
        with cli.make_context("bandweave", words) as context:
            cli.invoke(context)
        return capsys.readouterr().out

    return call


def mistake(plan: Any, *arguments: str | Path) -> str:
    """The sentence that a user's mistake ends in."""
    with pytest.raises(Exception) as caught:
        plan(*arguments)
    status, sentence = explain(caught.value)
    assert status == 2, sentence
    assert "unforeseen" not in sentence
    return sentence


def narrow(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


def test_report(plan: Any) -> None:
    text = plan("deepseek-r1", *ULTRAS, "--format", "q8", "--context", "8192")
    for words in (
        "best software today",
        "bandweave today",
        "processor only",
        "tensor split over 2 machines",
        "Limited by",
        "Other software:",
        "What would help:",
        "J per token",
        "No single machine here holds the model",
    ):
        assert words in text.replace("\n", " "), words  # fmt: skip
    assert narrow(text)


def test_json(plan: Any) -> None:
    value = json.loads(plan("llama-3.1-8b", "--on", "2x desktop-ddr5-5600", "--link",
                            "ethernet-10g", "--json"))  # fmt: skip
    for column in (value["hardware"], value["bandweave"]):
        speed = column["decode_tokens_per_s"]
        assert 0 < speed["low"] < speed["likely"] < speed["high"]
        total = sum(column["items_s"].values())
        assert total == pytest.approx(1 / speed["likely"], rel=1e-6)
        assert sum(stage["layers"] for stage in column["stages"]) == 32
        assert all(node["needed_bytes"] < node["available_bytes"] for node in column["memory"])
    assert value["model"]["runs_on_bandweave"] is True
    assert value["hardware"]["what_would_help"]["twice the memory bandwidth"] > 1


def test_a_model_that_bandweave_does_not_run_has_no_second_column(plan: Any) -> None:
    value = json.loads(plan("llama-4-maverick", *ULTRAS, "--json"))
    assert value["bandweave"] is None
    assert value["bandweave_reason"] == "does not run Llama4ForConditionalGeneration yet"
    value = json.loads(plan("deepseek-v3.2", *ULTRAS, "--json"))
    assert value["bandweave"] is None and value["model"]["runs_on_bandweave"] is True
    assert "up to 2048 tokens" in value["bandweave_reason"]
    short = ("--context", "2048", "--prompt", "1024")
    value = json.loads(plan("deepseek-v3.2", *ULTRAS, *short, "--json"))
    assert value["bandweave"]["decode_tokens_per_s"]["likely"] > 0
    value = json.loads(plan("deepseek-r1", *ULTRAS, "--json"))
    assert value["model"]["runs_on_bandweave"] is True and value["bandweave_reason"] == ""
    assert value["bandweave"]["decode_tokens_per_s"]["likely"] > 0


def test_one_machine_is_said_to_be_faster(plan: Any) -> None:
    text = plan("llama-3.1-8b", "--on", "2x rtx-4090", "--link", "wifi")
    assert "One machine is faster" in text
    assert "Left out: rtx-4090" in text


def test_compare(plan: Any) -> None:
    text = plan("deepseek-r1", *ULTRAS, "--compare", "8x dgx-spark over roce-200g", "--compare",
                "m4-max-128")  # fmt: skip
    assert "8 x dgx-spark over roce-200g" in text
    assert "C does not fit" in text and "too little" in text
    assert narrow(text)


def test_several_links_are_a_choice(plan: Any) -> None:
    value = json.loads(plan("deepseek-r1", "--on", "2x m3-ultra-512", "--link", "gbe", "--link",
                            "tb5-rdma", "--json"))  # fmt: skip
    assert value["hardware"]["link"] == "thunderbolt-5-rdma"


def test_links_of_pairs(plan: Any) -> None:
    arguments = (
        "llama-3.1-70b",
        "--on",
        "4x desktop-ddr5-5600",
        "--link",
        "wan",
        "--engine",
        "bandweave",
    )
    slow = json.loads(plan(*arguments, "--json"))
    pairs = json.loads(plan(*arguments, "--link", "1-2=roce-100g", "--link", "3-4=roce-100g",
                            "--json"))  # fmt: skip
    speeds = [each["hardware"]["decode_tokens_per_s"]["likely"] for each in (slow, pairs)]
    assert speeds[1] > 1.5 * speeds[0]


def test_several_machines_and_descriptions(plan: Any, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[attic]\nbandwidth = "204GB/s"\nmemory = "256GB"\nflops = "4TFLOP/s"\n')
    text = plan("llama-3.1-8b", "--on", "attic", "--on", "bandwidth=100GB/s,memory=64GB",
                "--hardware", own, "--link", "latency=30us,bandwidth=10Gbit/s")  # fmt: skip
    assert "attic + custom" in text
    assert "custom" in text


def test_measured_machines(plan: Any, tmp_path: Path) -> None:
    pytest.importorskip("bandweave.planning.profile.profile_rates")  # comes with `bandweave probe`
    profile = Path(__file__).resolve().parent / "data" / "profile.json"
    arguments = ("llama-3.2-1b", "--profile", profile, "--link", "10gbe")
    one, two = (
        json.loads(plan(*arguments, "--on", machines, "--json")) for machines in ("here", "2x here")
    )
    speeds = [each["bandweave"]["decode_tokens_per_s"]["likely"] for each in (one, two)]
    assert speeds[0] < speeds[1] < 2.2 * speeds[0]
    assert "your own: here" in mistake(plan, *arguments, "--on", "hear")
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"schema": SCHEMA_VERSION, "machines": {}, "links": {}}))
    assert "no machine" in mistake(plan, "qwen3-4b", "--profile", empty, "--on", "here")


def test_what_is_assumed_is_said(plan: Any) -> None:
    assert "assumed" in plan("llama-3.1-8b", "--on", "2x m4-32")


def test_objectives(plan: Any) -> None:
    for objective in ("prefill", "request"):
        value = json.loads(plan("llama-3.1-8b", "--on", "m4-32+rtx-4090", "--objective", objective,
                                "--json"))  # fmt: skip
        assert value["objective"] == objective
        assert value["hardware"]["stages"][0]["machines"] == ["rtx-4090"]


def test_models_that_fit(plan: Any) -> None:
    text = plan("--on", "m4-32")
    assert "llama-3.1-8b" in text and "Too large" in text and narrow(text)
    value = json.loads(plan("--on", "m4-32", "--json"))
    names = {row["model"]: row for row in value["models"]}
    assert "deepseek-r1" in value["do_not_fit"] and "deepseek-r1" not in names
    assert names["llama-3.1-8b"]["bandweave_decode_tokens_per_s"] > 0
    assert names["gpt-oss-20b"]["format"] == "mxfp4-experts"


@pytest.mark.parametrize("what", ["link", "nodes", "context", "format", "streams"])
def test_sweeps(plan: Any, what: str) -> None:
    arguments = ("llama-3.1-8b", "--on", "2x m4-32", "--link", "10gbe", "--sweep", what)
    text = plan(*arguments)
    assert "#" in text and narrow(text)
    points = json.loads(plan(*arguments, "--json"))["series"][0]["points"]
    speeds = [point["decode_tokens_per_s"]["likely"] for point in points if point["fits"]]
    assert len(speeds) > 4
    if what == "context":
        assert speeds == sorted(speeds, reverse=True)
    if what in ("format", "streams"):
        assert speeds == sorted(speeds)


def test_charts(plan: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for arguments in ((), ("--sweep", "nodes")):
        file = tmp_path / "chart.png"
        plan("llama-3.1-8b", "--on", "2x m4-32", "--link", "10gbe", "--chart", file, *arguments)
        assert file.read_bytes().startswith(b"\x89PNG")
        file.unlink()
    assert "end in .png" in mistake(plan, "qwen3-4b", "--on", "m4-32", "--chart", tmp_path / "x.y")


def test_charts_without_matplotlib(
    plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    sentence = mistake(plan, "qwen3-4b", "--on", "m4-32", "--chart", tmp_path / "chart.png")
    assert "bandweave[charts]" in sentence


def test_simulation(plan: Any) -> None:
    arguments = ("llama-3.1-8b", "--on", "4x m4-32", "--link", "10gbe", "--streams", "8",
                 "--simulate", "--arrivals", "0.5", "--answer", "50", "--uptime", "0.05",
                 "--repair", "0.1", "--replicas", "2", "--seconds", "100")  # fmt: skip
    text = plan(*arguments)
    assert "failures" in text and "first token" in text and narrow(text)
    first, again = (json.loads(plan(*arguments, "--json")) for _ in range(2))
    assert first == again
    assert first["tokens_per_s"] > 0 and first["failures"] > 0
    assert json.loads(plan(*arguments, "--seed", "5", "--json")) != first
    assert "bandweave today" in text and first["bandweave"]["tokens_per_s"] < first["tokens_per_s"]


def test_simulation_of_failures_in_parts(plan: Any) -> None:
    arguments = ("llama-3.1-8b", "--on", "4x m4-32", "--link", "10gbe", "--streams", "4",
                 "--simulate", "--arrivals", "0.2", "--answer", "50", "--uptime", "0.1",
                 "--repair", "1", "--seconds", "2000")  # fmt: skip
    text = plan(*arguments)
    assert narrow(text)
    for words in ("after a failure half within", "notice", "--standby-weights would spare",
                  "encrypted"):  # fmt: skip
        assert words in " ".join(text.split()), text
    found = json.loads(plan(*arguments, "--json"))
    assert found["recoveries"] and found["recovery_parts_s"]["load_s"] > 0
    standby = json.loads(plan(*arguments, "--standby-weights", "--json"))
    assert standby["recovery_parts_s"]["load_s"] == 0
    waiting = json.loads(plan(*arguments, "--no-takeover", "--json"))
    assert waiting["available"] < found["available"] and not waiting["recoveries"]
    plain = json.loads(plan(*arguments, "--no-encrypt", "--json"))
    assert found["encrypted"] and not plain["encrypted"]
    assert plain["formula_tokens_per_s"] >= found["formula_tokens_per_s"]


def test_simulation_of_a_number_of_requests(plan: Any) -> None:
    arguments = ("llama-3.1-8b", "--on", "2x m4-32", "--streams", "4", "--simulate", "--requests",
                 "12", "--answer", "20")  # fmt: skip
    assert "12 finished, 0 waiting" in plan(*arguments)
    found = json.loads(plan(*arguments, "--json"))
    assert found["requests"] == found["bandweave"]["requests"] == 12
    assert found["seconds"] < found["bandweave"]["seconds"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lama-3.1-8b", "--on", "m4"), ["lama-3.1-8b", "llama-3.1-8b"]),
        (("llama-3.1-8b", "--on", "m3ultro"), ["m3ultro", "m3-ultra"]),
        (("llama-3.1-8b", "--on", "m3-ultra-300"), ["300 GB", "512"]),
        (("llama-3.1-8b", "--on", "2x m4", "--link", "tb5-rmda"), ["tb5-rmda", "tb5-rdma"]),
        (("llama-3.1-8b", "--on", "2x m4", "--link", "1-3=wifi"), ["1 to 2"]),
        (("llama-3.1-8b", "--on", "m4", "--format", "q5"), ["q5", "q4"]),
        (("llama-3.1-8b", "--on", "m4", "--sweep", "link"), ["needs no link"]),
        (("llama-3.1-8b", "--on", "0x m4"), ["1 to 1024"]),
        (("llama-3.1-8b", "--on", "memory=3GB"), ["bandwidth"]),
        (("llama-3.1-8b", "--on", "m4", "--context", "999999999"), ["131072"]),
        (("llama-3.1-8b",), ["--on"]),
        (("nowhere/model", "--on", "m4"), ["nowhere/model"]),
        (("qwen3-4b", "--on", "m4", "--simulate", "--replicas", "2"), ["2 replicas"]),
        (("qwen3-4b", "--on", "2x m4", "--simulate", "--spare", "1"), ["--spare", "--uptime"]),
        (("qwen3-4b", "--on", "2x m4", "--simulate", "--spare", "2", "--uptime", "1"),
         ["--spare 2", "no machine"]),
        (("qwen3-4b", "--on", "2x m4", "--simulate", "--no-takeover", "--uptime", "1",
          "--load-rate", "1GB/s"), ["--no-takeover", "--load-rate"]),
        (("qwen3-4b", "--on", "m4", "--simulate", "--uptime", "1", "--load-rate", "0GB/s"),
         ["--load-rate"]),
        (
            ("deepseek-r1", "--on", "m3-ultra-512", "--format", "q8"),
            ["GiB too little", "in q4", "with 1 more m3-ultra-512"],
        ),
        (
            ("llama-3.1-8b", "--on", "m4-16", "--format", "q8", "--streams", "8", "--context",
             "32768"), ["too little", "with a context of"],
        ),
    ],
)  # fmt: skip
def test_mistakes(plan: Any, arguments: tuple[str, ...], words: list[str]) -> None:
    sentence = mistake(plan, *arguments)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def test_exit_status() -> None:
    outcome = bandweave("plan", "lama-3.1-8b", "--on", "m4")
    assert outcome.status == 2 and outcome.out == ""
    assert outcome.err.startswith("bandweave: no model is called") and outcome.err.count("\n") == 1
    assert bandweave("plan", "qwen3-4b", "--on", "m4").status == 0


def test_the_planner_needs_no_native_code() -> None:
    """It runs where bandweave's engine does not."""
    code = (
        "import sys; sys.modules['bandweave._native'] = None\n"
        "from bandweave.cli.main import run\n"
        "sys.exit(run(['plan', 'qwen3-4b', '--on', 'm4']))"
    )
    source = str(Path(__file__).resolve().parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": source},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_claims_document_is_true() -> None:
    """`bandweave plan --claims > docs/claims.md` makes it anew."""
    assert (DOCS / "claims.md").read_text("utf-8") == claims_document()


def test_claims() -> None:
    claims = {claim.number: claim for claim in check_claims()}
    assert sorted(claims) == list(range(1, 15))
    assert claims[8].verdict == "false"
    assert claims[1].verdict == "false"
    assert claims[5].verdict == "half true"
    assert all(claim.command.startswith("bandweave ") for claim in claims.values())


def test_commands_of_claims_run(plan: Any) -> None:
    for claim in check_claims():
        words = _words(claim.command)
        if claim.number == 5:  # that it does not fit is what comes out
            assert "too little" in mistake(plan, *words[2:])
        elif words[1] == "plan":
            assert plan(*words[2:]), claim.command


@pytest.mark.late  # test_cli's bench says the same
def test_weights_and_kv_do_not_cross() -> None:
    """Claims 4 and 6, measured."""
    outcome = bandweave("bench", "demo", "--nodes", "2", "--prompt-tokens", "8", "--new-tokens",
                          "4", "--json")  # fmt: skip
    crossing = outcome.json["wire_bytes_per_token"]
    assert crossing["weights"] == 0 and crossing["kv"] == 0 and crossing["activations"] > 0


def test_latency_decides() -> None:
    wide, narrow_link, slow, _ = (effect.tokens_per_s for effect in link_effects())
    assert narrow_link > 0.9 * wide
    assert slow < 0.6 * wide


def _words(command: str) -> list[str]:
    return shlex.split(command)


@pytest.mark.parametrize("page", ["README.md", "docs/planning.md"])
def test_examples_in_documents_are_what_comes_out(plan: Any, page: str) -> None:
    text = (DOCS.parent / page).read_text("utf-8")
    blocks = text.split("```\n$ bandweave plan ")[1:]
    assert blocks
    for block in blocks:
        command, _, shown = block.partition("\n")
        assert plan(*_words(command)).rstrip() == shown.partition("\n```")[0], command


def test_names_as_people_write_them(plan: Any) -> None:
    text = plan("Qwen/Qwen3-8B", "--on", "Ryzen AI Max+ 395 128GB + RTX 4090", "--link", "10 GbE")
    assert "qwen3-8b in q4" in text and "strix-halo-128 + rtx-4090" in text
    value = json.loads(plan("llama3.1:70b-instruct-q4_K_M", "--on", "2x 3090", "--json"))
    assert value["format"] == "gguf-q4_k_m" and value["machines"] == ["rtx-3090", "rtx-3090"]
    assert "demo" in plan("demo", "--on", "2x raspberry pi 5")
    assert "llama-3.1-8b" in plan("llama", "3.1", "8b", "--on", "m4")


def test_known_machines_with_fields_of_ones_own(plan: Any, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[epyc-9755-12ch]\nprice = 12000\n[attic]\nlike = "EPYC 7702"\nmemory = "512GB"\n'
    )
    asked = ("deepseek-r1", "--json", "--on")
    for arguments in (
        ("epyc-9755-12ch,price=12000",),
        ("EPYC 9755", "--hardware", "epyc-9755-12ch,price=12000"),
        ("EPYC 9755", "--hardware", own),
    ):
        value = json.loads(plan(*asked, *arguments))
        assert value["machines"] == ["epyc-9755-12ch"]
        assert value["hardware"]["price_usd"] == 12000
    value = json.loads(plan("llama-3.1-8b", "--json", "--on", "attic", "--hardware", own))
    available = value["hardware"]["memory"][0]["available_bytes"]
    assert 440 << 30 < available < 512 << 30
    assert "'colour' is no field" in mistake(plan, *asked, "epyc-9755-12ch,colour=red")
    assert "no hardware is called" in mistake(plan, *asked, "epyc-9756,price=1")


def test_lists(plan: Any) -> None:
    for kind in ("machines", "links", "models", "engines"):
        assert narrow(plan("--list", kind))
        least = 5 if kind == "engines" else 10
        assert len(json.loads(plan("--list", kind, "--json"))[kind]) > least
    assert "epyc-9575f-12ch" in plan("--list", "machines", "epyc", "9575F")
    assert "m3-ultra-512" in plan("--list", "machines", "Mac Studio M3 Ultra 512")
    assert "qwen3-8b" in plan("--list", "models", "Qwen/Qwen3-8B")
    assert "thunderbolt-5-rdma" in plan("--list", "links", "thunderbolt 5")
    assert "did you mean" in mistake(plan, "--list", "machines", "rtx 4095")
    assert "no engine is called" in mistake(plan, "--list", "engines", "nothing")
    named = json.loads(plan("--list", "engines", "--json"))["engines"]
    assert [one["name"] for one in named] == [*software_names(), BANDWEAVE_NAME]
    assert "leave out --engine" in mistake(plan, "--list", "engines", "--engine", "mlx")


def test_this_machine_has_to_be_measured_first(
    plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDWEAVE_PROFILE", str(tmp_path / "none.json"))
    assert "run `bandweave probe`" in mistake(plan, "llama-3.2-1b", "--on", "here")
    profile = Path(__file__).resolve().parent / "data" / "profile.json"
    monkeypatch.setenv("BANDWEAVE_PROFILE", str(profile))
    value = json.loads(plan("llama-3.2-1b", "--on", "2x here", "--json"))
    assert value["machines"] == ["here", "here"]


def test_what_memory_asks_for_is_said(plan: Any) -> None:
    text = plan("deepseek-r1", "--on", "m3-ultra-512", "--format", "gguf-q5_k_m")
    assert "iogpu.wired_limit_mb" in text.replace("\n", " ")
    text = plan("llama-3-70b", "--on", "2x rtx-3090", "--link", "pcie-4", "--format", "gguf-q4_k_m",
                "--context", "256")  # fmt: skip
    assert "fullest memory, GiB" in text and "used, 2026-" in text.replace("\n", " ")


def test_numbers_as_people_write_them(plan: Any) -> None:
    text = plan("kimi-k2", "--on", "2x m3-ultra-512", "--link", "tb5-rdma")
    assert "1.03 T parameters" in text and "e+" not in text
    text = plan("llama-3.1-8b", "--on", "m4-max-128", "--context", "131072", "--prompt", "100000")
    assert " min" in text and "e+" not in text
