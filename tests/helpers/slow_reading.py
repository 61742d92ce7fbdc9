"""Nodes that read their model slowly while a test wants it: its folder, which the environment
names, has a file ``slow`` then. Each leaves a file there once it has had to wait."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bandweave.checkpoints.folder import Folder
from bandweave.engine import node
from bandweave.nodes.context import NodeContext

FOLDER = "BANDWEAVE_TEST_SLOW_READING"
SERVE = "tests.helpers.slow_reading:serve"
_SECONDS = 2.0  # of each read, at most

_read = Folder.read


def _slowly(self: Folder, name: str, *arguments: Any) -> Any:
    if name == "embed_tokens":  # of which a node reads rows while it serves
        return _read(self, name, *arguments)
    folder = Path(os.environ[FOLDER])
    over = time.monotonic() + _SECONDS
    while (folder / "slow").exists() and time.monotonic() < over:
        (folder / str(os.getpid())).touch()
        time.sleep(0.02)
    return _read(self, name, *arguments)


def serve(context: NodeContext) -> None:
    Folder.read = _slowly  # type: ignore[method-assign]
    node.serve(context)
