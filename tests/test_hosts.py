"""Two hosts: workers in two network namespaces joined by a cable, and one command."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bandweave import _native
from bandweave.checkpoints.resolve import demo_folder

PORT = 7411
OTHER_ISA = _native.isa_variants()[min(1, len(_native.isa_variants()) - 1)]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass(frozen=True, kw_only=True)
class Cable:
    """Two namespaces and the addresses by which they know each other."""

    names: tuple[str, str]
    addresses: tuple[str, str]

    def command(self, end: int, *arguments: str) -> list[str]:
        bandweave = [sys.executable, "-m", "bandweave"]
        return ["ip", "netns", "exec", self.names[end], *bandweave, *arguments]


@pytest.fixture
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    tag = f"bw{secrets.token_hex(3)}"
    names, addresses = (f"{tag}a", f"{tag}b"), ("10.213.7.1", "10.213.7.2")
    try:
        ip("netns", "add", names[0])
    except subprocess.CalledProcessError:
        pytest.skip("this system allows no network namespaces")
    try:
        ip("netns", "add", names[1])
        ip(
            "link", "add", f"{tag}x", "netns", names[0],
            "type", "veth", "peer", "name", f"{tag}y", "netns", names[1],
        )  # fmt: skip
        for name, address, link in zip(names, addresses, (f"{tag}x", f"{tag}y"), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield Cable(names=names, addresses=addresses)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def workers(cable: Cable, tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """One worker at each end; the second has its own copy of the model at another path."""
    (tmp_path / "token").write_text(secrets.token_hex(16))
    shutil.copytree(demo_folder(), tmp_path / "models" / "mine")
    started = []
    for end, variant in enumerate(("", OTHER_ISA)):
        arguments = ["worker", "--listen", f"{cable.addresses[end]}:{PORT}", "--threads", "1"]
        arguments += ["--token-file", str(tmp_path / "token")]
        if end == 1:
            arguments += ["--models", str(tmp_path / "models")]
        started.append(
            subprocess.Popen(
                cable.command(end, *arguments),
                stderr=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "BANDWEAVE_ISA": variant,
                    "BANDWEAVE_DOWNLOADS": str(tmp_path / f"downloads {end}"),
                },
            )
        )
    try:
        for worker in started:
            assert worker.stderr is not None
            assert "listening" in worker.stderr.readline()
        yield started
    finally:
        for worker in started:
            worker.send_signal(signal.SIGINT)
        for worker in started:
            worker.communicate(timeout=20)


def run_arguments(cable: Cable, tmp_path: Path, *more: str, model: str = "demo") -> list[str]:
    hosts = ",".join(f"{address}:{PORT}" for address in cable.addresses)
    return cable.command(
        0, "run", model, "--hosts", hosts, "--token-file", str(tmp_path / "token"), *more
    )


def test_two_hosts_give_the_answer_of_one_machine(
    cable: Cable, workers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    question = ["--prompt", "What is 17 + 25?", "--json"]
    here = subprocess.run(
        [sys.executable, "-m", "bandweave", "run", "demo", *question],
        check=True,
        capture_output=True,
        text=True,
    )
    for shares in ((), ("--shares", "3,1"), ("--stages", "2")):
        there = subprocess.run(
            run_arguments(cable, tmp_path, *question, *shares),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert there.returncode == 0, there.stderr
        one, two = json.loads(here.stdout), json.loads(there.stdout)
        assert (one["logits_digest"], one["tokens"]) == (two["logits_digest"], two["tokens"])
        variants = [node["isa"] for node in two["plan"]["nodes"]]
        assert variants == [_native.isa_variants()[0], OTHER_ISA]


def test_rounded_activations_cross_between_hosts_as_between_processes(
    cable: Cable, workers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    answers = []
    question = ["--prompt", "What is 17 + 25?", "--json", "--wire", "q8"]
    bandweave = [sys.executable, "-m", "bandweave", "run", "demo"]
    for command in (
        [*bandweave, *question, "--nodes", "2", "--threads", "1"],
        run_arguments(cable, tmp_path, *question, "--shares", "1,1"),
        [*bandweave, *question],
    ):
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        answers.append(json.loads(done.stdout))
    here, there, alone = answers
    assert here["logits_digest"] == there["logits_digest"] != alone["logits_digest"]
    assert [answer["plan"]["exact"] for answer in answers] == [False, False, True]
    assert {answer["plan"]["wire"] for answer in answers} == {"q8"}


def test_a_host_without_files_gets_its_share_of_them(
    cable: Cable, workers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    """From the command, to which alone the model lies where it says; the other has a copy."""
    real, seen = tmp_path / "models" / "mine", tmp_path / "seen"
    seen.mkdir()
    question = ["--prompt", "What is 17 + 25?", "--json"]
    command = run_arguments(cable, tmp_path, *question, model=str(seen))
    inside = command.index(sys.executable)  # a namespace for the network is one for mounts, too
    script = f'mount --bind {real} {seen} && exec "$@"'
    done = subprocess.run(
        [*command[:inside], "sh", "-c", script, "sh", *command[inside:]],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bandweave = [sys.executable, "-m", "bandweave", "run", "demo", *question]
    here = subprocess.run(bandweave, check=True, capture_output=True, text=True)
    digests = [json.loads(one.stdout)["logits_digest"] for one in (done, here)]
    assert digests[0] == digests[1]
    (copy,) = (tmp_path / "downloads 0").glob("copies--seen/*/model.safetensors")
    size = copy.stat().st_size
    assert 0.4 * size < 512 * copy.stat().st_blocks < 0.75 * size
    assert not (tmp_path / "downloads 1").exists()


def test_an_answer_goes_on_without_a_host(
    cable: Cable, workers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    # Random weights talk on: the slow precision gives time to interrupt them.
    model = tmp_path / "models" / "random"
    shape = ["tiny", str(model), "--context", "8192", "--layers", "24"]
    synth = [sys.executable, "-m", "bandweave", "synth", *shape]
    subprocess.run(synth, check=True, capture_output=True)
    arguments = ["--raw", "--prompt", "1 2 3 4", "--max-tokens", "8000", "--format", "f32"]
    command = subprocess.Popen(
        run_arguments(cable, tmp_path, *arguments, model=str(model)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    assert command.stdout.read(1)  # the answer has begun
    children = Path(f"/proc/{workers[1].pid}/task/{workers[1].pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    start = time.monotonic()
    assert command.stderr is not None
    remark = next(line for line in command.stderr if "going on without it" in line)
    assert time.monotonic() - start < 5
    assert f"node 1 ({cable.addresses[1]}:{PORT})" in remark
    assert len(command.stdout.read(200)) == 200
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=30)
    assert command.returncode == 130
