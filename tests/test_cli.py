"""The commands as users run them: real processes, their output, exit statuses and leftovers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bandweave import NUMERICS_VERSION, __version__, _native
from bandweave.checkpoints.resolve import demo_folder
from bandweave.cli.main import COMMANDS, cli
from bandweave.host import machine
from tests.helpers.command import bandweave, lines_of, sentence, start_command, start_on_terminal

QUESTION = "What is 17 + 25?"
SHORT = ("--prompt", QUESTION, "--max-tokens", "60")
PLAN_FIELDS = {"stage", "layers", "heads", "kv_heads", "columns", "vocabulary", "weight_bytes",
               "kv_bytes", "threads", "isa", "name"}  # fmt: skip


def run_json(*arguments: str | Path) -> Any:
    return bandweave("run", *arguments, "--json").json


@pytest.fixture(scope="module")
def alone() -> Any:
    """The answer of one node."""
    return run_json("demo", *SHORT)


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that goes on for many seconds."""
    folder = tmp_path_factory.mktemp("long") / "model"
    sizes = ("--layers", "8", "--hidden", "512", "--heads", "8", "--kv-heads", "4",
             "--intermediate", "1536", "--context", "40000")  # fmt: skip
    done = bandweave("synth", "tiny", folder, *sizes)
    assert done.status == 0, done.err
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the demo model, to be damaged."""
    return Path(shutil.copytree(demo_folder(), tmp_path / "model"))


# --- the group ---


def test_version() -> None:
    done = bandweave("--version")
    expected = f"bandweave {__version__} (numerics version {NUMERICS_VERSION})\n"
    assert (done.status, done.out, done.err) == (0, expected, "")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help(name: str) -> None:
    done = CliRunner().invoke(cli, [*name.split(), "--help"], terminal_width=80)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80


# --- run ---


def test_run_json(alone: Any) -> None:
    assert {"text", "tokens", "logits_digest", "plan", "timing", "finish_reason"} <= alone.keys()
    assert alone["numerics_version"] == NUMERICS_VERSION
    assert alone["prompt_tokens"] > 0 and 0 < len(alone["tokens"]) <= 60
    assert re.fullmatch("[0-9a-f]{64}", alone["logits_digest"])
    (node,) = alone["plan"]["nodes"]
    assert node.keys() >= PLAN_FIELDS
    assert node["heads"] == [0, 8] and node["weight_bytes"] > 1e6
    assert {"stages", "format", "kv_format", "context"} <= alone["plan"].keys()
    timing = alone["timing"]
    assert timing["prefill_seconds"] > 0 and timing["decode_tokens_per_s"] > 0
    assert timing["sampling_seconds"] >= 0
    assert set(alone["wire_bytes_per_token"].values()) == {0.0}


@pytest.mark.parametrize(
    "split",
    [
        "--nodes 2",
        "--nodes 3",
        "--shares 3,2,1 --stages 2",
        "--nodes 2 --stages 2",
        "--nodes 1 --threads 2",
        "--shares 1,2.5 --threads 2",
    ],
)
def test_run_gives_one_answer(alone: Any, split: str) -> None:
    found = run_json("demo", *SHORT, *split.split())
    for field in ("text", "tokens", "logits_digest", "finish_reason"):
        assert found[field] == alone[field]


@pytest.mark.parametrize("formats", ["--format q8 --kv f32", "--format bf16"])
def test_formats_have_answers_of_their_own(alone: Any, formats: str) -> None:
    one = run_json("demo", *SHORT, *formats.split())
    two = run_json("demo", *SHORT, *formats.split(), "--shares", "2,1")
    assert one["logits_digest"] == two["logits_digest"] != alone["logits_digest"]


def test_run_bill(alone: Any) -> None:
    found = run_json("demo", *SHORT, "--nodes", "2")
    wire = found["wire_bytes_per_token"]
    assert wire["activations"] > 0 and wire["weights"] == wire["kv"] == 0
    assert len(found["bill"]["nodes"]) == 2
    for node in found["bill"]["nodes"]:
        items = [value for key, value in node.items() if key not in ("name", "wall")]
        assert min(items) >= 0 and sum(items) == pytest.approx(node["wall"], rel=0.02)
    assert found["weight_bytes_per_token"] == pytest.approx(
        alone["weight_bytes_per_token"], rel=0.05
    )


def test_text_streams_to_standard_output(alone: Any) -> None:
    done = bandweave("run", "demo", *SHORT)
    assert (done.status, done.out) == (0, alone["text"] + "\n")
    (summary,) = lines_of(done.err)
    assert "tokens/s" in summary and "1 node" in summary


def test_verbose_shows_plan_and_bill() -> None:
    done = bandweave("run", "demo", *SHORT, "--nodes", "2", "--verbose")
    assert done.status == 0
    for word in ("KV heads", "vocabulary", "attention", "sampling", "weights 0, KV 0"):
        assert word in done.err
    assert max(map(len, done.err.splitlines())) <= 80


def test_prompts_from_file_and_standard_input(alone: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(QUESTION + "\n", encoding="utf-8")
    for given in (
        bandweave("run", "demo", "--json", "--max-tokens", "60", text=QUESTION + "\n"),
        bandweave("run", "demo", "--json", "--max-tokens", "60", "--prompt-file", file),
    ):
        assert given.json["logits_digest"] == alone["logits_digest"]


def test_raw_prompts_are_not_wrapped(alone: Any) -> None:
    found = run_json("demo", *SHORT, "--raw", "--max-tokens", "4")
    assert found["prompt_tokens"] < alone["prompt_tokens"]
    assert found["finish_reason"] == "length" and len(found["tokens"]) == 4
    shown = bandweave("run", "demo", *SHORT, "--raw", "--max-tokens", "4")
    assert "cut: the answer reached --max-tokens" in shown.err


def test_stop_string_is_never_shown(alone: Any) -> None:
    stop = alone["text"][4:8]
    expected = alone["text"][: alone["text"].index(stop)]
    found = [run_json("demo", *SHORT, "--stop", stop, "--nodes", n) for n in ("1", "2")]
    assert [one["text"] for one in found] == [expected] * 2
    assert {one["finish_reason"] for one in found} == {"stop"}
    assert found[0]["tokens"] == found[1]["tokens"] < alone["tokens"]
    # The digest is over the tokens shown, however far the nodes went before they heard of it.
    cut = run_json("demo", "--prompt", QUESTION, "--max-tokens", str(len(found[0]["tokens"])))
    assert {one["logits_digest"] for one in found} == {cut["logits_digest"]}
    shown = bandweave("run", "demo", *SHORT, "--stop", stop)
    assert shown.out == expected + "\n"


def test_sampling_is_keyed_by_the_seed(long_model: Path) -> None:
    def tokens(*more: str) -> list[int]:
        drawn = ("--temperature", "1.2", "--top-k", "50", "--top-p", "0.9", "--min-p", "0.01",
                 "--repetition-penalty", "1.1", "--presence-penalty", "0.1")  # fmt: skip
        return run_json(long_model, "--raw", "--prompt", "a", "--max-tokens", "16",
                        "--context", "64", *drawn, *more)["tokens"]  # fmt: skip

    first = tokens("--seed", "1", "--nodes", "2")
    assert first == tokens("--seed", "1") != tokens("--seed", "2")


def test_kernels_can_be_chosen_by_the_environment() -> None:
    done = bandweave("run", "demo", *SHORT, "--json", BANDWEAVE_ISA="portable")
    assert {node["isa"] for node in done.json["plan"]["nodes"]} == {"portable"}


# --- failures ---


def long_run(model: Path, *more: str) -> Sequence[str | Path]:
    return ("run", model, "--raw", "--prompt", "a", "--max-tokens", "30000", "--context", "32000",
            "--nodes", "2", *more)  # fmt: skip


@pytest.mark.alone
@pytest.mark.parametrize(
    ("which", "how", "words"),
    [
        (0, signal.SIGKILL, "was killed by SIGKILL"),
        (1, signal.SIGKILL, "was killed by SIGKILL"),
        (1, signal.SIGSTOP, "made no progress for 5"),
    ],
)
def test_an_answer_goes_on_without_a_node(
    long_model: Path, which: int, how: signal.Signals, words: str
) -> None:
    ask = ("run", long_model, "--raw", "--prompt", "a", "--max-tokens", "1500")
    with start_command(*ask, "--nodes", "2") as command:
        begun = command.wait_output(command.process.stdout)
        victim = sorted(command.nodes())[which]
        os.kill(victim, how)
        out, err = command.process.communicate(timeout=60)
        assert command.process.returncode == 0 and command.none_left()
    assert begun + out == bandweave(*ask).out.encode()
    remark = next(line for line in err.decode().splitlines() if "going on without it" in line)
    assert f"(pid {victim})" in remark and words in remark


@pytest.mark.alone
def test_nodes_end_with_a_killed_command(long_model: Path) -> None:
    with start_command(*long_run(long_model)) as command:
        command.wait_output(command.process.stdout)
        assert len(command.nodes()) == 2
        command.process.kill()
        assert command.none_left()


@pytest.mark.alone
def test_interrupted_run(long_model: Path) -> None:
    with start_command(*long_run(long_model)) as command:
        command.wait_output(command.process.stdout)
        command.process.send_signal(signal.SIGINT)
        done = command.finish()
        assert command.none_left()
    assert (done.status, done.err) == (130, "")


@pytest.mark.alone
def test_broken_pipe_is_quiet(long_model: Path) -> None:
    with start_command(*long_run(long_model)) as command:
        assert command.process.stdout is not None and command.process.stderr is not None
        command.wait_output(command.process.stdout)
        command.process.stdout.close()
        assert command.process.wait(10) == 141
        assert command.process.stderr.read() == b""
        assert command.none_left()


# --- chat ---


def test_chat_reads_piped_questions(alone: Any) -> None:
    text = f"{QUESTION}\n/reset\nWhat is \\\n17 + 25?\n/nonsense\n/system be kind\n/exit\nmore\n"
    done = bandweave("chat", "demo", "--nodes", "2", "--verbose", text=text)
    assert done.status == 0
    first, second, *rest = done.out.splitlines()
    assert first == alone["text"] and second and not rest
    assert "/nonsense is no command" in done.err and "were known" in done.err


def test_chat_knows_what_was_said() -> None:
    follow = bandweave("chat", "demo", "--verbose", text=f"{QUESTION}\n{QUESTION}\n")
    known = [int(number) for number in re.findall(r"of which (\d+) were known", follow.err)]
    assert known[0] == 0 and known[1] > 10


def test_chat_forgets_the_oldest_turns_when_the_context_is_full() -> None:
    done = bandweave("chat", "demo", "--context", "64", text=f"{QUESTION}\n" * 4)
    assert done.status == 0 and "forgot the oldest 1 turn" in done.err
    assert len(done.out.splitlines()) == 4
    long = bandweave("chat", "demo", "--context", "64", text="word " * 100 + "\n")
    assert "--context" in sentence(long)


def test_chat_needs_a_template(copied: Path) -> None:
    config = copied / "tokenizer_config.json"
    fields = json.loads(config.read_text())
    del fields["chat_template"]
    config.write_text(json.dumps(fields))
    assert "run --raw" in sentence(bandweave("chat", copied, text="hello\n"))
    plain = run_json(copied, "--prompt", QUESTION, "--max-tokens", "4")
    raw = run_json("demo", "--raw", "--prompt", QUESTION, "--max-tokens", "4")
    assert plain["logits_digest"] == raw["logits_digest"]
    config.write_text(json.dumps({**fields, "chat_template": "{% for %}"}))
    assert "chat template" in sentence(bandweave("run", copied, *SHORT))


@pytest.mark.alone
def test_chat_outlives_an_interrupted_answer(long_model: Path, tmp_path: Path) -> None:
    arguments = ("chat", long_model, "--nodes", "2", "--max-tokens", "30000",
                 "--context", "40000")  # fmt: skip
    with start_on_terminal(*arguments, TERM="dumb", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.wait_for(b"> ")
        for _ in range(2):
            terminal.type(b"hello\n")
            terminal.wait_for(b"hello\r\n")
            terminal.wait_bytes(100)  # of the answer
            terminal.type(b"\x03")
            terminal.wait_for(b"(stopped)")
            terminal.wait_for(b"> ")
        terminal.type(b"/help\n")
        terminal.wait_for(b"/reset")
        terminal.wait_for(b"> ")
        time.sleep(0.3)  # between prompt and reading, Python's line editing is deaf to signals
        terminal.type(b"\x03")
        terminal.wait_for(b"(Ctrl-D leaves)")
        terminal.wait_for(b"> ")
        time.sleep(0.3)
        terminal.type(b"\x04")
        assert terminal.command.process.wait(10) == 0
        assert terminal.command.none_left()
    history = tmp_path / "bandweave" / "chat_history"
    assert "hello" in history.read_text() and history.stat().st_mode & 0o077 == 0


# --- the other commands ---


def test_demo() -> None:
    done = bandweave("demo", "--shares", "2,1")
    assert done.status == 0, done.err
    assert "Same answer, bit for bit" in done.out and "weights 0, KV 0" in done.out
    assert done.out.count("✓") + done.out.count("✗") == 5
    table = [line for line in done.out.splitlines() if "KV heads" in line or "exch.wait" in line]
    assert len(table) == 2 and max(map(len, table)) <= 80


def test_demo_json() -> None:
    found = bandweave("demo", "--question", QUESTION, "--nodes", "3", "--json").json
    assert found["same_answer"] and len(found["plan"]["nodes"]) == 3
    assert found["compared"]["logits_digest"] == found["logits_digest"]
    (one,) = found["questions"]
    assert one["question"] == QUESTION and one["right"] is None and one["text"]
    assert found["wire_bytes_per_token"]["weights"] == 0


def test_synth(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    sizes = ("--layers", "1", "--hidden", "64", "--heads", "2", "--kv-heads", "1", "--head-dim",
             "32", "--intermediate", "64", "--vocab", "300", "--context", "128")  # fmt: skip
    found = bandweave("synth", "tiny", folder, *sizes, "--dtype", "f32", "--seed", "3", "--json")
    assert found.json["config"]["hidden_size"] == 64
    assert found.json["weight_file_bytes"] == (folder / "model.safetensors").stat().st_size
    assert "not empty" in sentence(bandweave("synth", "tiny", folder, *sizes))
    answer = run_json(folder, "--prompt", "hello", "--max-tokens", "3")
    assert len(answer["tokens"]) <= 3


def test_synth_lists_shapes() -> None:
    done = bandweave("synth", "--list")
    assert done.status == 0 and "tinyllama-1.1b" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


BENCH = ("bench", "demo", "--prompt-tokens", "40", "--new-tokens", "8", "--nodes", "2",
         "--rounds", "2")  # fmt: skip


def test_bench() -> None:
    found = bandweave(*BENCH, "--json").json
    for field in ("decode_tokens_per_s", "prefill_tokens_per_s", "read_bandwidth_gb_s",
                  "bandwidth_utilisation"):  # fmt: skip
        assert found[field] > 0
    weights = found["weight_bytes_per_token_by_node"]
    assert len(weights) == 2 and sum(weights) == found["weight_bytes_per_token"] > 1e6
    wire = found["wire_bytes_per_token"]
    assert set(wire) == {"activations", "logits", "control", "weights", "kv"}
    assert wire["activations"] > 0 and wire["weights"] == wire["kv"] == 0
    assert found["bill"]["wall"] > 0
    predicted = found["predicted"]  # from a short look at this machine
    assert predicted["weight_bytes_per_token"] == sum(weights)
    assert predicted["wire_bytes_per_token"].keys() == wire.keys()
    assert predicted["bill"].keys() == found["bill"].keys()
    assert predicted["decode_tokens_per_s"] > 0 and predicted["prefill_tokens_per_s"] > 0
    assert all(10e6 < peak < 1e9 for peak in found["peak_rss_bytes"])


@pytest.mark.late  # it looks at the machine for a quarter of a minute again
def test_bench_reads_well() -> None:
    shown = bandweave(*BENCH)
    assert "tokens/s" in shown.out and max(map(len, shown.out.splitlines())) <= 80
    assert "round" not in shown.err  # progress is for terminals


def test_doctor() -> None:
    found = bandweave("doctor", "--json").json
    assert found["can_run"] and found["isa"] in found["isa_variants"]
    assert found["read_bandwidth_gb_s"]["1"] > 0
    shown = bandweave("doctor", "--no-bandwidth")
    assert shown.status == 0 and "kernels" in shown.out
    wrong = bandweave("doctor", "--no-bandwidth", BANDWEAVE_ISA="mmx")
    assert wrong.status == 1 and "unset it" in wrong.out


def test_doctor_verifies_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bandweave("doctor", "--no-bandwidth", "--verify", "--json").json
    assert set(found["verified"]) == set(found["isa_variants"])
    assert all(one["same"] and len(one["kernels"]) >= 16 for one in found["verified"].values())
    shown = bandweave("doctor", "--no-bandwidth", "--verify")
    assert shown.status == 0 and "portable same" in " ".join(shown.out.split())

    right = _native.golden

    def wrong(isa: str) -> list[tuple[str, int, int]]:
        return [(name, digest ^ (name == "exp"), must) for name, digest, must in right(isa)]

    monkeypatch.setattr(_native, "golden", wrong)
    done = CliRunner().invoke(cli, ["doctor", "--no-bandwidth", "--verify"])
    assert done.exit_code == 1
    output = " ".join(done.output.split())  # variants decide where lines break
    assert "portable DIFFERENT" in output and "other bits than they must: exp" in output


def test_doctor_tells_of_several_memories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for node in range(2):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text("0-3\n" if node == 0 else "4-7\n")
    monkeypatch.setattr(machine, "_NUMA", tmp_path)
    monkeypatch.setattr(machine, "allowed_cpus", lambda: tuple(range(8)))
    done = CliRunner().invoke(cli, ["doctor", "--no-bandwidth", "--json"])
    found = json.loads(done.output)
    assert found["numa_nodes"] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert any("--nodes 2" in lack["mend"] for lack in found["lacks"]) and found["can_run"]


@pytest.mark.alone
def test_threads_beyond_the_processors_are_left_out(alone: Any) -> None:
    done = bandweave("run", "demo", *SHORT, "--threads", "999", "--json")
    (node,) = done.json["plan"]["nodes"]
    assert node["threads"] == len(machine.usable_cpus())
    assert done.json["logits_digest"] == alone["logits_digest"]
    assert "--threads 999" in done.err and "can be used here" in done.err


def test_dump(tmp_path: Path) -> None:
    found = bandweave("dump", "demo", tmp_path / "file", "--format", "q8", "--json").json
    assert found["bytes"] == (tmp_path / "file").stat().st_size > 1e6
    assert "is unknown" in sentence(bandweave("dump", "demo", tmp_path / "x", "--format", "q3"))
    assert "No such file" in sentence(bandweave("dump", "demo", tmp_path / "no" / "x"))
    assert "--text" in sentence(bandweave("dump", "demo"))
    assert "--text" in sentence(bandweave("dump", "demo", tmp_path / "x", "--stages", "1"))
    assert not (tmp_path / "x").exists()


def test_dump_as_text() -> None:
    done = bandweave("dump", "demo", "--text", "--shares", "2,1")
    lines = done.out.splitlines()
    heads = [line for line in lines if line.startswith("node ")]
    assert [line.split(":")[0] for line in heads] == ["node 0 of 2", "node 1 of 2"]
    assert sum("all_reduce_add layers." in line for line in lines) == 2 * 2 * 5
    assert "above zero" in sentence(bandweave("dump", "demo", "--text", "--shares", "0"))


# --- worker ---


def test_worker_makes_a_token_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert bandweave("worker", "--make-token", file).status == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"bandweave-[0-9a-f]{72}\n", file.read_text())
    assert "exists already" in sentence(bandweave("worker", "--make-token", file))


@pytest.mark.alone
def test_worker_port_in_use(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("x" * 32)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        done = bandweave("worker", "--listen", address, "--token-file", file)
    assert "in use" in sentence(done)


@pytest.mark.alone
def test_run_on_workers(alone: Any, tmp_path: Path) -> None:
    token, other = tmp_path / "token", tmp_path / "other"
    token.write_text("x" * 32)
    other.write_text("y" * 32)
    listen = ("worker", "--listen", "127.0.0.1:0", "--token-file", token, "--threads", "1")
    with start_command(*listen) as first, start_command(*listen, "--once") as second:
        hosts = ",".join(_listening(worker.process.stderr) for worker in (first, second))
        ask = ("run", "demo", *SHORT, "--json", "--hosts", hosts, "--token-file")
        refused = bandweave(*ask, other)
        assert refused.status == 2 and "secret" in json.loads(refused.out)["error"]
        found = bandweave(*ask, token).json
        assert second.finish().status == 0
        first.process.send_signal(signal.SIGINT)
        assert first.finish().status == 130
    assert found["logits_digest"] == alone["logits_digest"]
    assert len(found["plan"]["nodes"]) == 2


@pytest.mark.alone
def test_a_worker_keeps_packed_weights_where_its_own_environment_says(
    long_model: Path, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 32)
    listen = ("worker", "--listen", "127.0.0.1:0", "--token-file", token, "--threads", "1")
    home, off = {"BANDWEAVE_CACHE": "", "XDG_CACHE_HOME": str(tmp_path / "home")}, "off"
    with (
        start_command(*listen, **home) as keeps,
        start_command(*listen, BANDWEAVE_CACHE=off) as forgets,
    ):
        at = {worker: _listening(worker.process.stderr) for worker in (keeps, forgets)}
        for worker, more in ((keeps, "--no-cache"), (forgets, "--threads=2"), (keeps, "--nodes=1")):
            assert not (tmp_path / "home").exists()
            host = ("--hosts", at[worker], "--token-file", token)
            ask = ("run", long_model, "--raw", "--prompt", "a", "--max-tokens", "300",
                   "--format", "f32", "--context", "512", "--json", *host, more)  # fmt: skip
            found = bandweave(*ask, BANDWEAVE_CACHE=str(tmp_path / "controllers")).json
            assert [node["threads"] for node in found["plan"]["nodes"]] == [1]
        for worker in (keeps, forgets):
            worker.process.send_signal(signal.SIGINT)
        said = [worker.finish().err for worker in (keeps, forgets)]
    assert list((tmp_path / "home" / "bandweave" / "panels").glob("??/*"))
    assert not (tmp_path / "controllers").exists()
    assert all(f"loads {long_model}" in words for words in said)


def _listening(stream: Any) -> str:
    deadline = time.monotonic() + 10
    line = b""
    while b"listening on" not in line or not line.endswith(b"\n"):
        assert time.monotonic() < deadline
        line += stream.read(1)
    return line.decode().rpartition("listening on ")[2].strip()
