"""A cluster of named hosts in two groups that each hold the whole model, and one machine that is
held ready."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.serving import answered, ready, status
from tests.helpers.cluster_machines import cluster_machines, left_over, wait_for

_DEMO = Path(__file__).parents[2] / "src" / "bandweave" / "assets" / "demo"


@pytest.mark.timeout(240)
def test_two_copies_and_a_spare_machine(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    model = Path(shutil.copytree(_DEMO, folder / "small"))
    with cluster_machines(tmp_path) as machines:
        anna, bert, carl = machines
        token = tmp_path / "token"
        anna.run("worker", "--make-token", token)
        anna.run("up", "--listen", f"{anna.fast}:7100", "--token-file", token, "--threads", "1")
        server = anna.start(
            "serve", model, "--cluster", "--replicas", "2", "--spare", "1", "--standby-weights",
            "memory", "--no-encrypt", "--listen", "127.0.0.1:8080",
        )  # fmt: skip
        try:
            assert server.stdout is not None
            while "1 machine of 3 joined" not in (line := server.stdout.readline()):
                assert line, "it ended"
            for one in (bert, carl):
                one.run("join", f"{anna.fast}:7100", "--token-file", token, "--threads", "1")

            def roles() -> dict[str, dict[str, Any]]:
                models = status(anna)["models"]
                return {
                    one["host"]: one for one in (models[0].get("machines", ()) if models else ())
                }

            def settled() -> bool:
                found = [one["role"] for one in roles().values()]
                return sorted(found) == ["serving", "serving", "spare"]

            wait_for(lambda: ready(anna), 90.0)
            before = answered(anna)
            wait_for(settled, 60.0)
            found = roles()
            (spare,) = [name for name, one in found.items() if one["role"] == "spare"]
            group = found[spare]["group"]
            (lost,) = [name for name, one in found.items()
                       if one["role"] == "serving" and one["group"] == group]  # fmt: skip
            text = anna.run("status")
            assert max(map(len, text.splitlines())) <= 80
            for wanted in ("Group 0 (node 0", "Group 1 (node 0", "is held ready"):
                assert wanted in text, text

            # One goes, and the spare one takes its place; whoever asks meanwhile is answered.
            gone = {one.name: one for one in machines}[lost]
            gone.run("leave")
            assert answered(anna) == before

            def taken() -> bool:
                now = roles()
                return lost not in now and now.get(spare, {}).get("role") == "serving"

            wait_for(taken, 60.0)
            assert answered(anna) == before
            # It is back, and is the spare one now.
            gone.run("join", f"{anna.fast}:7100", "--token-file", token, "--threads", "1")
            wait_for(settled, 60.0)
            assert roles()[lost]["role"] == "spare" and roles()[lost]["group"] == group
            assert answered(anna) == before
        finally:
            server.terminate()
            output = server.communicate(timeout=30)[0]
            print(output)
        assert "Traceback" not in output, output
        assert "is held ready." in output
        for one in (bert, carl):
            one.run("leave")
        anna.run("down")
        assert left_over(machines, 10.0) == []
