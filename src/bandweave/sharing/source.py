"""FileSource: the controller's machine gives its copy of a model to the nodes that lack some.

It connects to them, as with everything else: workers need no way to the controller.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Self

from bandweave.checkpoints.folder import Folder
from bandweave.handshake.encryption import AUTO
from bandweave.handshake.handshake import connect
from bandweave.handshake.hello import NO_NODE, Hello
from bandweave.nodes.node_handle import NodeHandle
from bandweave.sharing.server import FileServer

_CONNECTIONS = 3  # to each node
_CONNECT_SECONDS = 10.0


class FileSource:
    """Gives files until it is closed. A context manager."""

    def __init__(
        self, folder: Folder, handles: Sequence[NodeHandle], secret: bytes, session: str,
        encryption: str = AUTO,
    ) -> None:  # fmt: skip
        self._encryption = encryption
        self._server = FileServer(folder)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._offer, args=(handle, secret, session), daemon=True)
            for handle in handles
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends all connections, and waits for what is being read."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _offer(self, handle: NodeHandle, secret: bytes, session: str) -> None:
        own = Hello(purpose="files", node=NO_NODE, session=session)
        assert handle.address is not None
        for _ in range(_CONNECTIONS):
            if self._over.is_set():
                return
            with contextlib.suppress(OSError):  # a node that needs files says that none come
                made = connect(
                    handle.address, secret, own, name=handle.name, any_interface=True,
                    timeout=_CONNECT_SECONDS, encryption=self._encryption,
                )  # fmt: skip
                self._server.serve(made.stream())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
