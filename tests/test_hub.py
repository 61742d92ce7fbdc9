"""Models of the hub: names, files, ranges and what goes wrong, against a hub on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from bandweave.checkpoints.byte_file import LocalFile, open_file
from bandweave.checkpoints.have import Have, mark_of, sidecar_of
from bandweave.checkpoints.partial_file import PartialFile
from bandweave.checkpoints.resolve import demo_folder
from bandweave.checkpoints.source import CheckpointError
from bandweave.cli.cache import command as cache_command
from bandweave.cli.plan.setup import parse_model
from bandweave.cli.pull import command as pull_command
from bandweave.hub.known_names import known_as
from bandweave.hub.names import HubName, parse_name
from bandweave.hub.pull import pull
from bandweave.hub.refusals import HubError
from bandweave.hub.resolve import resolve_model
from bandweave.hub.service import service
from bandweave.hub.store import Store, hub_name
from tests.helpers.command import bandweave, environment
from tests.helpers.command import sentence as said_by
from tests.helpers.hub_server import TOKEN, Hub, hub_of_the_test, shards_of, weights

REPO = "org/Some-Model"
ASK = ("--prompt", "What is 17 + 25?", "--max-tokens", "8", "--json")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_of_the_test(monkeypatch, tmp_path) as running:
        running.add(REPO, {"config.json": b'{"a": 1}', "model.safetensors": weights(300_000)})
        yield running


def stored(hub: Hub, name: str = "model.safetensors", repo: str = REPO) -> bytes:
    found = hub.repositories[repo]
    return found.commits[found.branches["main"]][name]


def read(path: Path, start: int, stop: int) -> bytes:
    file = open_file(path)
    try:
        target = bytearray(stop - start)
        file.read_into(memoryview(target), start)
        return bytes(target)
    finally:
        file.close()


# --- names ---


@pytest.mark.parametrize(
    ("text", "repo", "revision", "file"),
    [
        ("org/name", "org/name", "", ""),
        ("org/name:v1.0", "org/name", "v1.0", ""),
        ("org/name@refs/pr/3", "org/name", "refs/pr/3", ""),
        ("org/name:Q4_K_M", "org/name", "Q4_K_M", ""),
        ("org/name/a-Q4_K_M.gguf", "org/name", "", "a-Q4_K_M.gguf"),
        ("org/name/UD/a-00001-of-00002.gguf", "org/name", "", "UD/a-00001-of-00002.gguf"),
        ("org/name:main/a.gguf", "org/name", "main", "a.gguf"),
        ("https://huggingface.co/org/name", "org/name", "", ""),
        ("https://huggingface.co/org/name/tree/main", "org/name", "main", ""),
        ("huggingface.co/org/name/blob/main/a.gguf?x=1", "org/name", "main", "a.gguf"),
        ("hf.co/org/name:Q8_0", "org/name", "Q8_0", ""),
        ("hf://org/name", "org/name", "", ""),
    ],
)
def test_names(text: str, repo: str, revision: str, file: str) -> None:
    assert parse_name(text) == HubName(repo=repo, revision=revision, file=file)


@pytest.mark.parametrize(
    "text", ["name", "a/b/c", "../x", "org/", "/org/name", "org/na me", "org/..", "-x/y", "o/n:"]
)
def test_what_is_no_name(text: str) -> None:
    assert parse_name(text) is None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("llama3.2", "meta-llama/Llama-3.2-3B-Instruct"),
        ("llama3.2:1b", "meta-llama/Llama-3.2-1B-Instruct"),
        ("qwen3:8b", "Qwen/Qwen3-8B"),
        ("qwen3:30b-a3b", "Qwen/Qwen3-30B-A3B"),
        ("deepseek-r1", "deepseek-ai/DeepSeek-R1"),
        ("gpt-oss:20b", "openai/gpt-oss-20b"),
        ("gptoss", "openai/gpt-oss-20b"),
        ("Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("lama3.2", "meta-llama/Llama-3.2-3B-Instruct"),
    ],
)
def test_what_people_call_models(text: str, first: str) -> None:
    assert known_as(text)[0] == first
    with pytest.raises(HubError, match=f"{first}.*use that name"):
        resolve_model(text)


def test_nothing_of_the_hub_is_imported_before_it_is_named() -> None:
    code = "import bandweave.hub.resolve, bandweave.checkpoints.folder, sys; " + (
        "bandweave.hub.resolve.resolve_model('demo'); "
        "sys.exit(any('huggingface' in name or 'httpx' in name for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(""))


# --- ranges ---


def test_what_is_read_is_fetched_once_and_kept(hub: Hub) -> None:
    path = resolve_model(REPO) / "model.safetensors"
    content, header = stored(hub), hub.given_bytes
    assert header < 2048 < len(content) == path.stat().st_size
    for start, stop in ((5000, 9000), (100_000, 101_000), (99_000, 102_500), (5000, 9000)):
        assert read(path, start, stop) == content[start:stop]
    with_units = sum(
        -(-stop // 1024) - start // 1024 for start, stop in ((5000, 9000), (99_000, 102_500))
    )
    assert hub.given_bytes - header == 1024 * with_units
    assert path.stat().st_blocks * 512 < 100_000  # the rest is a hole
    hub.bad.broken = hub.bad.busy = -1  # what is here needs nobody
    assert read(path, 99_500, 102_000) == content[99_500:102_000]
    assert len(hub.signed) == 4  # an address for each opening that had to fetch


def test_a_file_that_is_filled_is_checked_and_marked(hub: Hub) -> None:
    path = resolve_model(REPO) / "model.safetensors"
    file = open_file(path)
    assert isinstance(file, PartialFile) and not file.whole
    key = file.key(b"header")
    file.close()
    assert read(path, 0, path.stat().st_size) == stored(hub)
    assert hub.given_bytes == len(stored(hub))
    assert mark_of(path).exists() and not sidecar_of(path).exists()
    whole = open_file(path)
    assert isinstance(whole, LocalFile) and whole.whole
    whole.close()
    os.utime(path)
    assert len(key) == 64


def test_the_key_is_that_of_the_content(hub: Hub, tmp_path: Path) -> None:
    path = resolve_model(REPO) / "model.safetensors"

    def key() -> str:
        file = open_file(path)
        try:
            return file.key(b"h")
        finally:
            file.close()

    before = key()
    read(path, 5000, 9000)
    os.utime(path)
    assert key() == before
    hub.add(REPO, {"config.json": b"{}", "model.safetensors": weights(300_000, seed=1)})
    path = resolve_model(REPO) / "model.safetensors"
    assert key() != before


def test_damage_on_the_disk_is_fetched_anew(hub: Hub) -> None:
    path = resolve_model(REPO) / "model.safetensors"
    content = read(path, 10_000, 60_000)
    given = hub.given_bytes
    with open(path, "r+b") as file:
        file.seek(20_000)
        file.write(bytes([content[10_000] ^ 1]))
    assert read(path, 10_000, 60_000) == content
    assert hub.given_bytes == given + 1024


def test_threads_and_processes_fetch_nothing_twice(hub: Hub) -> None:
    hub.add(REPO, {"config.json": b"{}", "model.safetensors": weights(9_000_000)})
    path = resolve_model(REPO) / "model.safetensors"
    hub.bad.pause = 0.002
    script = (
        "import sys; from pathlib import Path; from bandweave.checkpoints.byte_file import "
        "open_file; import hashlib; file = open_file(Path(sys.argv[1])); data = bytearray(file.size"
        "); file.read_into(memoryview(data), 0); print(hashlib.sha256(data).hexdigest())"
    )
    command = [sys.executable, "-c", script, str(path)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(""))
    pieces = [range(start, min(start + 500_000, path.stat().st_size))
              for start in range(0, path.stat().st_size, 400_000)]  # fmt: skip
    got: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda one=one: got.update({one.start: read(path, *bounds(one))}))
        for one in pieces
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out, _ = other.communicate(timeout=60)
    content = stored(hub)
    assert all(got[one.start] == content[one.start : one.stop] for one in pieces)
    assert out.decode().strip() == hashlib.sha256(content).hexdigest()
    assert hub.given_bytes == len(content)


def bounds(one: range) -> tuple[int, int]:
    return one.start, one.stop


@pytest.mark.parametrize(
    ("proxy", "words"),
    [("socks5://127.0.0.1:9", "pip install socksio"), ("other://127.0.0.1:9", "cannot be used")],
)
def test_proxies_that_cannot_be_used(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    """What is here is used all the same."""
    if "socks5" in proxy and importlib.util.find_spec("socksio") is not None:
        pytest.skip("there is a library for SOCKS")
    pulled = bandweave("pull", REPO, "--json", **hub.variables)
    more = {**hub.variables, "ALL_PROXY": proxy, "NO_PROXY": "", "no_proxy": ""}
    assert words in said_by(bandweave("pull", REPO, **more))
    said = said_by(bandweave("run", "org/other", "--prompt", "x", **more))
    assert "org/other is not on this machine" in said and words in said
    assert pulled.json["checked"]


# --- misfortunes ---


def test_what_is_here_whole_needs_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is full or read only, nothing is written that is there already."""
    name = parse_name(REPO)
    assert name is not None
    pulled = pull(name, lambda done, total: None)

    def full(path: Path, **options: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("bandweave.hub.store.whole_file", full)
    monkeypatch.setattr("bandweave.hub.arrival.whole_file", full)
    assert resolve_model(REPO) == pulled.path
    assert pull(name, lambda done, total: None).fetched_bytes == 0
    hub.add(REPO, {"config.json": b'{"a": 2}', "model.safetensors": weights(300_000, 1)})
    with pytest.raises(HubError, match="No space left on device; set BANDWEAVE_DOWNLOADS"):
        resolve_model(REPO)


def test_a_killed_download_goes_on_where_it_was(hub: Hub) -> None:
    hub.add(REPO, {"config.json": b"{}", "model.safetensors": weights(24_000_000)})
    hub.bad.pause = 0.005
    command = [sys.executable, "-m", "bandweave", "pull", REPO]
    process = subprocess.Popen(command, env=environment(""), stderr=subprocess.DEVNULL)
    downloads = Path(os.environ["BANDWEAVE_DOWNLOADS"])
    deadline = time.monotonic() + 30
    while held_bytes(downloads) < 4_000_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    hub.bad.pause = 0.0
    time.sleep(0.1)  # what the hub was writing
    held = held_bytes(downloads)
    assert 4_000_000 <= held < 24_000_000
    hub.forget()
    pulled = pull(HubName(repo=REPO))
    assert hub.given_bytes == pulled.fetched_bytes == len(stored(hub)) - held
    assert pulled.checked == ("model.safetensors",)
    assert (pulled.path / "model.safetensors").read_bytes() == stored(hub)


def held_bytes(downloads: Path) -> int:
    """Of the one model that is being downloaded."""
    for sidecar in downloads.rglob("*.have"):
        have = Have.open(sidecar)
        try:
            return have.held_bytes
        finally:
            have.close()
    return 0


@pytest.mark.parametrize(
    ("what", "value"),
    [("expire_after", 1), ("broken", 3), ("cut", 4), ("busy", 3), ("ignore_ranges", True)],
)
def test_what_mends_itself(hub: Hub, what: str, value: int) -> None:
    hub.add(REPO, {"config.json": b"{}", "model.safetensors": weights(900_000)})
    setattr(hub.bad, what, value)
    path = resolve_model(REPO) / "model.safetensors"
    content = stored(hub)
    for start in range(0, len(content), 300_000):
        stop = min(start + 200_000, len(content))
        assert read(path, start, stop) == content[start:stop]
    if what == "cut":  # what came before the cut is not asked for again
        assert hub.given_bytes < 1.05 * 600_000


def test_a_hub_that_asks_to_wait_is_waited_for(hub: Hub) -> None:
    hub.bad.busy, hub.bad.wait = 1, "1"
    before = time.monotonic()
    resolve_model(REPO)
    assert time.monotonic() - before > 1.0
    hub.bad.busy, hub.bad.wait = 1, "9999"
    with pytest.raises(HubError, match=r"too many requests.*in 9999 s"):
        resolve_model(REPO)
    hub.bad.busy, hub.bad.wait = 1, "t5000"  # as a RateLimit
    with pytest.raises(HubError, match=r"too many requests"):
        resolve_model(REPO)


def test_a_file_that_came_damaged_is_fetched_again(hub: Hub) -> None:
    path = resolve_model(REPO) / "model.safetensors"
    hub.bad.corrupt = 1
    assert pull(HubName(repo=REPO)).checked == ("model.safetensors",)
    assert path.read_bytes() == stored(hub)
    Store(path.parents[2]).remove(Store(path.parents[2]).downloads()[0])
    path = resolve_model(REPO) / "model.safetensors"
    hub.bad.corrupt = -1
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        pull(HubName(repo=REPO))
    hub.bad.corrupt = 0
    assert read(path, 0, len(stored(hub))) == stored(hub)


@pytest.mark.parametrize(
    ("what", "name", "sentence"),
    [
        ("none", "org/Nothing", "has no model org/Nothing, or it is private.*hf auth login"),
        ("private", REPO, "or it is private.*HF_TOKEN"),
        ("disabled", REPO, "has been disabled"),
        ("gated", REPO, r"accept them at http.*/org/Some-Model, then log in"),
        ("gated with token", REPO, "this account has not been let in: accept them at"),
        ("none with token", "org/Nothing", "or one that this account may not read"),
        ("none", REPO + ":v9", "has no revision 'v9'"),
        ("none", REPO + "/x.gguf", "has no file x.gguf, nor any GGUF file"),
        ("refuse", REPO, "is shorter now.*cache remove"),
        ("broken", REPO, "answers 503, it is out of order"),
        ("offline", REPO, "HF_HUB_OFFLINE is set"),
        ("gone", REPO, "cannot be reached .*check the network"),
    ],
)
def test_refusals(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, what: str, name: str, sentence: str
) -> None:
    if "with token" in what:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    repository = hub.repositories[REPO]
    for field in ("private", "disabled", "gated"):
        setattr(repository, field, what.split()[0] == field)
    hub.bad.refuse = hub.bad.broken = 0
    if what in ("refuse", "broken"):
        setattr(hub.bad, what, -1)
    if what == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if what == "gone":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    service.cache_clear()
    with pytest.raises(CheckpointError, match=sentence) as caught:
        resolve_model(name)
    assert "\n" not in str(caught.value)


def test_the_token_stays_at_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[REPO].private = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    service.cache_clear()
    path = resolve_model(REPO) / "model.safetensors"
    assert read(path, 50_000, 90_000) == stored(hub)[50_000:90_000]
    assert hub.ranges and not hub.leaked
    assert TOKEN not in "".join(one.read_text(errors="ignore") for one in path.parent.iterdir())


# --- what is chosen, and where it lies ---


def test_choosing_among_gguf_files(hub: Hub) -> None:
    files = {f"m-{quant}.gguf": quant.encode() * 40 for quant in ("Q8_0", "Q4_K_M", "IQ2_XS")}
    files |= {"big/m-BF16-00001-of-00002.gguf": b"1" * 9, "big/m-BF16-00002-of-00002.gguf": b"2"}
    files |= {"mmproj-F16.gguf": b"eye"}
    hub.add("org/quants", files)
    with pytest.raises(HubError) as caught:
        resolve_model("org/quants")
    for part in ("Q8_0 (0 MB)", "IQ2_XS", "BF16", "for example org/quants:Q4_K_M"):
        assert part in str(caught.value)
    assert "mmproj" not in str(caught.value)
    path = resolve_model("org/quants:q4_k_m")
    assert path.name == "m-Q4_K_M.gguf" and read(path, 0, 6) == b"Q4_K_M"
    assert resolve_model("org/quants/m-Q8_0.gguf").name == "m-Q8_0.gguf"
    split = resolve_model("org/quants:BF16")
    assert split.as_posix().endswith("/big/m-BF16-00001-of-00002.gguf")
    assert read(split.with_name("m-BF16-00002-of-00002.gguf"), 0, 1) == b"2"
    with pytest.raises(HubError, match="no GGUF file of the quantisation Q5_K_M"):
        resolve_model("org/quants:Q5_K_M")
    hub.add("org/one", {"m-Q4_0.gguf": b"x", "config.json": b"{}"})
    assert resolve_model("org/one").name == "m-Q4_0.gguf"
    hub.add("org/both", {**files, "config.json": b"{}", "model.safetensors": weights(10)})
    assert resolve_model("org/both").is_dir()
    hub.add("org/pickle", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(HubError, match="PyTorch files alone"):
        resolve_model("org/pickle")


def test_the_index_says_which_weight_files_there_are(hub: Hub) -> None:
    index = {"weight_map": {"a": "model-00001-of-000002.safetensors", "b": "last.safetensors"}}
    files = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()}
    named = {name: weights(100) for name in index["weight_map"].values()}
    hub.add("org/odd", {**files, **named, "consolidated.safetensors": weights(50)})
    found = {path.name for path in resolve_model("org/odd").glob("*.safetensors")}
    assert found == set(named)
    named.pop("last.safetensors")
    hub.add("org/short", {**files, **named})
    with pytest.raises(HubError, match="lacks 1 of the 2 weight files"):
        resolve_model("org/short")


def test_no_name_of_the_hub_leaves_the_folder(hub: Hub) -> None:
    hub.add("org/evil", {"config.json": b"{}", "model.safetensors": weights(10),
                         "../../tokenizer.json": b"{}", "/tmp/config.json": b"{}"})  # fmt: skip
    folder = resolve_model("org/evil")
    top = Path(os.environ["BANDWEAVE_DOWNLOADS"])
    assert {one.name for one in folder.iterdir() if one.suffix == ".json"} == {
        "config.json", "bandweave.hub.json"}  # fmt: skip
    assert [one.name for one in top.iterdir()] == ["org--evil"]


def test_a_new_commit_shares_what_has_not_changed(hub: Hub) -> None:
    first = resolve_model(REPO)
    read(first / "model.safetensors", 0, 200_000)
    given = hub.given_bytes
    hub.add(REPO, {"config.json": b'{"a": 2}', "model.safetensors": stored(hub)})
    second = resolve_model(REPO)
    assert second != first and (second / "config.json").read_bytes() == b'{"a": 2}'
    assert read(second / "model.safetensors", 0, 200_000) == stored(hub)[:200_000]
    assert hub.given_bytes == given
    assert hub_name(second) == f"{REPO}:{second.name}"
    assert resolve_model(f"{REPO}:{first.name}") == first


def test_whole_files_of_the_hubs_own_cache_are_used(hub: Hub, tmp_path: Path) -> None:
    commit = hub.repositories[REPO].branches["main"]
    cache = tmp_path / "hf" / "hub" / "models--org--Some-Model"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / "abc").write_bytes(stored(hub))
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/abc")
    before = sorted(cache.rglob("*"))
    path = resolve_model(REPO) / "model.safetensors"
    assert read(path, 0, len(stored(hub))) == stored(hub)
    assert hub.given_bytes == 0 and sorted(cache.rglob("*")) == before
    (download,) = Store(path.parents[2]).downloads()
    assert download.whole and download.linked_bytes == len(stored(hub))


def test_without_a_network_what_is_here_serves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = resolve_model(REPO)
    content = read(path / "model.safetensors", 0, 50_000)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said: list[str] = []
    assert resolve_model(REPO, said.append) == path
    assert "going on with what is here" in said[0]
    assert read(path / "model.safetensors", 0, 50_000) == content
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        read(path / "model.safetensors", 200_000, 250_000)


# --- commands ---


def told(command: click.Command, *words: str) -> str:
    """What a command prints, in this process."""
    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_model_of_the_hub_runs_over_nodes(hub: Hub) -> None:
    """Both nodes of one machine fill one copy: nothing comes twice; then everything is here."""
    files = shards_of(demo_folder(), 3)
    hub.add("org/demo", files)
    here = bandweave("run", "demo", *ASK).json
    there = bandweave("run", "org/demo", *ASK, "--nodes", "2").json
    assert there["text"] == here["text"] and there["logits_digest"] == here["logits_digest"]
    size = sum(len(one) for name, one in files.items() if name.endswith(".safetensors"))
    assert hub.given_bytes == size and not hub.leaked
    pulled = json.loads(told(pull_command, "org/demo", "--json"))
    assert pulled["fetched_bytes"] == 0 and len(pulled["checked"]) == 3
    (listed,) = json.loads(told(cache_command, "list", "--json"))["downloads"]
    assert listed["whole"] and listed["model"] == "org/demo" and listed["bytes"] > size
    assert "whole  org/demo" in told(cache_command)
    refused = CliRunner().invoke(cache_command, ["remove", "org/demo"])
    assert refused.exit_code == 2 and "--yes" in refused.output
    removed = json.loads(told(cache_command, "remove", "org/demo", "--yes", "--json"))
    assert removed["freed_bytes"] == listed["bytes"]
    assert not json.loads(told(cache_command, "--json"))["downloads"]


def test_a_part_of_a_model(hub: Hub) -> None:
    hub.add("org/demo", shards_of(demo_folder(), 3))
    found = json.loads(told(pull_command, "org/demo", "--part", "2/2", "--json"))
    assert found["part"] == "2/2" and 0 < found["bytes"] <= found["fetched_bytes"]
    assert found["fetched_bytes"] < 0.75 * 8_202_688
    assert found["fetched_bytes"] <= hub.given_bytes
    with pytest.raises(ValueError, match="write the node's number"):
        told(pull_command, "org/demo", "--part", "3/2")


def test_a_plan_for_a_model_of_the_hub_needs_headers_alone(hub: Hub) -> None:
    hub.add("org/demo", shards_of(demo_folder(), 3))
    shape, own = parse_model("org/demo"), parse_model(str(demo_folder()))
    assert replace(shape, name="") == replace(own, name="") and shape.name == "org/demo"
    assert hub.given_bytes < 20_000


def test_commands_say_what_to_do(hub: Hub) -> None:
    for command, words, sentence in (
        (pull_command, ("demo",), "no model of the hub; name one as org/name"),
        (pull_command, (str(demo_folder()),), "is a folder of this machine already"),
        (pull_command, ("qwen3",), "the hub calls it Qwen/Qwen3-8B"),
        (cache_command, ("remove", "org/else", "--yes"), "nothing is kept of org/else"),
        (cache_command, ("--json", "list"), "write --json behind list"),
        (cache_command, ("--clear", "list"), "--clear goes alone"),
    ):
        result = CliRunner().invoke(command, words)
        assert result.exit_code and sentence in f"{result.output} {result.exception}"
