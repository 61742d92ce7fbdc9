"""A cluster that Ray places workers for: up, join, answer, Ray's head dies, leave, down."""

from __future__ import annotations

import json
import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cluster.serving import answered, ready, serving, status
from tests.helpers.cluster_machines import Machine, cluster_machines, left_over, wait_for

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: `make cluster` installs and tests it"
)
_DEMO = Path(__file__).parents[2] / "src" / "bandweave" / "assets" / "demo"


def _named(machine: Machine, name: str) -> list[int]:
    """The processes of a machine whose program has that name."""
    found = []
    for pid in left_over([machine]):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        home = f"HOME={machine.home}".encode()
        if name.encode() in words[0] and home in Path(f"/proc/{pid}/environ").read_bytes():
            found.append(pid)
    return found


@pytest.mark.timeout(300)
def test_ray_places_workers_and_may_die(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    model = Path(shutil.copytree(_DEMO, folder / "small"))
    others = set(Path("/tmp").glob("bandweave-ray-*"))
    with cluster_machines(tmp_path) as machines:
        anna, bert, carl = machines
        up = json.loads(anna.run("up", "--ray", "--listen", f"{anna.fast}:7100", "--threads", "1",
                                 "--json"))  # fmt: skip
        assert up["ray_bytes"] > 0
        token, _, join = up["join"].partition(" | ")
        assert join == f"bandweave join {anna.fast}:7100 --ray {anna.fast}:6379"
        for one in (bert, carl):
            one.run(*join.split()[1:], "--threads", "1", text=token.removeprefix("echo "))
        wait_for(lambda: len(status(anna)["machines"]) == 3, 90.0)
        assert {one["placed_by"] for one in status(anna)["machines"]} == {"ray"}

        server = anna.start("serve", model, "--cluster", "--nodes", "3", "--listen",
                            "127.0.0.1:8080")  # fmt: skip
        try:
            wait_for(lambda: ready(anna), 90.0)
            before = answered(anna)
            found = wait_for(lambda: serving(status(anna)))
            assert len(found["models"][0]["nodes"]) == 3

            # A worker that dies is started again by its actor, and taken in again.
            worker = next(one for one in found["machines"] if one["host"] == "bert")["worker"]
            state = tmp_path / "bert" / "state" / "bandweave" / "cluster" / "worker.json"
            os.kill(json.loads(state.read_text())["processes"][0]["pid"], signal.SIGKILL)

            def back() -> bool:
                names = {one["host"]: one["worker"] for one in status(anna)["machines"]}
                return names.get("bert", worker) != worker

            wait_for(back, 60.0)
            assert answered(anna) == before

            # Ray's head dies, and nobody who is answered notices.
            for name in ("gcs_server", "raylet"):
                for pid in _named(anna, name):
                    os.kill(pid, signal.SIGKILL)
            for _ in range(3):
                assert answered(anna) == before
            wait_for(lambda: "out of reach" in status(anna)["notes"].get("ray", ""), 60.0)
            assert len(status(anna)["machines"]) == 3
            assert answered(anna) == before
        finally:
            server.terminate()
            output = server.communicate(timeout=30)[0]
            print(output)
        carl.run("leave")
        wait_for(lambda: len(status(anna)["machines"]) == 2, 20.0)
        bert.run("leave")
        anna.run("down")
        assert left_over(machines, 15.0) == []
        assert set(Path("/tmp").glob("bandweave-ray-*")) <= others
