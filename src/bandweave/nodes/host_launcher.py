"""HostLauncher: nodes on named hosts that run a worker. Knows no models and no steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bandweave.handshake.encryption import AUTO, check_encryption
from bandweave.handshake.handshake import HandshakeError, Unreachable, connect
from bandweave.handshake.hello import Hello
from bandweave.mesh.address import Address, format_address, is_loopback, parse_address
from bandweave.mesh.hangup import wait_hangup
from bandweave.nodes.launcher import START_TIMEOUT, Candidate, Launcher
from bandweave.nodes.node_handle import NodeHandle

OnWaiting = Callable[[str], None]  # the name of the node waited for


class HostHandle(NodeHandle):
    """A node that a worker on some host runs. It is alive as long as its connection stands."""

    def alive(self) -> bool:
        return not self.channel.hung_up()

    def exit_reason(self) -> str | None:
        return None if self.alive() else "ended, or its machine did; see what the worker there says"

    def wait(self, timeout: float | None = None) -> bool:
        return self.channel.closed or wait_hangup(self.channel.fileno(), timeout)

    def kill(self) -> None:
        self.channel.hang_up()  # the node's process ends when its controller is gone


class HostError(HandshakeError, ValueError):
    """A host that was named and cannot be used, and what to do about it."""


class HostLauncher(Launcher):
    """Nodes on hosts that run ``bandweave worker``, one per address, in order; those beyond the
    nodes that are started are candidates from the start.

    ``on_waiting`` hears the name of each node before it is connected to. ``encryption``: of all
    that crosses between machines (``handshake.encryption``). ``start`` raises ``HostError`` for a
    host that cannot be reached or refuses.
    """

    local = False

    def __init__(
        self,
        addresses: Sequence[Address | str],
        secret: bytes,
        *,
        connect_timeout: float = 10.0,
        start_timeout: float = START_TIMEOUT,
        on_waiting: OnWaiting = lambda name: None,
        encryption: str = AUTO,
    ) -> None:
        super().__init__(secret, start_timeout=start_timeout)
        self.encryption = check_encryption(encryption)
        self.addresses = [parse_address(a) if isinstance(a, str) else a for a in addresses]
        self._connect_timeout, self._on_waiting = connect_timeout, on_waiting
        for node, address in enumerate(self.addresses):
            if address in self.addresses[:node]:
                raise ValueError(f"{format_address(address)} is given twice; a worker is one node")
        local = [a for a in self.addresses if is_loopback(a[0])]
        if local and len(local) < len(self.addresses):
            raise ValueError(
                f"{format_address(local[0])} cannot be reached from the other hosts; give the "
                "address by which they know this machine"
            )

    def _launch(self, num_nodes: int) -> None:
        if num_nodes > len(self.addresses):
            raise ValueError(f"{num_nodes} nodes, but {len(self.addresses)} hosts are given")
        for node, address in enumerate(self.addresses[:num_nodes]):
            self._on_waiting(_name(node, address))
            self._handles.append(self._dial(node, address, self._connect_timeout))

    def candidates(self) -> Sequence[Candidate]:
        """The hosts that were given and run no node of ours now."""
        with self._changing:
            there = {handle.node for handle in self._handles}
        return [
            Candidate(node=node, name=_name(node, address), address=address)
            for node, address in enumerate(self.addresses)
            if node not in there
        ]

    def _admit(self, candidate: Candidate, timeout: float) -> NodeHandle:
        assert candidate.address is not None
        return self._dial(candidate.node, candidate.address, timeout)

    def _hello(self, node: int) -> Hello:
        """What a worker is told of us."""
        return Hello(purpose="control", node=node, session=self.session)

    def _check(self, node: int, name: str, theirs: Hello) -> None:
        """Whether the worker that answers is the one that is wanted; ``HostError`` if not."""

    def _dial(self, node: int, address: Address, timeout: float) -> HostHandle:
        name = _name(node, address)
        own = self._hello(node)
        try:
            made = connect(
                address, self.secret, own, name=name, timeout=timeout, encryption=self.encryption
            )
        except HandshakeError as error:
            hint = "; is `bandweave worker` running there, and its port open to this machine?"
            text = str(error) + (hint if isinstance(error, Unreachable) else "")
            raise HostError(text) from error
        try:
            self._check(node, name, made.hello)
        except BaseException:
            made.socket.close()
            raise
        channel, theirs = made.channel(name), made.hello
        handle = HostHandle(node=node, name=name, channel=channel, address=address)
        handle.host = format_address(address)
        if theirs.address:
            try:
                handle.address = _parse_advertised(theirs.address, name)
            except BaseException:
                handle.close()
                raise
        return handle


def _name(node: int, address: Address) -> str:
    return f"node {node} ({format_address(address)})"


def _parse_advertised(text: str, name: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise HostError(
            f"{name} wants to be reached at an address that is none; start its worker with "
            f"another --advertise: {error}"
        ) from error
