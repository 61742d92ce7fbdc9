"""``bandweave probe``: measures machines and the links between them; keeps and shows it all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from bandweave.cli import output
from bandweave.cli.options import encrypt_option, encryption_of, hosts_and_secret, json_option
from bandweave.environment import read_environment

if TYPE_CHECKING:
    from bandweave.planning.profile.link_profile import LinkProfile
    from bandweave.planning.profile.profile import MachineProfile, Profile

_SHOWN_ROWS = (8, 128)
_NOISY = 0.25  # a spread from which on other programs must have been at work


@click.command("probe", short_help="Measure machines and links, for predictions.")
@click.option("--nodes", type=click.IntRange(1, 1024), metavar="N",
              help="Measure the links between nodes of this machine too. Default 2.")  # fmt: skip
@click.option("--hosts", metavar="HOST:PORT,...",
              help="Measure the machines where `bandweave worker` listens.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE",
              help="The secret that the workers at --hosts have.")  # fmt: skip
@encrypt_option
@click.option("--threads", type=click.IntRange(1, 1024), metavar="T",
              help="Measure with up to T threads. Default: all processors.")  # fmt: skip
@click.option("--quick", is_flag=True, help="A few seconds instead of half a minute; q4 only.")
@click.option("--links-only", is_flag=True, help="Measure only the links of --hosts.")
@click.option("--show", is_flag=True, help="Show what is stored and measure nothing.")
@json_option
def command(
    nodes: int | None,
    hosts: str | None,
    token_file: Path | None,
    encrypt: bool | None,
    threads: int | None,
    quick: bool,
    links_only: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Measures how fast machines read memory, multiply and talk to each other, as bandweave does.

    What is found is kept (BANDWEAVE_PROFILE names the file), and `run`, `bench` and the choice of
    shares use it. Run it when nothing else is at work.
    """
    from bandweave.serving.profile_store import read_profile, save_profile

    addresses, secret = hosts_and_secret(hosts, token_file)
    if addresses and nodes is not None:
        raise ValueError("--nodes is for this machine, --hosts for others; give one of them")
    if encrypt is not None and not addresses:
        raise ValueError("--encrypt and --no-encrypt are for --hosts")
    if links_only and len(addresses) < 2:
        raise ValueError("--links-only is for --hosts with two addresses at least")
    path = read_environment().profile
    if show:
        _print(read_profile(path), path, as_json)
        return
    from bandweave.probing import session
    from bandweave.probing.machine import Scope, quick_scope

    scope = quick_scope("q4", "f16") if quick else Scope()
    with _progress() as on_progress:
        if addresses:
            assert secret is not None
            found = session.probe_hosts(
                addresses, secret, threads=threads, scope=scope, links_only=links_only,
                encryption=encryption_of(encrypt), on_progress=on_progress,
            )  # fmt: skip
        else:
            found = session.probe_here(
                nodes=nodes or 2, threads=threads, scope=scope, on_progress=on_progress
            )
    if path is not None:
        try:
            known = read_profile(path)
        except ValueError as error:
            output.say(f"{error}; it is written anew")
            known = None
        try:
            save_profile(path, found if known is None else known.joined(found))
        except OSError as error:
            _print_unkept(found, path, error, as_json)
    _print(found, path, as_json)


def _print_unkept(found: Profile, path: Path, error: OSError, as_json: bool) -> NoReturn:
    """What took so long to measure is shown, before the error that it was not kept."""
    problem = OSError(
        f"what was measured is not kept: {error.filename or path}: {error.strerror or error}; "
        "set BANDWEAVE_PROFILE to a file of your own"
    )
    if as_json:
        raise output.JsonFailure({"file": None, **found.to_json()}) from problem
    _print_measured(found)
    raise problem from error


def _print(profile: Profile, path: Path | None, as_json: bool) -> None:
    if as_json:
        output.print_json({"file": None if path is None else str(path), **profile.to_json()})
        return
    _print_measured(profile)
    print(f"kept in {path}" if path else "kept nowhere: BANDWEAVE_PROFILE is off")


def _print_measured(profile: Profile) -> None:
    if not profile.machines and not profile.links:
        print("No machine was measured yet; `bandweave probe` does.")
    for name, machine in profile.machines.items():
        _print_machine(name, machine)
        print()
    if profile.links:
        _print_links(profile)
        print()
    _print_noise(profile)


def _print_machine(name: str, machine: MachineProfile) -> None:
    from bandweave.serving.profile_store import why_stale

    reads = ", ".join(
        f"{read.bytes_per_s / 1e9:.3g} GB/s ({output.count(read.threads, 'thread')})"
        for read in machine.reads
    )
    pairs = [
        ("machine", f"{name}: {machine.processor}, {machine.isa} kernels, {machine.measured_at}"),
        ("plain read", reads),
    ]
    overheads = ", ".join(
        f"{one.seconds_per_op * 1e6:.2g} us ({output.count(one.threads, 'thread')})"
        for one in machine.overheads
    )
    pairs.append(("an operation", overheads))
    pairs.append(
        (
            "a step",
            f"{output.seconds(machine.step.seconds_per_step)} around it, "
            f"{output.seconds(machine.step.seconds_per_row)} a row of a prompt",
        )
    )
    if stale := why_stale(name, machine):
        pairs.append(("stale", f"{stale}; measure it again"))
    output.print_pairs(pairs)
    print()
    _print_products(machine)
    print()
    _print_attention(machine)


def _print_products(machine: MachineProfile) -> None:
    """One row by the bytes that it reads, several by what they compute."""
    from bandweave.formats.registry import get_format

    counts = sorted({1, max(product.threads for product in machine.products)})
    headings = ["products", *(f"1r {threads}t" for threads in counts)]
    headings += [f"{rows}r {threads}t" for rows in _SHOWN_ROWS for threads in counts]
    table = []
    for format in machine.formats:
        per_byte = 1 / float(get_format(format).bytes_per_weight)

        def rate(rows: int, threads: int, format: str = format) -> float:
            return 1e-9 / machine.seconds_per_byte(
                format, on_grid=False, rows=rows, threads=threads
            )

        reads = [f"{rate(1, threads):.3g}" for threads in counts]
        flops = [
            f"{2 * rows * per_byte * rate(rows, threads):.3g}"
            for rows in _SHOWN_ROWS
            for threads in counts
        ]
        table.append([format, *reads, *flops])
    output.print_table(headings, table)
    print("r rows of a step, t threads; 1 row: GB/s of weights, several: GFLOP/s")


def _print_attention(machine: MachineProfile) -> None:
    rows = []
    for kv_format in dict.fromkeys(one.kv_format for one in machine.attention):
        for streamed in (True, False):
            found = [
                one for one in machine.attention
                if (one.kv_format, one.streamed, one.threads) == (kv_format, streamed, 1)
            ]  # fmt: skip
            cells = {one.together: f"{one.seconds * 1e9:.3g}" for one in found}
            if cells:
                label = f"{kv_format}, {'decoding' if streamed else 'a prompt'}"
                rows.append([label, *(cells.get(group, "-") for group in (1, 4, 8))])
    headings = ["attention", "1 head a KV head", "4 heads", "8 heads"]
    output.print_table(headings, rows)
    print("ns for each position, query head and dim, one thread")


def _print_links(profile: Profile) -> None:
    rows = [
        [name.replace(" ", " - "), link.transport, _micro(_total(link, 296)),
         _micro(_total(link, 8256)), _micro(_total(link, 1 << 20)),
         f"{link.bytes_per_s / 1e9:.3g}"]
        for name, link in profile.links.items()
    ]  # fmt: skip
    output.print_table(["link", "over", "300 B", "8 kB", "1 MB", "GB/s"], rows)
    print("us for an exchange of two nodes, each sending so much")


def _total(link: LinkProfile, size: int) -> float:
    time = link.at(size)
    return time.wire_seconds + time.wait_seconds + time.other_seconds


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.3g}"


def _print_noise(profile: Profile) -> None:
    spreads = [one.spread for machine in profile.machines.values() for one in machine.products]
    spreads = spreads or [one.spread for link in profile.links.values() for one in link.times]
    if spreads:
        middle = sorted(spreads)[len(spreads) // 2]
        print(f"spread of the rounds: {100 * middle:.0f}% in the middle, {100 * max(spreads):.0f}% "
              "at most")  # fmt: skip
        if middle > _NOISY:
            print("Other programs were at work: believe these figures little, measure again.")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar where people watch."""
    if not output.is_terminal():
        yield lambda what, done, total: None
        return
    from bandweave.cli.progress import part_bar

    with part_bar() as update:
        yield update
