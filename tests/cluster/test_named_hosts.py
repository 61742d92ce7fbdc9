"""A cluster of named hosts, without any service: up, join, answer, a second head, leave, down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cluster.serving import answered, ready, serving, status
from tests.helpers.cluster_machines import (
    cluster_machines,
    left_over,
    wait_for,
)

_DEMO = Path(__file__).parents[2] / "src" / "bandweave" / "assets" / "demo"
_ASK = ("--prompt", "What is 12 + 30?", "--temperature", "0", "--max-tokens", "24", "--json")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copytree(_DEMO, folder / "small")
    return folder


def test_machines_come_answer_and_go(models: Path, tmp_path: Path) -> None:
    with cluster_machines(tmp_path) as machines:
        anna, bert, carl = machines
        model = models / "small"
        alone = json.loads(anna.run("run", model, *_ASK))

        # It listens everywhere, and is known by an address on the network that is slow.
        up = anna.run("up", "--advertise", f"{anna.slow}:7100", "--require-encryption", "--json")
        line = json.loads(up)["join"]
        token, _, join = line.partition(" | ")
        assert join == f"bandweave join {anna.slow}:7100 --require-encryption"
        secret = token.removeprefix("echo ")
        for one in (bert, carl):
            one.run(*join.split()[1:], text=secret)
        assert f"{anna.slow}:7100 already" in bert.run(*join.split()[1:], text=secret, fails=True)

        # One machine has the files, the others get their shares from it.
        found = json.loads(anna.run("run", model, "--cluster", "--shares", "2,1,1", *_ASK))
        assert found["text"] == alone["text"]
        assert found["logits_digest"] == alone["logits_digest"]
        assert len(found["plan"]["nodes"]) == 3
        # All workers want what leaves their machines to be encrypted, this machine's too.
        sentence = anna.run("run", model, "--cluster", "--shares", "2,1,1", "--no-encrypt", *_ASK,
                            fails=True)  # fmt: skip
        assert "(--require-encryption)" in sentence

        server = anna.start("serve", model, "--cluster", "--nodes", "3", "--listen",
                            "127.0.0.1:8080")  # fmt: skip
        try:
            wait_for(lambda: ready(anna), 60.0)
            assert answered(anna) == alone["text"]
            told = wait_for(lambda: serving(status(carl)))
            assert [one["host"] for one in told["machines"]] == ["anna", "bert", "carl"]
            running = told["models"][0]
            assert sum(node["share"] for node in running["nodes"]) == pytest.approx(1, abs=1e-3)
            assert "predicted" in running["why"][0]
            # The mesh takes the network that answers sooner, whatever leads to the head.
            fast, slow = {one.fast for one in machines}, {one.slow for one in machines}
            for link in running["links"]:
                ways = [route["address"].rpartition(":")[0] for route in link["routes"]]
                assert ways[0] in fast and set(ways[1:]) <= slow, link
            text = anna.run("status")
            assert max(map(len, text.splitlines())) <= 80
            assert "which answers sooner than" in text

            # Another head is told whose they are.
            token_file = tmp_path / "bert" / "state" / "bandweave" / "cluster" / "joined-token"
            sentence = anna.run("run", model, "--hosts", f"{bert.fast}:7101", "--token-file",
                                token_file, *_ASK, fails=True)  # fmt: skip
            assert f"belongs to the cluster of the head at {anna.slow}:7100" in sentence

            carl.run("leave")
            assert "has joined no cluster" in carl.run("leave", fails=True)
            assert answered(anna) == alone["text"]
            assert len(status(bert)["machines"]) == 2
        finally:
            server.terminate()
            output = server.communicate(timeout=30)[0]
            print(output)
        assert "Traceback" not in output, output

        anna.run("down")
        assert left_over(machines, 10.0) == []
        assert "no cluster is up" in anna.run("down", fails=True)


def test_a_server_waits_for_machines_and_says_for_what(models: Path, tmp_path: Path) -> None:
    with cluster_machines(tmp_path, ("anna", "bert")) as machines:
        anna, bert = machines
        token = tmp_path / "token"
        anna.run("worker", "--make-token", token)
        server = anna.start("serve", models / "small", "--cluster-listen", f"{anna.fast}:7100",
                            "--token-file", token, "--listen", "127.0.0.1:8080")  # fmt: skip
        worker = None
        try:
            assert server.stdout is not None
            while "none has joined" not in (line := server.stdout.readline()):
                assert line, "it ended"
            # The head may go and come back: the worker dials again.
            worker = bert.start("worker", "--join", f"{anna.fast}:7100", "--token-file", token)
            wait_for(lambda: ready(anna), 60.0)
            assert answered(anna)
            found = json.loads(
                bert.run("status", f"{anna.fast}:7100", "--token-file", token, "--json")
            )
            assert [one["host"] for one in found["machines"]] == ["bert"]
            assert found["models"][0]["why"] == ["It is the only machine."]
        finally:
            for process in (server, worker):
                if process is not None:
                    process.terminate()
                    process.communicate(timeout=30)
        assert left_over(machines, 10.0) == []
