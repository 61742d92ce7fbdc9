"""How nodes meet where addresses say little: published ports, several addresses, cables."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator, Sequence

import pytest

from bandweave.mesh.address import bind, format_address, parse_address, resolve
from bandweave.nodes.host_launcher import HostLauncher
from bandweave.nodes.worker import Worker
from tests.helpers.connections import SECRET
from tests.helpers.networks import End, forwarded, run, two_hosts
from tests.helpers.workers import WorkerProcess, ask, check_mesh


@pytest.fixture
def cable() -> Iterator[tuple[End, End]]:
    with two_hosts() as ends:
        yield ends


def port_of(worker: WorkerProcess) -> int:
    return parse_address(worker.address)[1]


def meet(addresses: Sequence[str], *, sharing: bool) -> None:
    with HostLauncher(addresses, SECRET) as launcher:
        check_mesh(launcher.start(len(addresses)), sharing=sharing)


# One host


@pytest.mark.parametrize(
    ("listen", "given"),
    [
        (("127.0.0.1:0", "127.0.0.2:0"), ("127.0.0.1", "127.0.0.2")),
        (("0.0.0.0:0", "0.0.0.0:0"), ("127.0.0.1", "127.0.0.3")),
        (("0.0.0.0:0", "127.0.0.1:0"), ("localhost", "127.0.0.1")),
        (("[::1]:0", "[::1]:0"), ("[::1]", "[::1]")),
        (("127.0.0.1:0", "[::1]:0"), ("127.0.0.1", "[::1]")),
        (("[::]:0", "[::]:0"), ("127.0.0.1", "[::1]")),
    ],
)
def test_workers_of_one_host_share_memory_by_whatever_address(
    listen: tuple[str, str], given: tuple[str, str]
) -> None:
    if any("::" in text for text in listen):
        try:
            bind(("::1", 0)).close()
        except ValueError:
            pytest.skip("no IPv6 loopback")
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess(text)) for text in listen]
        ports = [port_of(worker) for worker in workers]
        addresses = [f"{host}:{port}" for host, port in zip(given, ports, strict=True)]
        meet(addresses, sharing=True)
        meet(addresses[::-1], sharing=True)


def test_what_stands_for_all_addresses_is_none_to_connect_to() -> None:
    with pytest.raises(ValueError, match="0.0.0.0:7 stands for all addresses of a machine"):
        Worker("127.0.0.1:0", SECRET, advertise="0.0.0.0:7")
    with pytest.raises(ValueError, match="0.0.0.0:1 cannot be reached from the other hosts"):
        HostLauncher(["0.0.0.0:1", "studio:1"], SECRET)
    with pytest.raises(ValueError, match="ffff:127.0.0.1]:1 cannot be reached from the other"):
        HostLauncher(["studio:1", "[::ffff:127.0.0.1]:1"], SECRET)


# A worker behind a port that leads elsewhere


@pytest.mark.parametrize("first", ["host", "container"])
def test_a_published_port_of_a_container_and_a_worker_of_its_host(
    cable: tuple[End, End], first: str
) -> None:
    """By a process that passes on what comes, as container engines without privileges do it."""
    host, container = cable
    with (
        WorkerProcess(f"{host.address}:0", prefix=host.prefix) as one,
        WorkerProcess("0.0.0.0:0", prefix=container.prefix) as two,
        host.inside(lambda: bind((host.address, 0))) as published,
        forwarded(
            published,
            (container.address, port_of(two)),
            lambda to: host.inside(lambda: socket.create_connection(to)),
        ),
    ):
        addresses = [one.address, f"{host.address}:{published.getsockname()[1]}"]
        if first == "container":
            addresses.reverse()
        host.inside(lambda: meet(addresses, sharing=False))


@pytest.mark.parametrize("first", ["host", "container"])
def test_a_port_that_the_packet_filter_leads_into_a_container(
    cable: tuple[End, End], first: str
) -> None:
    host, container = cable
    if shutil.which("nft") is None:
        pytest.skip("needs nft")
    with (
        WorkerProcess(f"{host.address}:0", prefix=host.prefix) as one,
        WorkerProcess("0.0.0.0:0", prefix=container.prefix) as two,
    ):
        rule = f"ip daddr {host.address} tcp dport 9000 dnat to {container.address}:{port_of(two)}"
        host.run("nft", "add table ip nat")
        for hook in ("prerouting", "output"):
            host.run("nft", f"add chain ip nat {hook} {{ type nat hook {hook} priority -100; }}")
            host.run("nft", f"add rule ip nat {hook} {rule}")
        addresses = [one.address, f"{host.address}:9000"]
        if first == "container":
            addresses.reverse()
        host.inside(lambda: meet(addresses, sharing=False))


def test_an_advertised_address_is_the_one_that_other_nodes_use(cable: tuple[End, End]) -> None:
    """The worker of node 0 is known to the command by one address, to the other node by another."""
    host, container = cable
    with (
        WorkerProcess("0.0.0.0:7099", prefix=host.prefix, advertise=f"{host.address}:7099") as one,
        WorkerProcess("0.0.0.0:0", prefix=container.prefix) as two,
    ):
        assert port_of(one) == 7099
        host.run("ip", "addr", "add", "10.213.77.1/32", "dev", "lo")  # which nobody else knows
        addresses = ["10.213.77.1:7099", f"{container.address}:{port_of(two)}"]
        host.inside(lambda: meet(addresses, sharing=False))


# Addresses that hold on one cable only


@pytest.mark.parametrize("first", [0, 1])
def test_a_link_local_address_is_found_by_whatever_interface_leads_there(
    cable: tuple[End, End], first: int
) -> None:
    here, there = cable
    with contextlib.ExitStack() as stack:
        addresses = []
        for end in cable:
            listen = f"[{end.link_local}%{end.interface}]:0"
            worker = stack.enter_context(WorkerProcess(listen, prefix=end.prefix))
            # The command's own name of the interface, which the other end's node does not know.
            addresses.append(f"[{end.link_local}%{here.interface}]:{port_of(worker)}")
        there.run("ip", "link", "add", "loose", "type", "veth", "peer", "name", "end")
        for interface in ("loose", "end"):  # which lead nowhere
            there.run("ip", "link", "set", interface, "up")
        if first:
            addresses.reverse()
        here.inside(lambda: meet(addresses, sharing=False))


def test_a_link_local_address_names_an_interface_of_this_machine(cable: tuple[End, End]) -> None:
    here, _ = cable
    for host, words in (
        ("fe80::2%nowhere", "this machine has no interface 'nowhere'"),
        ("fe80::2", "it names no interface"),
    ):
        sentence = (
            rf"fe80::2 holds on one cable only, and {words}: write "
            rf"\[fe80::2%INTERFACE\]:7000 with one of {here.interface}, or give an address"
        )
        with pytest.raises(ValueError, match=sentence):
            here.inside(lambda host=host: resolve((host, 7000), time.monotonic() + 1))
        with pytest.raises(ValueError, match=sentence):  # and so as the command says it
            launcher = HostLauncher([f"[{host}]:7000"], SECRET)
            here.inside(lambda launcher=launcher: launcher.start(1))


# What is said where two nodes cannot reach each other


def complaint(addresses: Sequence[str], known: Sequence[str]) -> str:
    """What the nodes at ``addresses`` say that are told to meet at ``known``."""
    with HostLauncher(addresses, SECRET) as launcher:
        handles = launcher.start(len(addresses))
        for handle in handles:
            handle.channel.send(
                {"type": "mesh", "addresses": [parse_address(a) for a in known], "seconds": 1.0}
            )
        message = handles[-1].channel.receive(20)
        assert message["type"] == "failed" and message["mistake"] is False
        return message["reason"]


def test_who_could_not_reach_whom_and_where_to_look(cable: tuple[End, End]) -> None:
    here, there = cable
    with (
        WorkerProcess(f"{here.address}:0", prefix=here.prefix) as one,
        WorkerProcess(f"{there.address}:0", prefix=there.prefix) as two,
    ):
        addresses = [one.address, two.address]
        for known, cause in (
            (f"{here.address}:9", "Connection refused"),
            ("10.213.9.77:7000", "No route|does not answer"),
            ("203.0.113.9:7000", "unreachable"),
        ):
            reason = here.inside(lambda known=known: complaint(addresses, [known, two.address]))
            assert reason.startswith(
                f"node 1 ({two.address}) could not reach node 0 ({known}) within 1 s: "
            )
            assert any(word in reason for word in cause.split("|")), reason
            assert reason.endswith(
                f"; {known} has to lead there from the machine of node 1 too, through any firewall "
                "between the two"
            )
        unknown = "nowhere.invalid:7000"
        reason = here.inside(lambda: complaint(addresses, [unknown, two.address]))
        assert reason.startswith(f"node 1 ({two.address}): node 0 ({unknown}) cannot be reached: ")
        cable_only = "[fe80::77%eth9]:7000"
        reason = here.inside(lambda: complaint(addresses, [cable_only, two.address]))
        assert f"could not reach node 0 ({cable_only})" in reason
        assert "holds on one cable only, and no interface of the machine of node 1 leads" in reason


def test_a_firewall_between_two_nodes_is_what_the_sentence_speaks_of(
    cable: tuple[End, End],
) -> None:
    here, there = cable
    if shutil.which("nft") is None:
        pytest.skip("needs nft")
    with (
        WorkerProcess(f"{here.address}:0", prefix=here.prefix) as one,
        WorkerProcess(f"{there.address}:0", prefix=there.prefix) as two,
    ):
        here.run("nft", "add table ip filter")
        here.run("nft", "add chain ip filter input { type filter hook input priority 0; }")
        drop = f"ip saddr {there.address} tcp dport {port_of(one)} drop"
        here.run("nft", f"add rule ip filter input {drop}")
        addresses = [one.address, two.address]
        reason = here.inside(lambda: complaint(addresses, addresses))
        assert f"node 1 ({two.address}) could not reach node 0 ({one.address}) within" in reason
        assert "it does not answer" in reason
        assert "firewall" in reason


# The cable


def test_a_command_tells_two_networks_from_one(cable: tuple[End, End]) -> None:
    here, there = cable
    with (
        WorkerProcess(f"{here.address}:0", prefix=here.prefix) as one,
        WorkerProcess(f"{there.address}:0", prefix=there.prefix) as two,
        HostLauncher([one.address, two.address], SECRET) as launcher,
    ):
        handles = here.inside(lambda: launcher.start(2))
        assert handles[0].host_id == handles[1].host_id != ""  # one machine, after all
        check_mesh(handles, sharing=False)
        described = ask(handles[1], type="describe")
        assert format_address(tuple(described["address"])) == two.address
        assert not any(handle.is_silent(0.0) for handle in handles)
        there.run("ip", "link", "set", there.interface, "down")  # the cable is pulled
        started = time.monotonic()
        with pytest.raises(OSError, match=r"node 1 \(10"):
            handles[1].channel.receive(1)
        assert ask(handles[0], type="echo", text="here")["text"] == "here"
        run("ip", "-n", there.name, "link", "set", there.interface, "up")
        assert time.monotonic() - started < 5
