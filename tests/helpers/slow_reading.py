"""Nodes that read their model slowly while a test wants it: its folder, which the environment
names, has a file ``slow`` then. Each leaves a file there once it has had to wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bandweave.checkpoints.folder import Folder
from bandweave.engine import node
from bandweave.nodes.context import NodeContext

FOLDER = "BANDWEAVE_TEST_SLOW_READING"
SERVE = "tests.helpers.slow_reading:serve"
_SECONDS = 2.0  # of each read, at most


def _slowly(read: Callable[..., Any]) -> Callable[..., Any]:
    def wait_and_read(self: Folder, name: str, *arguments: Any) -> Any:
        if name != "embed_tokens":  # of which a node reads rows while it serves
            folder = Path(os.environ[FOLDER])
            over = time.monotonic() + _SECONDS
            while (folder / "slow").exists() and time.monotonic() < over:
                (folder / str(os.getpid())).touch()
                time.sleep(0.02)
        return read(self, name, *arguments)

    return wait_and_read


def serve(context: NodeContext) -> None:
    # Values come through memory, or straight from the file.
    Folder.read = _slowly(Folder.read)  # type: ignore[method-assign]
    Folder.rows_in_file = _slowly(Folder.rows_in_file)  # type: ignore[method-assign]
    node.serve(context)
