"""When linking pays: decoding on two nodes joined by links of several kinds, beside one machine.

Slow links are emulated (``--emulate-link``) with the catalogue's latency and rate; over a cable of
its own (veth) run workers at both ends and a controller at the first. All nodes share this
machine's processors: what the table shows is what the link costs.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bandweave.host.machine import usable_cpus
from bandweave.planning.machines.links import link_title
from bandweave.planning.profile.emulation import emulated_link
from benchmarks import cable, contestant
from benchmarks.cable import Cable
from benchmarks.contestant import ROOT, Contestant
from benchmarks.models import Scale, Store
from benchmarks.peers.protocol import Work
from benchmarks.result import Figure, Point, Result, Series
from benchmarks.rounds import Entry, Rounds, run_rounds
from benchmarks.statistics import estimate, ratios

LINKS = ("thunderbolt-5-rdma", "ethernet-10g", "ethernet-1g", "thunderbolt-4-tcp", "wifi-6")
_PORT = 7412
_SPEED = "decode_tokens_per_s"
_END_SECONDS = 20.0


def run(store: Store, scale: Scale) -> Result:
    work = Work(prompt_tokens=scale.prompt_tokens, new_tokens=scale.new_tokens // 2, keep=True)
    folder = store.folder(scale.model)
    alone = contestant.bandweave(folder, context=work.context, name="alone, 1 thread")
    whole = contestant.bandweave(folder, context=work.context, threads=2, name="alone, 2 threads")
    loop = contestant.bandweave(folder, context=work.context, nodes=2, name="shared memory")
    entrants = [alone, whole, loop]
    pairs: list[tuple[Contestant, Contestant]] = []
    notes = [
        "The worth of linking is the speed over one machine's (1 node, 1 thread); 2 threads of one "
        "node are what no link could beat by much. Links by name are emulated: TCP between two "
        "processes, and every byte arrives as late as the link would bring it. "
        + " ".join(_about(name) for name in LINKS)
    ]
    with ExitStack() as stack:
        if why_not := cable.why_not():
            notes.append(f"No cable between network namespaces here: {why_not}.")
        else:
            laid = stack.enter_context(cable.lay())
            over = "TCP over veth"
            sealed = stack.enter_context(linked(laid, folder, work, over))
            plain = stack.enter_context(
                linked(laid, folder, work, f"{over}, plain", port=_PORT + 1, encrypt=False)
            )
            entrants += [sealed, plain]
            pairs.append((sealed, plain))
        entrants += [
            contestant.bandweave(folder, context=work.context, nodes=2, link=name, name=name)
            for name in LINKS
        ]
        entries = [Entry(contestant=one, work=work) for one in entrants]
        measured = run_rounds(entries, max(2, scale.rounds // 2), title="links")
    return Result(
        experiment="links",
        title=f"Links, {scale.model.name}, q4, 2 nodes of 1 thread",
        figures=[
            *_figures(measured, alone, [one for one in entrants if one.nodes > 1]),
            *(_encryption(measured, sealed, plain) for sealed, plain in pairs),
        ],
        series=(_series(measured),),
        notes=tuple(notes),
        rounds=[measured.to_json()],
    )


def _about(name: str) -> str:
    link = emulated_link(name)
    latency, rate = link.latency_seconds * 1e6, link.bytes_per_s * 8e-9
    return f"{link_title(name)}: {latency:.0f} us and {rate:.3g} Gbit/s."


def _figures(measured: Rounds, alone: Contestant, linked: list[Contestant]) -> list[Figure]:
    base = measured.values(alone.name, _SPEED)
    return [
        Figure(
            title=f"2 nodes over {one.name}, over 1 node of 1 thread",
            estimate=estimate(ratios(measured.values(one.name, _SPEED), base)),
        )
        for one in linked
    ]


def _encryption(measured: Rounds, sealed: Contestant, plain: Contestant) -> Figure:
    speeds = (measured.values(one.name, _SPEED) for one in (sealed, plain))
    return Figure(title="encrypted over plain, TCP over veth", estimate=estimate(ratios(*speeds)))


def _series(measured: Rounds) -> Series:
    points = [
        Point(name="decoding", x=entry.name, estimate=estimate(measured.values(entry.name, _SPEED)))
        for entry in measured.entries
    ]
    return Series(
        title="Decoding over links", axis="nodes and link", unit="tokens/s", points=tuple(points)
    )


@contextlib.contextmanager
def workers(laid: Cable, port: int = _PORT) -> Iterator[tuple[list[str], Path]]:
    """The addresses of two workers at the ends of the cable, and the file with their secret."""
    with TemporaryDirectory() as secret, ExitStack() as stack:
        token = Path(secret) / "token"
        _bandweave("worker", "--make-token", str(token))
        for end in (0, 1):
            stack.enter_context(_worker(laid, end, token, port))
        yield [f"{address}:{port}" for address in laid.addresses], token


@contextlib.contextmanager
def linked(
    laid: Cable, folder: Path, work: Work, name: str, *, port: int = _PORT, encrypt: bool = True
) -> Iterator[Contestant]:
    """A contestant whose two nodes are workers at the ends of the cable."""
    with workers(laid, port) as (hosts, token):
        yield contestant.bandweave(
            folder,
            context=work.context,
            nodes=2,
            name=name,
            before=laid.inside(0),
            hosts=hosts,
            token_file=token,
            encrypt=encrypt,
        )


@contextlib.contextmanager
def _worker(laid: Cable, end: int, token: Path, port: int) -> Iterator[None]:
    # Machines of their own do not share a processor either.
    cpus = usable_cpus()
    command = ["taskset", "-c", str(cpus[end % len(cpus)]), *laid.inside(end)]
    command += [sys.executable, "-m", "bandweave", "worker", "--threads", "1"]
    command += ["--listen", f"{laid.addresses[end]}:{port}", "--token-file", str(token)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            if "listening" not in line:
                raise RuntimeError(f"the worker at {laid.addresses[end]} did not start: {line}")
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _bandweave(*arguments: str) -> None:
    command = [sys.executable, "-m", "bandweave", *arguments]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
