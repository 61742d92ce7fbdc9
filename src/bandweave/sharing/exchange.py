"""FileExchange: a worker's node among the machines that give and take files of one model.

It gives what its folder has to whoever connects, and takes what it lacks from the controller's
machine and from the other nodes. Knows a worker's door; knows no assignments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from bandweave.checkpoints.folder import Folder
from bandweave.checkpoints.partial_file import PartialFile
from bandweave.checkpoints.source import CheckpointError
from bandweave.handshake.connection import Arrived
from bandweave.handshake.encryption import AUTO
from bandweave.handshake.handover import Arrivals
from bandweave.handshake.handshake import connect
from bandweave.handshake.hello import NO_NODE, Hello
from bandweave.mesh.address import Address
from bandweave.mesh.stream import Stream
from bandweave.sharing.givers import giver
from bandweave.sharing.peer import Peer
from bandweave.sharing.routes import Neighbour, Routes
from bandweave.sharing.server import FileServer, store_id

_CONNECT_SECONDS = 10.0
_MOST_UNSERVED = 64

Shared = Mapping[str, Sequence[tuple[int, int]]]


class FileExchange:
    """``node`` of ``session``; close it before the folder that it serves."""

    def __init__(
        self, arrivals: Arrivals, node: int, session: str, secret: bytes,
        log: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._node, self._session, self._secret, self._log = node, session, secret, log
        self.controller = Peer("the controller's machine")
        self._server: FileServer | None = None
        self._served: Folder | None = None
        self._unserved: list[Stream] = []
        self._encryption = AUTO
        self._neighbours: list[Neighbour] = []
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._stack.enter_context(giver(self.controller))
        arrivals.serve_files(self._arrived)

    def serve(self, folder: Folder) -> None:
        """Gives files of this folder from now on."""
        if self._served is folder:
            return
        self._stop_server()
        with self._lock:
            self._server, self._served = FileServer(folder), folder
            waiting, self._unserved = self._unserved, []
        for stream in waiting:
            self._server.serve(stream)

    def lead(
        self, folder: Folder, rank: int, ranks: Sequence[int], shared: Shared,
        addresses: Mapping[int, Address], encryption: str = AUTO,
    ) -> None:  # fmt: skip
        """Lets what the folder lacks come from the other machines, as far as they have it or fetch
        it for all. ``ranks``: the nodes that share ranges with this one, by their places, itself
        among them; ``addresses``: of all nodes; ``encryption``: of connections to them."""
        self._encryption = encryption
        files = {
            name: file
            for name, file in folder.byte_files.items()
            if isinstance(file, PartialFile) and not file.whole
        }
        if not files:
            return
        self.leave()
        self._neighbours = [Neighbour(peer=self.controller)]
        for node, address in addresses.items():
            if node != self._node:
                place = ranks.index(node) if node in ranks else None
                peer = Peer(f"node {node}", partial(self._connect, node, address))
                self._neighbours.append(Neighbour(peer=peer, rank=place))
        fingerprint = folder.layout_fingerprint()
        with ThreadPoolExecutor(len(self._neighbours)) as pool:
            tasks = [
                pool.submit(one.look, fingerprint.config, fingerprint.headers)
                for one in self._neighbours
            ]
        usable = []
        for one, task in zip(self._neighbours, tasks, strict=True):
            if isinstance(error := task.exception(), CheckpointError):
                if one.peer is not self.controller:  # which need not have any
                    self._log(f"gets no files from {error}")
            elif error is not None:
                raise error
            else:
                usable.append(one)
        routes = Routes(usable, rank=rank, ranks=len(ranks), shared=shared, store=store_id(folder))
        for name, file in files.items():
            routes.lead(name, file)

    def interrupt(self) -> None:
        """Ends what is being got from the other nodes, one of which may have gone."""
        for one in self._neighbours:
            if one.peer is not self.controller:
                one.peer.interrupt()

    def leave(self) -> None:
        """Asks the other nodes for nothing more."""
        for one in self._neighbours:
            if one.peer is not self.controller:
                one.peer.close()
        self._neighbours = []
        for file in self._served.byte_files.values() if self._served is not None else ():
            if isinstance(file, PartialFile):
                file.route = None

    def close(self) -> None:
        """Ends all connections."""
        self.leave()
        self._stack.close()
        self.controller.close()
        self._stop_server()
        for stream in self._unserved:
            stream.close()

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.close()
        self._server = self._served = None

    def _connect(self, node: int, address: Address) -> Stream:
        own = Hello(purpose="files", node=self._node, session=self._session)
        return connect(
            address, self._secret, own, name=f"node {node}", expect_node=node, any_interface=True,
            timeout=_CONNECT_SECONDS, encryption=self._encryption,
        ).stream()  # fmt: skip

    def _arrived(self, node: int, arrived: Arrived) -> None:
        stream = arrived.stream()
        if node == NO_NODE:
            self.controller.add(stream)
            return
        with self._lock:
            server = self._server
            if server is None:
                self._unserved.append(stream)
                if len(self._unserved) > _MOST_UNSERVED:
                    self._unserved.pop(0).close()
                return
        server.serve(stream)
